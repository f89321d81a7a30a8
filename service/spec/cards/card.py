"""The base of every part of a report card."""

from pydantic import BaseModel, ConfigDict


class Card(BaseModel):
    """A part of the report. JSON has no NaN: a figure that is not finite is an error."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        # The published schema permits other fields: a later service may add some.
        json_schema_extra=lambda schema: schema.pop("additionalProperties", None),
    )
