"""The spec of a command: the chat template that lies beside it, and where its faults are."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from service.cli.failure import CommandFailed
from service.cli.specs import open_spec
from service.spec import parse_spec
from service.spec.yaml_document import yaml_places


def read_dataset(folder: Path) -> Any:
    with open_spec(str(folder / "spec.yaml")) as document:
        return document["dataset"]


def test_a_chat_template_may_be_a_file_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("dataset: {source: 'file:/a', chat_template: '@mine.jinja'}", encoding="utf-8")
    with pytest.raises(CommandFailed, match=r"the chat template .*mine\.jinja cannot be read"):
        read_dataset(tmp_path)
    (tmp_path / "mine.jinja").write_text("{{ messages }}\n", encoding="utf-8")
    assert read_dataset(tmp_path) == {"source": "file:/a", "chat_template": "{{ messages }}\n"}


def test_a_template_that_begins_with_that_sign_is_a_template(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("dataset: {chat_template: '@{{ messages }}'}", encoding="utf-8")
    assert read_dataset(tmp_path) == {"chat_template": "@{{ messages }}"}


FAULTY = """\
task: image-classification
dataset:
  source: builtin:digits
  sorce: x
teacher:
  architecture: {name: small-cnn, wdth: 8}
  training: {epochs: 1}
student: {architecture: {name: small-cnn, width: 0}, tokenizer: {"a/b": 1}}
method:
  terms:
    - name: soft-targets
    - {name: dkd, bet: 1}
"""


def test_every_fault_has_the_line_and_column_of_its_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "faulty.yaml"
    spec.write_text(FAULTY)
    with pytest.raises(typer.Exit), open_spec(str(spec)) as document:
        parse_spec(document)
    lines = capsys.readouterr().err.splitlines()
    starts = [line.strip().removeprefix(f"{spec}:").split(": ")[:2] for line in lines[1:]]
    assert ["4:3", "/dataset/sorce"] in starts
    assert ["6:35", "/teacher/architecture/wdth"] in starts
    assert ["8:43", "/student/architecture/width"] in starts
    assert ["12:19", "/method/terms/1/bet"] in starts


def test_programs_read_the_same_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "faulty.yaml"
    spec.write_text("task: image-classification\ndataset: {source: 'builtin:digits'}\n\nteachr: {}\n")
    with pytest.raises(typer.Exit), open_spec(str(spec), as_json=True) as document:
        parse_spec(document)
    errors = {error["pointer"]: error for error in json.loads(capsys.readouterr().out)["errors"]}
    assert (errors["/teachr"]["line"], errors["/teachr"]["column"]) == (4, 1)
    assert "Did you mean teacher?" in errors["/teachr"]["message"]
    assert errors["/student"]["line"] == 1, "what is missing stands nowhere: its object does"


def test_places_are_those_of_names_and_items() -> None:
    text = 'a: [1, {"x/y": 2}]\nb: &b {c: 1}\nd: *b\n"e~": |\n  text\n'
    assert yaml_places(text) == {
        "": (1, 1),
        "/a": (1, 1),
        "/a/0": (1, 5),
        "/a/1": (1, 8),
        "/a/1/x~1y": (1, 9),
        "/b": (2, 1),
        "/b/c": (2, 8),
        "/d": (3, 1),
        "/d/c": (2, 8),
        "/e~0": (4, 1),
    }
