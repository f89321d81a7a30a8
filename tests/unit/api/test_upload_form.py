"""What an upload's form tells the OpenAPI document is what is checked."""

import pytest

from service.api.upload_form import UploadForm
from service.spec.names import ONE_LINE

FORM = UploadForm(
    file_description="Bytes.",
    fields={
        "name": {"type": "string", "maxLength": 3, "pattern": ONE_LINE},
        "task": {"enum": ["a", "b"]},
        "notes": {"type": "string", "maxLength": 1000},
    },
    required=("name", "task"),
    example={"file": "x", "name": "abc", "task": "a"},
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"name": "abc", "task": "b"}, []),
        ({"name": "abc", "task": "b", "notes": "two\nlines"}, []),
        (
            {"name": "a\n", "task": "b"},
            ["/name: a name has one line: leave out line breaks and other control characters"],
        ),
        ({}, ["/name: this part is needed", "/task: this part is needed"]),
        ({"name": "", "task": "a"}, ["/name: this part is needed"]),
        ({"name": "abcd", "task": "c"}, ["/name: at most 3 characters", "/task: 'c' is not known; use one of a, b"]),
        ({"name": "a", "task": "a", "notes": "x" * 1001}, ["/notes: at most 1,000 characters"]),
    ],
)
def test_every_fault_of_the_fields_is_found(values: dict[str, str], expected: list[str]) -> None:
    assert [f"{fault.pointer}: {fault.message}" for fault in FORM.field_errors(values)] == expected


def test_the_document_has_the_file_beside_the_fields() -> None:
    content = FORM.openapi()["requestBody"]["content"]["multipart/form-data"]
    assert content["schema"]["required"] == ["file", "name", "task"]
    assert list(content["schema"]["properties"]) == ["file", "name", "task", "notes"]
    assert content["schema"]["properties"]["name"]["maxLength"] == 3
