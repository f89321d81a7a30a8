"""Bodies that are more than a spec may be, of the largest size that the service takes."""

import json

import httpx
import pytest

from tests.integration.api.conftest import spec


def test_yaml_is_refused_with_line_and_column(member: httpx.Client) -> None:
    for text in ("name: x\nevaluation: {control: !!bool maybe}", "name: x\nlabels: {a: !!int ''}", "name: x\n  y: [z"):
        answer = member.post("/v1/jobs", content=text, headers={"content-type": "application/yaml"})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
        assert answer.json()["detail"].startswith("the body is not YAML: line 2, column ")


def test_a_date_is_text(member: httpx.Client) -> None:
    text = json.dumps(spec(labels={"none": "D", "some": "E"})).replace('"D"', "2026-02-30").replace('"E"', "2026-11-30")
    answer = member.post("/v1/jobs", content=text, headers={"content-type": "application/yaml"})
    assert (answer.status_code, answer.json().get("labels")) == (201, {"none": "2026-02-30", "some": "2026-11-30"})


LARGE = 900_000
EXHAUSTING = {
    "a long list": ("yaml", "- a\n" * (LARGE // 4)),
    "empty objects": ("yaml", "[" + "{}," * (LARGE // 3) + "]"),
    "many keys": ("yaml", "".join(f"k{number}: 1\n" for number in range(70_000))),
    "one key": ("yaml", "k: 1\n" * (LARGE // 5)),
    "directives": ("yaml", "".join(f"%TAG !a{number}! x\n" for number in range(50_000)) + "--- a"),
    "deep": ("yaml", "{a: " * (LARGE // 4)),
    "anchors": ("yaml", "".join(f"- &a{number} x\n" for number in range(60_000))),
    "a list of JSON": ("json", "[" + "{}," * (LARGE // 3) + "0]"),
    "keys of JSON": ("json", "{" + ",".join(f'"{number}":0' for number in range(24_000)) + "}"),
    "one key of JSON": ("json", '{"a":[' + '{"a":0,"a":0},' * 3000 + "0]}"),
}


@pytest.mark.parametrize(("kind", "text"), EXHAUSTING.values(), ids=EXHAUSTING.keys())
def test_a_body_that_would_exhaust_the_service_is_refused_in_few_words(admin: httpx.Client, kind: str, text: str) -> None:
    for path in ("/v1/jobs", "/v1/jobs?dry_run=true", *(["/v1/users"] if kind == "json" else [])):
        answer = admin.post(path, content=text, headers={"content-type": f"application/{kind}"})
        assert answer.status_code in {400, 422}
        assert len(answer.content) < 100_000
