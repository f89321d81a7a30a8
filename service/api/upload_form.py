"""The multipart form of an upload: its fields as JSON Schema, for the OpenAPI document and for the checks of what was sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.errors import FieldError
from service.spec.names import ONE_LINE, require_one_line

MAX_NAME_CHARACTERS = 200


@dataclass(frozen=True)
class UploadForm:
    """A part ``file`` and text fields, of which the ``required`` ones must not be empty."""

    file_description: str
    fields: Mapping[str, Mapping[str, Any]]
    """The JSON Schema of each text field; of its keywords ``enum``, ``maxLength`` and the ``pattern`` of one line are checked."""
    required: tuple[str, ...]
    example: Mapping[str, Any]

    def openapi(self) -> dict[str, Any]:
        """The request body of a route in the OpenAPI document (its ``openapi_extra``)."""
        file = {"type": "string", "format": "binary", "description": self.file_description}
        schema = {
            "type": "object",
            "required": ["file", *self.required],
            "additionalProperties": False,
            "properties": {"file": file, **self.fields},
        }
        content = {"multipart/form-data": {"schema": schema, "example": dict(self.example)}}
        return {"requestBody": {"required": True, "content": content}}

    def field_errors(self, values: Mapping[str, str]) -> list[FieldError]:
        """Finds all errors in the text fields; an optional field may be empty."""
        found = [FieldError(pointer=f"/{name}", message="this part is needed") for name in self.required if not values.get(name)]
        for name, schema in self.fields.items():
            value, allowed, max_length = values.get(name, ""), schema.get("enum"), schema.get("maxLength")
            if value and allowed is not None and value not in allowed:
                message = f"{value!r:.80} is not known; use one of {', '.join(allowed)}"
                found.append(FieldError(pointer=f"/{name}", message=message))
            if max_length is not None and len(value) > max_length:
                found.append(FieldError(pointer=f"/{name}", message=f"at most {max_length:,} characters"))
            if schema.get("pattern") == ONE_LINE:
                try:
                    require_one_line(value)
                except ValueError as error:
                    found.append(FieldError(pointer=f"/{name}", message=str(error)))
        return found
