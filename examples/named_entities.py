"""A dataset of named entities: sentences about people, organisations and places, with IOB2 tags for each word.

    python examples/named_entities.py entities.jsonl
    python examples/named_entities.py entities.parquet --sentences 10000
    python examples/named_entities.py spans.jsonl --spans
    python examples/named_entities.py untagged.jsonl --untagged --seed 7

Each row has the columns ``tokens`` and ``tags``, with ``--spans`` ``text`` and ``spans``, and its ``split``; with ``--untagged``
it has its ``tokens`` alone. A third of the names in the test split stand in no other: what they are only the rest of the sentence
says. Some names are of two kinds, as Paris may be a city and a person. The same arguments give the same file.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

GIVEN = """
Ada Anton Berta Boris Carla Chloe Clara Daniel Dora Edgar Elena Emil Erik Farah Felix Flora Georgia Greta Hana Hugo Ida Ines
Ivan Jonas Julia Karim Kira Lars Leila Lena Luca Magnus Maria Marta Milan Nadia Nils Olga Omar Oscar Paris Paula Petra Rana
Rosa Samir Sofia Sven Tara Theo Uma Vera Victor Wanda Yara Yusuf Zoe Florence Sydney Austin
"""
FAMILY = """
Adler Ahmed Bauer Berg Brandt Castro Chen Costa Dahl Demir Dubois Ekman Falk Fischer Garcia Haas Haddad Hansen Huber Ibrahim
Jansen Jensen Kaya Keller Khan Klein Kovacs Kumar Lang Lindqvist Lopez Marino Meyer Moreau Nakamura Novak Okafor Olsen
Petrov Popescu Rahman Ricci Rossi Sato Schmid Silva Singh Sousa Tanaka Toth Vargas Wagner Weber Winter Yilmaz Young Zhang
Lincoln Houston Dallas
"""
PLACES = """
Aarhus, Accra, Amsterdam, Ankara, Antwerp, Athens, Austin, Baku, Bergen, Berlin, Bilbao, Bogota, Bologna, Brno, Cairo, Cape
Town, Casablanca, Cork, Dakar, Dallas, Delhi, Dublin, Florence, Geneva, Genoa, Georgia, Ghent, Hanoi, Helsinki, Houston,
Izmir, Jakarta, Kyiv, Kyoto, Lagos, La Paz, Lima, Lincoln, Lisbon, Ljubljana, Lyon, Madrid, Malmo, Manila, Mexico City,
Milan, Montreal, Nairobi, Naples, New Delhi, Oslo, Paris, Porto, Prague, Quito, Riga, Rio de Janeiro, Salzburg, San Jose,
Santiago, Sao Paulo, Seoul, Seville, Sofia, Split, Sydney, Tallinn, Tampere, Toronto, Trieste, Tunis, Turin, Utrecht,
Valencia, Vienna, Vilnius, Warsaw, Zagreb, Zurich
"""
TRADES = """
Bank, Motors, Press, Foods, Airlines, Energy, Pharma, Rail, Steel, Textiles, University, Museum, Football Club, Institute
"""
PATTERNS = [
    "{PER} works for {ORG} in {LOC} .",
    "{PER} moved from {LOC} to {LOC} last year .",
    "The mayor of {LOC} , {PER} , opened a new bridge on Monday .",
    "{ORG} opened an office in {LOC} .",
    "Shares of {ORG} fell after {PER} left the board .",
    '" We shall stay in {LOC} , " said {PER} of {ORG} .',
    "{ORG} and {ORG} signed a contract in {LOC} .",
    "It rained in {LOC} while {PER} waited for the train .",
    "A spokeswoman of {ORG} did not answer .",
    "{PER} met {PER} at the station of {LOC} .",
    "Flights to {LOC} were late , {ORG} said .",
    "{PER} wrote a book about {PER} .",
    "Nobody at {ORG} had heard of {PER} .",
    "The road from {LOC} to {LOC} is closed .",
    "The weather stayed cold , and the markets were quiet .",
    "{PER} studied at {ORG} before the war .",
    "After a night in {LOC} the team of {ORG} won .",
    "Prices rose by three per cent in May .",
]
_SHARES = {"train": 0.75, "validation": 0.1, "test": 0.15}


@dataclass(frozen=True)
class Sentence:
    """Words and their tags."""

    split: str
    tokens: list[str]
    tags: list[str]

    def as_tags(self) -> dict[str, object]:
        """A row of words and tags."""
        return {"tokens": self.tokens, "tags": self.tags, "split": self.split}

    def as_tokens(self) -> dict[str, object]:
        """A row of words alone."""
        return {"tokens": self.tokens}

    def as_spans(self) -> dict[str, object]:
        """A row of a text, and of the places of its entities in characters."""
        spans: list[dict[str, object]] = []
        place = 0
        for token, tag in zip(self.tokens, self.tags, strict=True):
            if tag.startswith("B-"):
                spans.append({"start": place, "end": place + len(token), "label": tag[2:]})
            elif tag.startswith("I-"):
                spans[-1]["end"] = place + len(token)
            place += len(token) + 1
        return {"text": " ".join(self.tokens), "spans": spans, "split": self.split}


def sentences(count: int, *, seed: int = 0) -> Iterator[Sentence]:
    """Makes about ``count`` sentences, no two of which are equal."""
    draws = random.Random(seed)  # noqa: S311 - nothing here is a secret
    known: dict[str, list[list[str]]] = {}
    every: dict[str, list[list[str]]] = {}
    for kind, names in _names(draws).items():
        draws.shuffle(names)
        known[kind], every[kind] = names[: len(names) * 2 // 3], names
    seen: set[str] = set()
    for split, share in _SHARES.items():
        for _ in range(round(count * share)):
            sentence = _fill(draws.choice(PATTERNS), every if split == "test" else known, split, draws)
            if (text := " ".join(sentence.tokens)) not in seen:
                seen.add(text)
                yield sentence


def _names(draws: random.Random) -> dict[str, list[list[str]]]:
    """The names of each kind, in words."""
    given, family = GIVEN.split(), FAMILY.split()
    places, trades = ([name.split() for name in " ".join(names.split()).split(", ")] for names in (PLACES, TRADES))
    people = [[one, other] for one in given for other in draws.sample(family, 6)] + [[one] for one in given]
    founders = [*([name] for name in draws.sample(family, 40)), *draws.sample(places, 40)]
    organisations = [[*founder, *trade] for founder in founders for trade in draws.sample(trades, 3)]
    return {"PER": people, "LOC": places, "ORG": organisations}


def _fill(pattern: str, names: dict[str, list[list[str]]], split: str, draws: random.Random) -> Sentence:
    tokens: list[str] = []
    tags: list[str] = []
    for word in pattern.split():
        kind = word.strip("{}")
        if kind not in names:
            tokens.append(word)
            tags.append("O")
            continue
        name = draws.choice(names[kind])
        tokens += name
        tags += [f"B-{kind}", *[f"I-{kind}"] * (len(name) - 1)]
    return Sentence(split, tokens, tags)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="to write: .jsonl or .parquet")
    parser.add_argument("--sentences", type=int, default=4_000, help="about how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the names and sentences (default: %(default)s)")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--spans", action="store_true", help="write texts and spans rather than tokens and tags")
    forms.add_argument("--untagged", action="store_true", help="write tokens alone")
    parsed = parser.parse_args(arguments)
    as_row = Sentence.as_spans if parsed.spans else Sentence.as_tokens if parsed.untagged else Sentence.as_tags
    rows = [as_row(sentence) for sentence in sentences(parsed.sentences, seed=parsed.seed)]
    match parsed.file.suffix:
        case ".jsonl":
            parsed.file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), parsed.file)
        case suffix:
            parser.error(f"a file ends in .jsonl or .parquet, not in {suffix!r}")
    sys.stdout.write(f"{parsed.file}: {len(rows):,} sentences\n")


if __name__ == "__main__":
    main()
