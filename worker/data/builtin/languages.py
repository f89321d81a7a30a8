"""``builtin:languages``: 4,800 names of territories, languages and currencies in eight languages (Unicode CLDR), from Babel.

Its targets are the language of a name and the kind of thing that it names. Names that two of the languages share, or that equal
their own codes, are left out. Names are chosen by their SHA-256 alone, in fixed numbers for each language and kind, so that
another release of Babel changes few names and no counts. Its splits are fixed.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from service.formats import DataArrays, SplitArrays
from worker.data.errors import UnusableData
from worker.data.held_out import hold_out

LANGUAGES = {
    "English": "en",
    "Finnish": "fi",
    "French": "fr",
    "German": "de",
    "Hungarian": "hu",
    "Polish": "pl",
    "Spanish": "es",
    "Turkish": "tr",
}
NAMES_BY_KIND = {"currency": 240, "language": 250, "territory": 110}
"""Names for each language. The scarcest are territories whose names only English has: 125."""
_SPLIT_SEED = 0


class _Name(NamedTuple):
    text: str
    language: int
    kind: int


def load_languages() -> DataArrays:
    """Loads the names in splits of 70, 10 and 20 percent, stratified by language and kind."""
    names = _chosen(list(_names()))
    texts = [name.text for name in names]
    targets = {
        "label": np.array([name.language for name in names], dtype=np.int64),
        "kind": np.array([name.kind for name in names], dtype=np.int64),
    }
    strata = targets["label"] * len(NAMES_BY_KIND) + targets["kind"]
    parts = hold_out(strata, validation_fraction=0.1, test_fraction=0.2, seed=_SPLIT_SEED)
    splits = {
        name: SplitArrays(
            inputs=[texts[row] for row in rows], targets={column: values[rows] for column, values in targets.items()}
        )
        for name, rows in parts.items()
    }
    return DataArrays(splits=splits, classes={"label": list(LANGUAGES), "kind": list(NAMES_BY_KIND)})


def _names() -> Iterator[_Name]:
    # Babel reads its tables from files, which jobs on other data need not wait for.
    from babel import Locale

    locales = [Locale.parse(code) for code in LANGUAGES.values()]
    for language, locale in enumerate(locales):
        by_kind: dict[str, Mapping[str, str]] = {
            "currency": locale.currencies,
            "language": locale.languages,
            "territory": locale.territories,
        }
        for kind, name in enumerate(NAMES_BY_KIND):
            for code, text in by_kind[name].items():
                if text.casefold() != code.casefold():
                    yield _Name(text, language, kind)


def _chosen(names: list[_Name]) -> list[_Name]:
    """Chooses the first names of each language and kind in the order of their digests."""
    meanings: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for name in names:
        meanings[name.text.casefold()].add((name.language, name.kind))
    by_digest: dict[bytes, _Name] = {}
    for name in names:
        folded = name.text.casefold()
        if len(meanings[folded]) == 1:
            by_digest.setdefault(hashlib.sha256(folded.encode()).digest(), name)
    groups = [(language, kind) for language in range(len(LANGUAGES)) for kind in range(len(NAMES_BY_KIND))]
    remaining = {(language, kind): list(NAMES_BY_KIND.values())[kind] for language, kind in groups}
    chosen = []
    for _, name in sorted(by_digest.items()):
        if remaining[name.language, name.kind]:
            remaining[name.language, name.kind] -= 1
            chosen.append(name)
    if any(remaining.values()):
        raise UnusableData(f"this release of Babel has {sum(remaining.values())} names too few; install babel 2.18")
    return chosen
