"""How images of several sizes become ones of one size: the part ``dataset.image`` of a spec."""

from typing import Annotated, Literal

from pydantic import Field

from service.spec.strict import StrictModel

Side = Annotated[int, Field(ge=2, le=8192)]
Fit = Literal["crop", "pad", "stretch"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]
_USUAL_SIDE = 224


class ImageFit(StrictModel):
    """What each image becomes before anything else reads it: every network then has one view, and resizes it to its own size."""

    size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    """Side of a square, or height and width. By default the largest size that a given network's image processor reads."""
    fit: Fit | None = None
    """``crop``: resized until it covers the size, and cut out of the middle. ``pad``: resized until it is within the size, black
    around it. ``stretch``: resized to it, whatever its proportions. By default what the processor of the network does whose size
    it is, else ``crop``."""
    interpolation: Interpolation | None = None
    """How pixels are resized, with antialiasing but for ``nearest``. By default as that processor does, else ``bilinear``."""

    @property
    def sides(self) -> tuple[int, int] | None:
        """(height, width), as far as the spec says it."""
        if self.size is None:
            return None
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])


def no_canvas_message(least: list[int], greatest: list[int]) -> str:
    """Why images of several sizes need ``dataset.image.size``, with a proposal."""
    side = max(2, min(_USUAL_SIDE, *least))
    return (
        f"the images are of several sizes, heights from {least[0]} to {greatest[0]} and widths from {least[1]} to {greatest[1]}, "
        f"and no given network says what it reads: name the size that all are fitted to, for instance image: {{size: {side}}}"
    )
