"""The forms in which a student can be had, by name."""

from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from service.spec.exports import EXPORTS, ExportFormat, Exports

ADAPTER: TypeAdapter[Any] = TypeAdapter(Exports)


@pytest.mark.parametrize("formats", [[], ["onnx"], ["onnx-int8"], ["onnx", "onnx-int8"]])
def test_formats_are_named_in_any_number(formats: list[str]) -> None:
    assert ADAPTER.validate_python(formats, strict=True) == formats


@pytest.mark.parametrize(
    ("formats", "words"),
    [
        (["onnx", "onnx"], "'onnx' is listed twice"),
        (["torchscript"], "'onnx' or 'onnx-int8'"),
        ("onnx", "valid list"),
        ([{"format": "onnx"}], "'onnx' or 'onnx-int8'"),
    ],
)
def test_other_names_and_repeats_are_refused_with_those_that_are_known(formats: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ADAPTER.validate_python(formats, strict=True)


def test_every_format_has_its_page_and_a_file_of_its_own() -> None:
    assert list(EXPORTS) == list(get_args(ExportFormat))
    assert len({page.filename for page in EXPORTS.values()}) == len(EXPORTS)
