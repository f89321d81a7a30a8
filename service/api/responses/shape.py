"""What all answers have in common, and the shape of lists."""

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

Item = TypeVar("Item")


class View(BaseModel):
    """What all answers have in common."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Listing(View, Generic[Item]):
    """All there is of something."""

    object: Literal["list"] = "list"
    """What this is."""
    data: list[Item]
    """What is listed, in the order that the call names."""


class Page(Listing[Item], Generic[Item]):
    """A part of a long list."""

    has_more: bool
    """Whether more follow: ask again with ``after`` = the last id, or the last ``seq``, of this page."""
