"""The report's schema: no figure that is not a number, no field that nobody knows, and room for those of a later service."""

import math

import pytest
from pydantic import ValidationError

from service.api.examples import REPORT
from service.spec.cards.network import Latency
from service.spec.report import Report


def test_a_figure_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Latency(batch_1=math.nan, batch_64=1.0)
    with pytest.raises(ValidationError, match="finite"):
        Report.model_validate(REPORT | {"gain": math.inf})


def test_an_unknown_field_is_refused_where_a_report_is_made_and_left_out_where_it_is_read() -> None:
    later = REPORT | {"energy": 3.5, "student": REPORT["student"] | {"watts": 1.0}}
    with pytest.raises(ValidationError, match="energy"):
        Report.model_validate(later)
    assert Report.model_validate(later, extra="ignore") == Report.model_validate(REPORT)
    assert "additionalProperties" not in Report.model_json_schema()


def test_it_is_written_as_it_was_read() -> None:
    assert Report.model_validate(REPORT).model_dump(mode="json") == REPORT


def test_the_headline_is_what_a_job_carries() -> None:
    headline = Report.model_validate(REPORT).headline()
    assert headline["student"] == {"test_score": 0.955, "test_accuracy": 0.955, "parameters": 3682, "bytes": 16256}
    assert headline["control"] is None
    assert headline["compression"] == 56.65
