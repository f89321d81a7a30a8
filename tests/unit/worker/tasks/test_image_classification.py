"""What the card of a student of images says of files: its lines make the pixels that the data were."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from service.spec.canvas import Fit, ImageFit
from tests.unit.formats.files import encoded, some_images
from worker.data.images.canvas import Canvas, fit_image
from worker.tasks.image_classification import ImageClassification

SIZE = (18, 31)


@pytest.mark.parametrize("is_own", [False, True])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_file_is_fitted_as_the_data_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: Fit, is_own: bool) -> None:
    monkeypatch.chdir(tmp_path)
    program = ImageClassification.usage(cast(Any, None), a_report(fit), is_own=is_own)
    compile(program, "card", "exec")
    lines = program[program.index("image = ") : program.index("  # as its data were")]
    for shape in ((40, 30, 3), (17, 64, 3), (5, 7, 3)):
        data = encoded(some_images(*shape))
        Path("image.png").write_bytes(data)
        found: dict[str, NDArray[np.uint8]] = {}
        exec(f"import numpy\nfrom PIL import Image, ImageOps\n{lines}", {}, found)
        expected = fit_image(data, Canvas(*SIZE, 3, fit, "bicubic"))
        assert found["pixels"].transpose(2, 0, 1).shape == expected.shape
        if fit != "crop":  # Pillow's cuts between pixels
            np.testing.assert_array_equal(found["pixels"].transpose(2, 0, 1), expected)


def a_report(fit: Fit) -> Any:
    image_fit = ImageFit(size=list(SIZE), fit=fit, interpolation="bicubic")
    data = SimpleNamespace(
        input_shape=[3, *SIZE], pixel_range=[0.0, 255.0], image_fit=image_fit, targets={"label": ["a", "b"]}, label_kinds={}
    )
    return SimpleNamespace(data=data)
