"""The tags of words, one a word: classes by name over all splits, and whether those of entities are written in IOB2.

In IOB2 the first word of an entity has the tag ``B-TYPE``, its other words ``I-TYPE``, and all other words ``O``. Other schemes
are told by their tags and refused with a line that converts them, as entities would be read wrongly. Tags without any ``B-`` or
``I-`` are classes of the words, such as parts of speech. The classes are the tags that occur in any split, sorted by name as
elsewhere, or those that the file names, in its own order.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidFile
from service.formats.chunk import Chunk
from service.formats.targets.label import MAX_CLASSES, check_class_name
from service.formats.targets.target import Settled, TargetTally
from service.formats.words import HOW_TO_MARK_SPANS

_IOB2_TAG = re.compile("[BI]-.", re.DOTALL)
_OTHER_SCHEME_TAG = re.compile("[ESLU]-.", re.DOTALL)
_HOW_TO_NAME = "write the names of the tags, for instance [names[tag] for tag in tags]"
HOW_TO_CONVERT_IOB1 = "['B' + t[1:] if t[0] == 'I' and (not i or tags[i - 1][1:] != t[1:]) else t for i, t in enumerate(tags)]"
HOW_TO_CONVERT_BIOES = "[{'E': 'I', 'L': 'I', 'S': 'B', 'U': 'B'}.get(t[0], t[0]) + t[1:] if t[1:2] == '-' else t for t in tags]"
HOW_TO_CONVERT_BARE = "[t if t == 'O' else ('I-' if i and tags[i - 1] == t else 'B-') + t for i, t in enumerate(tags)]"


@dataclass
class TagTally(TargetTally):
    """Counts the words of each tag and split, and determines the classes at the end."""

    names: list[str] | None = None
    """The tags, if the file names them in an order."""
    _codes: dict[str, int] = field(default_factory=dict)
    _counts: dict[str, Counter[int]] = field(default_factory=dict)
    _first_inside: str = ""
    """The place of the first ``I-`` that continues nothing."""
    _begins_apart: bool = False
    """Whether a ``B-`` stands where no entity of its type ended: in IOB1 it never does."""

    def __post_init__(self) -> None:
        for name in self.names or ():
            check_class_name(name, place=f"column {self.column!r}")
            self._codes[name] = len(self._codes)

    def empty(self, num_rows: int) -> list[NDArray[np.int64]]:
        return [np.empty(0, dtype=np.int64)] * num_rows

    def add(self, chunk: Chunk) -> list[NDArray[np.int64]]:
        found = []
        for index, (words, tags) in enumerate(zip(chunk.inputs, chunk.targets[self.column], strict=True)):
            row = self._checked(tags, cast(Sequence[str], words), chunk, index)
            found.append(np.fromiter(self._codes_of(row, chunk, index), dtype=np.int64, count=len(row)))
            self._watch(row, cast(Sequence[str], words), chunk, index)
        self._count(chunk, np.array([bool((codes < 0).all()) for codes in found], dtype=np.bool_))
        counts = self._counts.setdefault(chunk.split, Counter())
        codes, repeats = np.unique(np.concatenate(found), return_counts=True)
        counts.update({code: count for code, count in zip(codes.tolist(), repeats.tolist(), strict=True) if code >= 0})
        if len(self._codes) > MAX_CLASSES:
            raise InvalidFile(
                f"column {self.column!r} has more than {MAX_CLASSES:,} different tags: that is no column of classes"
            )
        return found

    def settle(self) -> Settled:
        if not self.num_present.total() and self.names is None:
            return self._settle_without_values()
        self._check_scheme()
        names = sorted(self._codes) if self.names is None else self.names
        order = {self._codes[name]: index for index, name in enumerate(names)}
        counts = {split: [0] * len(names) for split in self._counts}
        for split, by_code in self._counts.items():
            for code, count in by_code.items():
                counts[split][order[code]] = count
        codes = np.fromiter((*(order[code] for code in range(len(order))), -1), dtype=np.int64, count=len(order) + 1)
        return Settled(missing_counts=dict(self.missing_counts), classes=names, counts=counts, index_of_code=codes)

    @property
    def are_bare(self) -> bool:
        """Whether the tags look like types of entities, without a word for where one begins."""
        tags = self._occurring()
        return "O" in tags and len(tags) > 1 and not any(_IOB2_TAG.match(tag) for tag in tags)

    def _checked(self, tags: Any, words: Sequence[str], chunk: Chunk, index: int) -> list[str | None]:
        """The tags of a row, None for a word without one."""
        if tags is None:
            return [None] * len(words)
        place = chunk.place(self.column, index)
        if not isinstance(tags, list):
            raise InvalidFile(f"{place}: the tags are a list, one for each word, not {tags!r:.80}")
        if len(tags) != len(words):
            raise InvalidFile(
                f"{place}: {len(tags)} tags for {len(words)} tokens; write one for each, null for a word without a tag, or null "
                "for the whole row"
            )
        for number, tag in enumerate(tags):
            if isinstance(tag, str | None):
                continue
            what = f"{place}, word {number} ({words[number]!r:.80}): {tag!r:.80}"
            if isinstance(tag, int) and not isinstance(tag, bool):
                raise InvalidFile(f"{what} is a number and no tag; {_HOW_TO_NAME}")
            if isinstance(tag, dict):
                raise InvalidFile(f"{what} is no tag; {HOW_TO_MARK_SPANS}")
            raise InvalidFile(f"{what} is no tag; tags are strings")
        return [self._name(tag) if tag and not tag.isspace() else None for tag in tags]

    def _name(self, tag: str) -> str:
        """The name in NFC, unless the file itself names the tags: one name may be spelled in several forms of Unicode."""
        return tag if self.names is not None else unicodedata.normalize("NFC", tag)

    def _codes_of(self, tags: Sequence[str | None], chunk: Chunk, index: int) -> Iterator[int]:
        for tag in tags:
            if tag is None:
                yield -1
                continue
            if (code := self._codes.get(tag)) is None:
                check_class_name(tag, place=chunk.place(self.column, index))
                code = self._codes[tag] = len(self._codes)
            yield code

    def _watch(self, tags: Sequence[str | None], words: Sequence[str], chunk: Chunk, index: int) -> None:
        """Notes where tags are not as IOB2 would have them; which scheme they are of is known at the end."""
        before: str | None = "O"
        for number, tag in enumerate(tags):
            # Behind a word without a tag anything may stand.
            if tag is not None and before is not None and _IOB2_TAG.match(tag) and tag[2:] != before[2:]:
                if tag[0] == "B":
                    self._begins_apart = True
                elif not self._first_inside:
                    place = f"{chunk.place(self.column, index)}, word {number} ({words[number]!r:.80})"
                    behind = f"behind {before!r:.80}" if number else "at the beginning"
                    self._first_inside = f"{place}: the tag {tag!r:.80} stands {behind}"
            before = tag

    def _occurring(self) -> set[str]:
        names = list(self._codes)
        return {names[code] for counts in self._counts.values() for code in counts}

    def _check_scheme(self) -> None:
        """Raises InvalidFile if the tags are those of entities in another scheme than IOB2."""
        tags = self._occurring()
        of_iob2 = {tag for tag in tags if _IOB2_TAG.match(tag)}
        others = tags - of_iob2 - {"O"}
        column = f"column {self.column!r}"
        if others and all(_OTHER_SCHEME_TAG.match(tag) for tag in others) and (of_iob2 or "O" in tags):
            raise InvalidFile(
                f"{column} holds tags such as {min(others)!r:.80}, as BIOES and BILOU have them; entities are read in IOB2: "
                f"convert each row with {HOW_TO_CONVERT_BIOES}"
            )
        if not of_iob2:
            if others and others <= {"B", "I"}:
                raise InvalidFile(
                    f"{column} holds {' and '.join(map(repr, sorted(others)))} without a type; write one, for instance "
                    "[t if t == 'O' else t + '-NAME' for t in tags]"
                )
            return
        if others:
            raise InvalidFile(
                f"{column} holds {min(others)!r:.80} beside {min(of_iob2)!r:.80}; in IOB2 an entity's first word has 'B-TYPE', "
                "its other words 'I-TYPE', and all other words 'O': write all tags so, or none"
            )
        if self._first_inside and not self._begins_apart:
            raise InvalidFile(
                f"{self._first_inside}, and no entity begins with 'B-' but behind another of its type, as in IOB1; entities are "
                f"read in IOB2: convert each row with {HOW_TO_CONVERT_IOB1}"
            )
        if self._first_inside:
            raise InvalidFile(
                f"{self._first_inside}; in IOB2 an entity begins with 'B-': write it so, or convert each row with "
                f"{HOW_TO_CONVERT_IOB1}"
            )
