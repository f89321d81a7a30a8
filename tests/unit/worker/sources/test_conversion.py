"""A conversion is kept by what made it."""

import importlib.metadata

import pytest

from worker.sources import conversion


@pytest.mark.parametrize("upgraded", ["gguf", "transformers"])
def test_an_upgrade_of_what_converts_has_a_network_converted_again(upgraded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = conversion._key("0" * 64)
    assert conversion._key("0" * 64) == before != conversion._key("1" * 64)
    installed = importlib.metadata.version
    monkeypatch.setattr(conversion, "version", lambda name: installed(name) + ("+later" if name == upgraded else ""))
    assert conversion._key("0" * 64) != before
