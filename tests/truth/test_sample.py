"""A pairwise sample of what ``make truth`` tries."""

from pathlib import Path

import pytest

from tests.truth.subject import Case, pairwise
from tests.truth.subjects import SUBJECTS
from tests.truth.table import DOCUMENT

CASES = [case for subject in SUBJECTS.values() for case in subject.sampled_cases()]


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # WavLM hands torch masks of two types
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_network_computes_what_its_library_computes_or_is_refused(case: Case, tmp_path: Path) -> None:
    if case.subject == "sentence-embedding":
        pytest.importorskip("sentence_transformers", reason="it is installed with the extra dev")
    outcome = SUBJECTS[case.subject].try_case(case, tmp_path)
    assert outcome.refusal is None or len(outcome.refusal) > 20, "a refusal says what to change"


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize("name", SUBJECTS)
def test_a_network_as_its_library_makes_it_is_not_refused(name: str, tmp_path: Path) -> None:
    assert SUBJECTS[name].try_case(SUBJECTS[name].all_cases()[0], tmp_path).refusal is None


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_page_has_a_line_for_each_switch_and_value(name: str) -> None:
    section = DOCUMENT.read_text(encoding="utf-8").split(f"## {name}\n")[1].split("\n## ")[0]
    lines = {tuple(cell.strip() for cell in line.split("|")[1:3]) for line in section.splitlines() if line.startswith("| ")}
    assert lines - {("switch", "value"), ("---", "---")} == {
        (switch, value) for switch, values in SUBJECTS[name].all_values.items() for value in values
    }


def test_pairwise_rows_hold_every_pair_of_values() -> None:
    factors = {"a": ["1", "2", "3"], "b": ["4", "5"], "c": ["6", "7"], "d": ["8", "9", "10"]}
    rows = pairwise(factors)
    for one in factors:
        for other in set(factors) - {one}:
            assert {(row[one], row[other]) for row in rows} == {(x, y) for x in factors[one] for y in factors[other]}
    assert len(rows) < 20  # of 36 combinations
