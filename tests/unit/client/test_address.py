"""Ids in addresses."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import service.client
from service.client import ClientError, InvalidId
from service.client.address import address


def test_an_id_and_what_belongs_to_it_are_parts_of_the_path() -> None:
    assert address("jobs", "job_1") == "/v1/jobs/job_1"
    assert address("jobs", "job_1", "artifacts", "student/config.json") == "/v1/jobs/job_1/artifacts/student/config.json"


@pytest.mark.parametrize("id_", ["job_1?x=y", "job_1#x", "a b", "%2e%2e", "é", "\udcff", "..."])
def test_an_odd_id_stays_one_part_of_the_path(id_: str) -> None:
    parts = urlsplit(f"http://host{address('jobs', id_, 'logs')}")
    assert (parts.query, parts.fragment) == ("", "")
    assert [unquote(part, errors="surrogateescape") for part in parts.path.split("/")] == ["", "v1", "jobs", id_, "logs"]


@pytest.mark.parametrize("id_", ["", ".", "..", "../../etc", "job_1/cancel"])
def test_an_id_that_would_mean_another_address_is_refused(id_: str) -> None:
    with pytest.raises(InvalidId, match="is no id; GET /v1/jobs lists those that exist") as caught:
        address("jobs", id_)
    assert isinstance(caught.value, ClientError)


def test_no_other_module_puts_an_id_into_an_address() -> None:
    modules = Path(service.client.__file__).parent.glob("*.py")
    assert [module.name for module in modules if 'f"/v1/' in module.read_text()] == []
