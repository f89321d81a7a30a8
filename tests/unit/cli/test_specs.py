"""The spec of a command, with the chat template that lies beside it."""

from pathlib import Path

import pytest

from service.cli.failure import CommandFailed
from service.cli.specs import read_spec


def test_a_chat_template_may_be_a_file_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("dataset: {source: 'file:/a', chat_template: '@mine.jinja'}", encoding="utf-8")
    with pytest.raises(CommandFailed, match=r"the chat template .*mine\.jinja cannot be read"):
        read_spec(str(tmp_path / "spec.yaml"))
    (tmp_path / "mine.jinja").write_text("{{ messages }}\n", encoding="utf-8")
    assert read_spec(str(tmp_path / "spec.yaml"))["dataset"] == {"source": "file:/a", "chat_template": "{{ messages }}\n"}


def test_a_template_that_begins_with_that_sign_is_a_template(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("dataset: {chat_template: '@{{ messages }}'}", encoding="utf-8")
    assert read_spec(str(tmp_path / "spec.yaml"))["dataset"] == {"chat_template": "@{{ messages }}"}
