"""Tries every case and writes docs/truth.md: ``python -m tests.truth.table``. Exits with 1 if any case differs.

``python -m tests.truth.table NAME…`` tries those subjects alone, and leaves the sections of the others as they are.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers.utils import logging

from tests.truth.subject import Case, Outcome, Subject
from tests.truth.subjects import SUBJECTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "truth.md"
_NUM_PROCESSES = 2
_INTRODUCTION = """\
# What a given network computes here

A teacher that somebody saved has a processor, a feature extractor or a tokenizer of its own, with switches. For every model type
that a spec may name, and every value of every switch, the outputs that the service computes from the same raw inputs **equal**
those of the library's own classes, or the service **refuses** the network with words. There is no third outcome: `make truth`
tries each switch alone with every model type, and every pair of values of two switches with some of them, and writes this page;
`make test` tries a sample.
"""


def main(names: Sequence[str] = ()) -> int:
    """Tries all cases, or those of the subjects of these names, in several processes and writes the document. Returns the exit
    status.
    """
    cases = [case for name in names or SUBJECTS for case in SUBJECTS[name].all_cases()]
    outcomes: dict[Case, Outcome] = {}
    failures = []
    with ProcessPoolExecutor(_NUM_PROCESSES, mp_context=get_context("spawn"), initializer=_begin) as pool:
        for case, (outcome, failure) in zip(cases, pool.map(_try, cases, chunksize=4), strict=True):
            if outcome is None:
                failures.append(failure)
                print(failure, file=sys.stderr)
            else:
                outcomes[case] = outcome
    if not failures:
        DOCUMENT.write_text(document(outcomes, earlier=DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{len(cases):,} cases tried: {_counted(outcomes.values())}, {len(failures)} different")
    return 1 if failures else 0


def _begin() -> None:
    """A thread for each process, and no progress bars of networks that have a few weights."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _try(case: Case) -> tuple[Outcome | None, str]:
    with TemporaryDirectory() as folder:
        try:
            return SUBJECTS[case.subject].try_case(case, Path(folder)), ""
        except Exception as error:  # noqa: BLE001 - whatever it is, the case counts as different
            return None, f"{case}: {type(error).__name__}: {error}"


def document(outcomes: Mapping[Case, Outcome], *, earlier: str) -> str:
    """Writes the page from the outcomes of all cases; a subject without any has the section of the ``earlier`` page."""
    sections = dict(section.split("\n", maxsplit=1) for section in f"\n{earlier}".split("\n## ")[1:])
    lines = [_INTRODUCTION]
    for subject in SUBJECTS.values():
        of_subject = {case: outcome for case, outcome in outcomes.items() if case.subject == subject.name}
        lines.append(f"## {subject.name}")
        if not of_subject:
            lines += [sections[subject.name].rstrip("\n"), ""]
            continue
        lines += ["", f"{len(of_subject):,} cases: {_counted(of_subject.values())}.", ""]
        lines += _rows(subject, of_subject)
    return "\n".join(lines)


def _rows(subject: Subject, outcomes: Mapping[Case, Outcome]) -> Iterator[str]:
    """A line for each value of a switch, the others at their defaults, with the model types that are equal and refused."""
    defaults = {name: values[0] for name, values in subject.switches.items()}
    yield "| switch | value | equal | refused |"
    yield "| --- | --- | --- | --- |"
    for name, values in subject.all_values.items():
        for value in values:
            by_outcome: dict[str, list[str]] = defaultdict(list)
            for case, outcome in outcomes.items():
                (_, model_type), *settings = case.settings
                if dict(settings) == defaults | {name: value}:
                    by_outcome[str(outcome)].append(model_type)
            yield f"| {name} | {value} | {_listed(by_outcome['equal'], subject)} | {_listed(by_outcome['refused'], subject)} |"
    yield ""


def _listed(model_types: Sequence[str], subject: Subject) -> str:
    others = [model_type for model_type in subject.model_types if model_type not in model_types]
    if not others and len(model_types) > 1:
        return f"all {len(model_types)}"
    if 0 < len(others) < len(model_types):
        return f"all but {', '.join(others)}"
    return ", ".join(model_types) or "–"


def _counted(outcomes: Iterable[Outcome]) -> str:
    counts = Counter(map(str, outcomes))
    return f"{counts['equal']:,} equal, {counts['refused']:,} refused"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
