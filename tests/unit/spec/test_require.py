"""Gates on the report: read from numbers and comparisons, and refused where the report will not have their figure."""

from typing import Any

import pytest

from service.errors import InvalidSpec
from service.spec import parse_spec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.fit import check_fit
from service.spec.job import JobSpec
from service.spec.require import holds

CNN = {"architecture": {"name": "small-cnn"}}


def spec(require: Any, **parts: Any) -> JobSpec:
    document = {"task": "image-classification", "dataset": {"source": "builtin:digits"}, "teacher": CNN, "student": CNN}
    return parse_spec(document | parts | {"require": require})


@pytest.mark.parametrize(
    ("figure", "written", "stored"),
    [
        ("relative_to_teacher", 0.97, ">=0.97"),
        ("gain", ">0", ">0"),
        ("gain", " >= -0.01", ">=-0.01"),
        ("bytes", "1e6", "<=1000000"),
        ("bytes", "1_000_000", "<=1000000"),
        ("latency_ms", "< 5", "<5"),
        ("parameters", 3682, "<=3682"),
    ],
)
def test_a_gate_is_stored_in_one_form_which_reads_as_itself(figure: str, written: float | str, stored: str) -> None:
    job = spec({figure: written})
    assert job.require.gates == {figure: stored}
    assert parse_spec(job.model_dump(mode="json")) == job


@pytest.mark.parametrize(
    ("require", "words"),
    [
        ({"gain": "<0"}, "better the larger"),
        ({"bytes": ">=5"}, "better the smaller"),
        ({"gain": "much"}, "write a number"),
        ({"gain": True}, "write a number"),
        ({"score": "nan"}, "write a number"),
        ({"score": [0.5]}, "write a number"),
        ({"gian": ">0"}, "gain"),
    ],
)
def test_what_is_no_gate_is_refused_at_its_place(require: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        spec(require)
    (fault,) = caught.value.faults
    assert fault.pointer == f"/require/{next(iter(require))}"
    assert words in fault.message


def test_values_at_the_bound_are_told_apart() -> None:
    assert [holds(gate, 1.0) for gate in (">1", ">=1", "<1", "<=1")] == [False, True, False, True]


def test_a_gate_on_what_the_report_will_not_have_is_refused() -> None:
    def places(job: JobSpec) -> set[str]:
        found = check_fit(job, BUILTIN_DATASETS["digits"].info, teachers={})
        return {fault.pointer for fault in found if fault.pointer.startswith("/require")}

    every = {"gain": ">0", "relative_to_teacher": 0.9, "score": 0.5, "agreement": 0.5, "latency_ms": 5, "bytes": 5}
    assert places(spec(every)) == {"/require/gain"}
    assert places(spec(every, evaluation={"control": True})) == set()
    embedding = {"task": "sentence-embedding", "dataset": {"source": "builtin:languages"}, "teacher": {"source": "hub:a/b"}}
    assert places(spec({"relative_to_teacher": 0.9, "agreement": 0.9}, **embedding)) == {"/require/relative_to_teacher"}
    targets = {"source": "builtin:digits", "targets": ["label", "other"]}
    some = [CNN | {"targets": ["label"]}]
    assert places(spec({"relative_to_teacher": 0.9}, dataset=targets, teacher=some)) == {"/require/relative_to_teacher"}
