"""The example of named entities: what it makes is a dataset in each of its forms, and the same each time."""

from pathlib import Path

import pytest

from examples.named_entities import main, sentences
from service.formats import inspect_dataset
from worker.evaluation.entities import entities_of


@pytest.mark.parametrize("name", ["entities.jsonl", "entities.parquet"])
@pytest.mark.parametrize("options", [[], ["--spans"]])
def test_it_writes_a_dataset(tmp_path: Path, name: str, options: list[str]) -> None:
    path = tmp_path / name
    main([str(path), "--sentences", "200", *options])
    columns = {"input_column": "text", "target_columns": ["spans"]} if options else {}
    info = inspect_dataset(path, filename=name, task="token-classification", **columns)  # type: ignore[arg-type]
    assert info.splits.keys() == {"train", "validation", "test"}
    assert info.classes == ["B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O"]
    assert info.warnings == []


def test_untagged_sentences_are_transfer_rows(tmp_path: Path) -> None:
    path = tmp_path / "untagged.jsonl"
    main([str(path), "--sentences", "200", "--untagged", "--seed", "7"])
    info = inspect_dataset(path, filename=path.name, task="token-classification", target_columns=[])
    assert info.columns.keys() == {"tokens"}
    assert info.splits.keys() == {"train"}


def test_the_same_seed_gives_the_same_sentences() -> None:
    assert list(sentences(50)) == list(sentences(50))
    assert list(sentences(50)) != list(sentences(50, seed=1))


def test_some_names_stand_in_the_test_split_alone() -> None:
    names: dict[str, set[str]] = {"train": set(), "test": set()}
    for each in sentences(2_000):
        if each.split in names:
            names[each.split] |= {" ".join(each.tokens[first:end]) for _, first, end in entities_of(each.tags)}
    new = names["test"] - names["train"]
    assert 0.2 < len(new) / len(names["test"]) < 0.6


def test_another_ending_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "entities.csv")])
    assert "a file ends in .jsonl or .parquet, not in '.csv'" in capsys.readouterr().err
