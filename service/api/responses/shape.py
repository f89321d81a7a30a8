"""The base of all response models, and the models of lists and pages."""

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")


class View(BaseModel):
    """Base of all response models: the docstring of a field is its description in the OpenAPI document."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Listing(View, Generic[Item]):
    """A complete list."""

    # Not docstrings: for each kind of list pydantic would look for them again in the source of every caller up to the program.
    model_config = ConfigDict(use_attribute_docstrings=False)

    object: Literal["list"] = Field("list", description="The type of the object.")
    data: list[Item] = Field(description="The items, in the order that the operation states.")


class Page(Listing[Item], Generic[Item]):
    """A page of a long list."""

    has_more: bool = Field(
        description="Whether there are more: request them with ``after`` = the last id, or the last ``seq``, of this page."
    )
