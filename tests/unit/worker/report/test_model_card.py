"""The student's model card: metadata as the Hub reads them, and text that a name cannot break."""

from typing import Any

import pytest
from huggingface_hub import ModelCard

from service.api.examples import REPORT, SPEC
from service.spec import parse_spec
from service.spec.report import Report
from worker.report.model_card import model_card


def metadata(text: str) -> dict[str, Any]:
    """The front matter, by the Hub's own reader."""
    read: dict[str, Any] = ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call]
    return read


def card(*, spec: dict[str, Any] | None = None, **changes: Any) -> str:
    return model_card(Report.model_validate(REPORT | changes), parse_spec(SPEC | (spec or {})))


def test_the_hub_reads_its_metadata() -> None:
    assert metadata(card()) == {
        "library_name": "stillhouse",
        "metrics": ["accuracy"],
        "pipeline_tag": "image-classification",
        "tags": ["distillation", "soft-targets"],
        "model-index": [
            {
                "name": REPORT["name"],
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": "builtin:digits", "type": "builtin:digits", "split": "test"},
                        "metrics": [{"type": "accuracy", "value": 0.955}],
                    }
                ],
            }
        ],
    }


def test_a_dataset_of_the_hub_is_named_at_its_commit() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    dataset = {"source": f"hub:anna/pets@{commit}:small", "transfer": "hub:anna/more"}
    found = metadata(card(spec={"dataset": SPEC["dataset"] | dataset}))
    assert found["datasets"] == ["anna/pets", "anna/more"]
    evaluated = {"name": "anna/pets", "type": "anna/pets", "config": "small", "split": "test", "revision": commit}
    assert found["model-index"][0]["results"][0]["dataset"] == evaluated


@pytest.mark.parametrize("name", ["a: b\n# Heading", "```", "- {x}", "Ω — 'quoted' \"twice\""])
def test_no_name_breaks_the_card(name: str) -> None:
    text = card(name=name)
    assert metadata(text)["model-index"][0]["name"] == name
    headings = [line for line in ModelCard(text).text.splitlines() if line.startswith("# ")]
    assert len(headings) == 1
    assert ModelCard(text).text.count("```") == 4  # the two blocks of code


def test_it_says_which_networks_it_comes_from_and_what_became_of_their_heads() -> None:
    assert "comes from" not in card()
    start = {"source": "hub:anna/a@0123", "revision": "0123", "head": "mapped", "made": [], "dropped": ["x"], "tuned": False}
    teachers = [
        REPORT["teacher"] | {"weight": 1.0, "targets": None, "start": start},
        REPORT["teacher"] | {"weight": 1.0, "targets": None},
    ]
    given = start | {"source": "file:/a\n# b", "head": "new", "tuned": True}
    text = card(teachers=teachers, student=REPORT["student"] | {"start": given}, control=REPORT["student"] | {"start": given})
    lines = [line for line in text.splitlines() if "comes from" in line]
    assert lines == [
        "The teacher 1 comes from hub:anna/a@0123, as it is, with its own head in the job's order.",
        "The student comes from file:/a # b, fine-tuned, with a new head.",
    ]


@pytest.mark.parametrize(
    ("student", "origin", "said"),
    [
        ({"source": "hub:anna/a"}, "student", {"license": "apache-2.0", "base_model": "anna/a"}),
        ({"source": "teacher-layers", "architecture": {"name": "transformers", "model_type": "vit"}}, "teacher",
         {"license": "apache-2.0", "base_model": "anna/a"}),
        ({"architecture": {"name": "small-cnn"}}, "teacher", {}),
    ],
    ids=["began with it", "with its layers", "learned from it"],
)  # fmt: skip
def test_a_student_has_the_licence_of_the_weights_that_it_began_with_alone(
    student: dict[str, Any], origin: str, said: dict[str, str]
) -> None:
    start = {"source": "hub:anna/a@0123", "revision": "0123", "head": "kept", "made": [], "dropped": [], "tuned": True}
    spec = {"student": student, "teacher": {"source": "hub:anna/a"}}
    found = metadata(card(spec=spec, **{origin: REPORT[origin] | {"start": start | {"licence": "apache-2.0"}}}))
    assert {name: found[name] for name in ("license", "base_model") if name in found} == said


def test_a_control_has_its_row_and_its_sentence() -> None:
    assert "The control is" not in card()
    text = card(control=REPORT["student"], gain=0.0111)
    assert "trained from the same initial weights for as many steps" in text
    assert "gain over it is +1.11 points." in text
    assert "| control | 95.50% | 3,682 | 16,256 | 0.11 | 0.51 |" in text


def test_warnings_and_the_rows_behind_the_figure_are_told() -> None:
    assert "## Warnings" not in card()
    assert "took no part in the choice: 359 samples, 95% interval 92.83% to 97.21%." in card()
    text = card(warnings=[{"code": "student_at_chance", "message": "no better\n# than `chance`"}])
    assert "## Warnings\n\n- no better # than 'chance'\n" in text


def test_a_language_model_is_quoted_by_its_perplexity() -> None:
    def network(role: str, perplexity: float) -> dict[str, Any]:
        figures = {"token_accuracy": 0.5, "loss": 1.0, "perplexity": perplexity}
        return {**REPORT[role], "test_accuracy": None, "metrics": {"next token": figures}}

    text = card(task="causal-lm", agreement=None, teacher=network("teacher", 8.25), student=network("student", 9.5))
    assert "| teacher | 8.25 | 0.0340 |" in text
    assert "| student | 9.50 | 0.0730 |" in text
    assert "do not compare token by token" in text
    assert metadata(text)["pipeline_tag"] == "text-generation"


def test_other_forms_and_seeds_are_told() -> None:
    onnx = {
        "name": "student.onnx",
        "bytes": 1200,
        "largest_difference": 0.0,
        "test_score": 0.95,
        "metrics": {},
        "agreement": 0.99,
    }
    interval = {"mean": 0.9, "half_width": None, "values": [0.9]}
    text = card(exports=[onnx], seeds={"seeds": [3], "student": interval, "control": interval, "gain": interval})
    assert "- `student.onnx`: 1,200 bytes, test score 0.9500, agrees with the student on 99.00%" in text
    assert "Over the seeds 3 the test score is 0.9000, the gain over the control is 0.9000 (mean" in text


def test_numbers_correlate_and_are_in_the_datas_units() -> None:
    data = REPORT["data"]
    alone = card(data=data | {"targets": {"year": None}}, agreement=0.98)
    assert "Its numbers correlate with its teacher's: 0.9800." in alone
    assert "Numbers are in the units of the data." in alone
    beside = card(data=data | {"targets": {"year": None, "label": ["a", "b"]}}, agreement=0.98)
    assert "agrees with its teacher to 0.9800: the mean share of equal classes, and correlation of numbers" in beside
    assert "It agrees with its teacher on 98.00% of the test split." in card(agreement=0.98)


@pytest.mark.parametrize(
    ("pixels", "read"), [([0, 16], "numpy.load"), ([0, 255], "Image.open"), ([0, 1], "/ 255"), (None, "numpy.load")]
)
def test_its_program_reads_a_picture_only_for_pixels_whose_white_a_picture_has(pixels: list[float] | None, read: str) -> None:
    (line,) = [line for line in card(data=REPORT["data"] | {"pixel_range": pixels}).splitlines() if line.startswith("pixels = ")]
    assert read in line
