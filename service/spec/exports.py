"""Forms in which a job exports its student, beside the folder that its library loads."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator

ExportFormat = Literal["onnx", "onnx-int8"]


@dataclass(frozen=True)
class ExportPage:
    """Summary of a format, and the name of its file."""

    filename: str
    summary: str


EXPORTS: dict[ExportFormat, ExportPage] = {
    "onnx": ExportPage(
        filename="student.onnx",
        summary="The student as an ONNX graph in float32, for batches of any size, checked to give the student's outputs.",
    ),
    "onnx-int8": ExportPage(
        filename="student.int8.onnx",
        summary="The same graph with 8-bit weights, about a quarter of the size; its outputs differ by some percent, and the "
        "report has its accuracy.",
    ),
}
"""Every format, with its page."""


def _each_once(formats: list[ExportFormat]) -> list[ExportFormat]:
    for index, name in enumerate(formats):
        if name in formats[:index]:
            raise ValueError(f"{name!r} is listed twice: name each format once")
    return formats


Exports = Annotated[list[ExportFormat], AfterValidator(_each_once)]
"""``[onnx]``, ``[onnx, onnx-int8]``: each format by its name, once."""
