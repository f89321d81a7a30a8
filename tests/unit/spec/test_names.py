"""What people call things is one line, wherever the API takes a name."""

import pytest
from pydantic import TypeAdapter, ValidationError

from service.api.responses.data import ModelEdit
from service.api.responses.jobs import JobEdit
from service.api.responses.model_uploads import ModelUploadRequest
from service.api.responses.team import KeyRequest, NewUser
from service.errors import InvalidSpec
from service.spec import parse_spec
from service.spec.names import OneLine
from tests.unit.spec.test_effect import IMAGES

OF_SEVERAL_LINES = ["a\nb", "a\n", "\x1b[31mred", "a\x00", "a\x7f", "a\x85b", "a\u2028b", "\u202eevil"]


@pytest.mark.parametrize("name", OF_SEVERAL_LINES)
def test_a_line_has_no_control_characters(name: str) -> None:
    with pytest.raises(ValidationError, match="one line"):
        TypeAdapter(OneLine).validate_python(name)


@pytest.mark.parametrize("name", ["", "digits, CNN to a tenth", "Größe ½", "می\u200cخواهم", "👩\u200d🔬", "数字"])
def test_all_scripts_may_stand_in_a_line(name: str) -> None:
    assert TypeAdapter(OneLine).validate_python(name) == name


@pytest.mark.parametrize(
    ("model", "field", "place"),
    [
        (ModelEdit, {"name": "a\nb"}, "name"),
        (JobEdit, {"name": "a\x1bb"}, "name"),
        (JobEdit, {"labels": {"a\nb": ""}}, "labels"),
        (JobEdit, {"labels": {"a": "b\r"}}, "labels"),
        (NewUser, {"name": "a\nb"}, "name"),
        (KeyRequest, {"user": "ana", "name": "a\nb"}, "name"),
        (ModelUploadRequest, {"name": "a\nb", "files": [{"name": "a", "size": 1, "sha256": "0" * 64}]}, "name"),
    ],
)
def test_no_request_gives_a_name_of_several_lines(model: type, field: dict[str, object], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(model).validate_python(field)
    assert {error["loc"][0] for error in refused.value.errors()} == {place}


@pytest.mark.parametrize(("field", "value"), [("name", "a\nb"), ("labels", {"a": "b\x1b"}), ("labels", {"a\x07": "b"})])
def test_no_spec_does(field: str, value: object) -> None:
    with pytest.raises(InvalidSpec, match=f"/{field}.*one line"):
        parse_spec(IMAGES | {field: value})
