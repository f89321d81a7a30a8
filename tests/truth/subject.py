"""Subjects and their cases: a model type, a value of each switch, and what came of it."""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_MODEL_TYPE = "model type"

Settings = Mapping[str, str]


class Outcome(NamedTuple):
    """Either the outputs were equal, or the service refused the network or its inputs in these words."""

    refusal: str | None = None

    def __str__(self) -> str:
        return "equal" if self.refusal is None else "refused"


@dataclass(frozen=True)
class Case:
    """One network with its own processor or tokenizer, and raw inputs of one kind."""

    subject: str
    settings: tuple[tuple[str, str], ...]
    """The model type first, then a value of each switch."""

    def __str__(self) -> str:
        return "-".join((self.subject, *(f"{name}={value}" for name, value in self.settings)))


@dataclass(frozen=True)
class Subject:
    """One task's networks."""

    name: str
    """As in ``task`` of a spec."""
    model_types: Sequence[str]
    switches: Mapping[str, Sequence[str]]
    """The values of each switch, the library's default first; one of them may be the kind of the raw inputs."""
    run: Callable[[str, Settings, Path], Outcome]
    """Saves a tiny network of that model type in an empty folder, computes its outputs by the library and by the service, and
    compares them. Raises AssertionError if they differ and nothing refused them."""
    alone: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Further values, tried with the others at their defaults: what is always refused would hide what stands beside it."""

    @property
    def all_values(self) -> Mapping[str, Sequence[str]]:
        """Every value of each switch."""
        return {name: [*self.switches.get(name, ()), *self.alone.get(name, ())] for name in {**self.switches, **self.alone}}

    def all_cases(self) -> list[Case]:
        """Every value of each switch alone for each model type, and every pair of a model type and a value, and of two values."""
        found: dict[Case, None] = {}
        for model_type in self.model_types:
            defaults = {name: values[0] for name, values in self.switches.items()}
            for name, values in self.all_values.items():
                found |= {self._case(model_type, defaults | {name: value}): None for value in values}
        for row in pairwise({_MODEL_TYPE: self.model_types, **self.switches}):
            found[self._case(row[_MODEL_TYPE], {name: row[name] for name in self.switches})] = None
        return list(found)

    def sampled_cases(self, *, seed: int = 0) -> list[Case]:
        """Every pair of values of two switches, every value tried alone, and every model type, each in at least one case."""
        rows = pairwise(self.switches, seed=seed)
        defaults = {name: values[0] for name, values in self.switches.items()}
        rows += [defaults | {name: value} for name, values in self.alone.items() for value in values]
        model_types = random.Random(seed).sample(list(self.model_types), len(self.model_types))
        count = max(len(rows), len(model_types))
        return [self._case(model_types[index % len(model_types)], rows[index % len(rows)]) for index in range(count)]

    def _case(self, model_type: str, settings: Settings) -> Case:
        return Case(self.name, ((_MODEL_TYPE, model_type), *settings.items()))

    def try_case(self, case: Case, folder: Path) -> Outcome:
        """Runs one case. Raises AssertionError with the case's name on the third outcome."""
        (_, model_type), *settings = case.settings
        try:
            return self.run(model_type, dict(settings), folder)
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from error


def pairwise(factors: Mapping[str, Sequence[str]], *, seed: int = 0) -> list[dict[str, str]]:
    """Rows with a value of each factor, such that every pair of values of two factors stands in at least one row.

    Greedy: each row takes, factor by factor in a random order, the value that covers the most pairs that are still open.
    """
    draws = random.Random(seed)
    names = list(factors)
    open_pairs = {
        frozenset({(one, value), (other, with_value)})
        for one, other in itertools.combinations(names, 2)
        for value in factors[one]
        for with_value in factors[other]
    }
    rows = []
    while open_pairs:
        first = sorted(draws.choice(sorted(map(sorted, open_pairs))))
        row = dict(first)
        for name in draws.sample(names, len(names)):
            if name not in row:
                values = draws.sample(list(factors[name]), len(factors[name]))
                row[name] = max(
                    values, key=lambda value: sum(frozenset({(name, value), pair}) in open_pairs for pair in row.items())
                )
        open_pairs -= {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}
        rows.append({name: row[name] for name in names})
    return rows
