"""Which artifacts a name stands for."""

import pytest

from service.client import Artifact, ClientError
from service.client.download import chosen

ARTIFACTS = [
    Artifact(name=name, size=1, sha256="0" * 64)
    for name in ("report.json", "student/config.json", "student/model.safetensors", "student.onnx")
]


def names(wanted: list[str] | None) -> list[str]:
    return [artifact.name for artifact in chosen(ARTIFACTS, wanted)]


def test_all_is_the_default() -> None:
    assert len(names(None)) == 4


@pytest.mark.parametrize("name", ["student", "student/"])
def test_a_folder_stands_for_what_is_in_it_and_for_nothing_that_only_starts_like_it(name: str) -> None:
    assert names([name]) == ["student/config.json", "student/model.safetensors"]


def test_a_file_named_twice_comes_once() -> None:
    assert names(["student", "student/config.json", "report.json"]) == [
        "student/config.json",
        "student/model.safetensors",
        "report.json",
    ]


def test_a_name_that_stands_for_nothing_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ClientError, match=r"no artifact 'teacher'; there are: report\.json"):
        names(["teacher"])
