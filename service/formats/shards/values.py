"""Values of a chunk as Arrow arrays of a shard, and back: each kind of value has one way to stand. N rows."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.formats.chat import Chat
from service.formats.chunk import Chunk, ChunkInputs, TargetValues
from service.formats.columns.arrow import strings
from service.formats.media.encoded import DIGEST_BYTES, EncodedAudio, EncodedImage, pixels_digest, text_digest
from service.formats.pair import paired
from service.formats.shards.index import HASH, LENGTH, SIDES, Stored, field_name, stored_as, stored_field
from service.spec.tasks import TargetKind

Fields = list[tuple[pa.Field, pa.Array]]


def input_fields(columns: Sequence[str], inputs: ChunkInputs) -> Fields:
    """The fields of some inputs, of which there is one at least; of pairs of texts one for each of the ``columns``."""
    if len(columns) > 1:
        return [_named(column, "text", texts) for column, texts in zip(columns, zip(*inputs, strict=True), strict=True)]
    (column,) = columns
    if isinstance(inputs, np.ndarray):
        rows = np.ascontiguousarray(inputs)
        width = rows[0].nbytes
        array = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(rows), [None, pa.py_buffer(rows)])
        stored = Stored(kind="pixels", shape=list(rows.shape[1:]), dtype=cast(Any, str(rows.dtype)))
        return [(stored_field(column, array.type, stored), array)]
    match inputs[0]:
        case EncodedImage():
            images = cast(Sequence[EncodedImage], inputs)
            sides = zip(SIDES, zip(*((image.height, image.width, image.channels) for image in images), strict=True), strict=True)
            return [_files(column, "image", [image.data for image in images]), *(_integers(*each) for each in sides)]
        case EncodedAudio():
            clips = cast(Sequence[EncodedAudio], inputs)
            lengths = zip(LENGTH, zip(*((clip.num_samples, clip.rate) for clip in clips), strict=True), strict=True)
            return [_files(column, "audio", [clip.data for clip in clips]), *(_integers(*each) for each in lengths)]
        case Chat():
            return [_named(column, "chat", inputs)]
        case str():
            return [_named(column, "text", inputs)]
        case _:
            return [_as_json(column, inputs)]


def read_inputs(columns: Sequence[str], batch: pa.RecordBatch) -> ChunkInputs:
    """The inputs of some rows, of two columns pairs of texts."""
    if len(columns) > 1:
        return paired([cast(list[str], strings(batch.column(field_name(column)))) for column in columns])
    (column,) = columns
    values = batch.column(field_name(column))
    stored = stored_as(batch.schema.field(field_name(column)))
    match stored.kind:
        case "pixels":
            assert stored.shape is not None
            width, dtype = values.type.byte_width, np.dtype(stored.dtype)
            start, count = values.offset * width, len(values) * width // dtype.itemsize
            flat: NDArray[np.generic] = np.frombuffer(values.buffers()[1], dtype=dtype, offset=start, count=count)
            return flat.reshape(len(values), *stored.shape)
        case "image":
            sides = [batch.column(name).to_pylist() for name in SIDES]
            digests = batch.column(HASH).to_pylist()
            return [EncodedImage(*each) for each in zip(values.to_pylist(), *sides, digests, strict=True)]
        case "audio":
            lengths = [batch.column(name).to_pylist() for name in LENGTH]
            digests = batch.column(HASH).to_pylist()
            return [EncodedAudio(*each) for each in zip(values.to_pylist(), *lengths, digests, strict=True)]
        case "text":
            return cast(list[str], strings(values))
        case "chat":
            return _chats(values)
        case _:
            return cast(list[list[str]], _from_json(values))


def target_field(column: str, values: TargetValues, kind: TargetKind) -> tuple[pa.Field, pa.Array]:
    """The field of a target of some rows."""
    if kind in ("tags", "spans", "labels"):
        return _as_json(column, cast(Sequence[Any], values))
    if not isinstance(values, np.ndarray):
        return _named(column, "chat" if kind == "messages" else "name", values)
    array = pa.array(values)
    return stored_field(column, array.type, Stored(kind="number" if kind == "number" else "index")), array


def read_target(column: str, batch: pa.RecordBatch) -> TargetValues:
    """The values of a target of some rows."""
    values = batch.column(field_name(column))
    match stored_as(batch.schema.field(field_name(column))).kind:
        case "json":
            return _from_json(values)
        case "name":
            return strings(values)
        case "chat":
            return _chats(values)
        case _:
            return cast(NDArray[np.int64], values.to_numpy(zero_copy_only=False).copy())


def sample_digests(chunk: Chunk, kinds: Mapping[str, TargetKind]) -> pa.Array:
    """The digests (N,) of the samples of a chunk, their answers included, where they have some; ``kinds`` are of its targets."""
    inputs = chunk.inputs
    answers = next((chunk.targets[name] for name, kind in kinds.items() if kind in ("text", "messages")), None)
    if isinstance(inputs, np.ndarray):
        digests = [pixels_digest(image) for image in inputs]
    else:
        digests = [each.digest if isinstance(each, EncodedImage | EncodedAudio) else text_digest(each) for each in inputs]
    if answers is not None:
        both = zip(digests, answers, strict=True)
        digests = [digest if answer is None else text_digest([digest.hex(), answer]) for digest, answer in both]
    return pa.array(digests, pa.binary(DIGEST_BYTES))


def decoded_bytes(inputs: ChunkInputs) -> int:
    """About how much memory some inputs take, decoded."""
    if isinstance(inputs, np.ndarray):
        return inputs.nbytes
    return sum(each.decoded_bytes if isinstance(each, EncodedImage | EncodedAudio) else _text_bytes(each) for each in inputs)


def _text_bytes(text: str | Sequence[str]) -> int:
    return len(text) if isinstance(text, str) else sum(map(len, text))


def _files(column: str, kind: Any, data: Sequence[bytes]) -> tuple[pa.Field, pa.Array]:
    return stored_field(column, pa.large_binary(), Stored(kind=kind)), pa.array(data, pa.large_binary())


def _named(column: str, kind: Any, values: Sequence[Any]) -> tuple[pa.Field, pa.Array]:
    return stored_field(column, pa.large_string(), Stored(kind=kind)), pa.array(values, pa.large_string())


def _integers(name: str, values: Sequence[int]) -> tuple[pa.Field, pa.Array]:
    return pa.field(name, pa.int32()), pa.array(values, pa.int32())


def _as_json(column: str, values: Sequence[Any]) -> tuple[pa.Field, pa.Array]:
    # What no JSON has can only stand in fields that nobody reads, as a date beside the label of a span.
    written = [None if value is None else json.dumps(value, default=repr) for value in values]
    return stored_field(column, pa.large_string(), Stored(kind="json")), pa.array(written, pa.large_string())


def _chats(values: pa.Array) -> list[str]:
    return [Chat(text) for text in values.to_pylist()]


def _from_json(values: pa.Array) -> list[Any]:
    return [None if value is None else json.loads(value) for value in values.to_pylist()]
