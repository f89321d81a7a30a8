"""Who may read a repository of the Hub: asked of one of its own files, whatever these are."""

from pathlib import Path

import huggingface_hub.constants
import pytest

from tests.hub import hub_server
from worker.sources.errors import SourceRefused
from worker.sources.hub import resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "names",
    [["config.json", "model.safetensors"], ["tiny.gguf"], ["model.safetensors", "tokenizer.json"], ["vocab.txt"]],
    ids=lambda names: names[0],
)
def test_the_files_of_a_gated_repository_are_asked_for_with_the_callers_token(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ["README.md", *names]:
        (tmp_path / name).write_bytes(b"x")
    with hub_server() as hub:
        hub.add("anna/gated", tmp_path, commit=COMMIT, token="hf_hers")
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        assert resolve("hub:anna/gated", token="hf_hers") == COMMIT
        with pytest.raises(SourceRefused, match="anna/gated is gated"):
            resolve("hub:anna/gated", token="hf_anothers")
