"""What lies under the prefixes of buckets that an operator allows, and what is no name in a bucket."""

import pytest
from pydantic import ValidationError

from service.data_urls import require_allowed
from service.errors import InvalidFile
from service.settings import Settings
from service.spec import parse_spec
from tests.unit.worker.preflight.jobs import digits


@pytest.mark.parametrize("source", ["s3://lab/data", "s3://lab/data/", "s3://lab/data/a.parquet", "s3://open/any/thing"])
def test_what_is_under_a_prefix_is_allowed(source: str) -> None:
    require_allowed(source, ["s3://lab/data", "s3://open"])


@pytest.mark.parametrize(
    "source", ["s3://lab-private/data/a", "s3://lab/database/a", "s3://lab/dat", "s3://lab2/data", "s3://lab/Data/a"]
)
def test_what_only_looks_so_is_not(source: str) -> None:
    with pytest.raises(InvalidFile, match="STILLHOUSE_DATA_URLS"):
        require_allowed(source, ["s3://lab/data/"])
    with pytest.raises(InvalidFile, match="none"):
        require_allowed(source, [])


@pytest.mark.parametrize(
    "source",
    [
        *("s3://lab", "s3://lab/", "s3:/lab/a", "s3:lab/a", "s3://Lab/a", "s3://a/b", "s3://user:word@lab/a", "s3://lab:80/a"),
        *("s3://lab/../x", "s3://lab/a/./b", "s3://lab/a//b", "s3://lab//a", "s3://lab/a?versionId=1", "s3://lab/*.parquet"),
        *(
            "s3://lab/a[0-9]",
            "s3://lab/{a,b}",
            "s3://lab/a::http://b",
            "s3://lab/a\\b",
            "s3://lab/a\nb",
            "s3://lab/" + "a" * 1025,
        ),
    ],
)
def test_what_a_file_system_may_read_as_another_place_is_no_source(source: str) -> None:
    with pytest.raises(Exception, match="name"):
        parse_spec(digits(dataset={"source": source}))


@pytest.mark.parametrize(
    "url", ["/srv/data", "s3://", "s3://Lab", "s3://lab/../x", "s3://lab/a*", "s3://lab//a", "s3://lab/a::b"]
)
def test_a_setting_that_is_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        Settings(data_urls=[url])


def test_a_bucket_and_a_folder_of_one_are_settings() -> None:
    urls = ["s3://lab", "s3://open/public/", "s3://a.b-c/data 2026/ü"]
    assert Settings(data_urls=urls).data_urls == urls
    for url in urls:
        require_allowed(f"{url.rstrip('/')}/a.parquet", urls)
