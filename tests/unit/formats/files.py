"""Dataset files to read: small ones, written the way that users write them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from service.formats import ImageArrays, read_images


def some_images(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise of that shape."""
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


def write_npz(path: Path, *, compressed: bool = False, **arrays: Any) -> Path:
    """An npz of those arrays."""
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    """A Parquet file of those columns."""
    pq.write_table(pa.table(columns), path, **options)
    return path


def encoded(image: NDArray[np.uint8], *, format: str = "PNG") -> bytes:
    """A PNG or JPEG of one image."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=format)
    return buffer.getvalue()


def read(path: Path) -> ImageArrays:
    """Its arrays, by the name that it has."""
    return read_images(path, filename=path.name)
