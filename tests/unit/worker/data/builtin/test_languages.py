"""The names that a text classifier is tried on."""

from collections import defaultdict

from worker.data.builtin.languages import LANGUAGES, load_languages


def test_no_name_is_there_twice_or_in_two_languages() -> None:
    languages: dict[str, list[int]] = defaultdict(list)
    for split in load_languages().splits.values():
        for text, language in zip(split.inputs, split.targets["label"], strict=True):
            assert isinstance(text, str)
            languages[text.casefold()].append(int(language))
    assert len(languages) == 4800
    assert all(len(found) == 1 for found in languages.values())


def test_a_name_is_in_the_language_that_it_is_labelled_with() -> None:
    known = {"Egyiptom": "Hungarian", "Hiszpania": "Polish", "Allemagne": "French", "Germany": "English", "Fransa": "Turkish"}
    found = {
        str(text): list(LANGUAGES)[int(language)]
        for split in load_languages().splits.values()
        for text, language in zip(split.inputs, split.targets["label"], strict=True)
    }
    assert {text: found[text] for text in known} == known


def test_the_splits_are_the_same_every_time() -> None:
    first, again = load_languages(), load_languages()
    assert {name: split.inputs for name, split in first.splits.items()} == {n: s.inputs for n, s in again.splits.items()}
