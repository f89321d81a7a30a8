"""The page of the API: whole on a network that reaches no other host."""

import re
from html.parser import HTMLParser

import httpx


class _Loaded(HTMLParser):
    """The addresses that a page loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attributes if name in {"src", "href"}]


def test_the_page_loads_what_this_service_has_and_forbids_the_rest(member: httpx.Client) -> None:
    page = member.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "//" not in re.sub(r"// .*|<!--.*?-->", "", page.text), "an address of another host"
    addresses = [*_Loaded(page.text).addresses, *re.findall(r"url: '([^']+)'", page.text)]
    assert {address.rpartition(".")[2] for address in addresses} == {"css", "js", "png", "json"}
    for address in addresses:
        loaded = member.get(f"/{address}")
        assert loaded.status_code == 200, address
        if address.endswith(".css"):
            assert all(inner.lstrip("'\"").startswith("data:") for inner in re.findall(r"url\(([^)]*)\)", loaded.text))
    sources = re.findall(r"(\S+-src) ([^;]+)", page.headers["content-security-policy"])
    assert dict(sources)["default-src"] == "'none'"
    assert {source for _, allowed in sources for source in allowed.split()} <= {"'none'", "'self'", "'unsafe-inline'", "data:"}


def test_the_page_asks_nobody_elsewhere_whether_the_document_is_valid(member: httpx.Client) -> None:
    assert '"validatorUrl": null' in member.get("/docs").text


def test_a_file_that_the_page_does_not_have_is_a_problem(member: httpx.Client) -> None:
    for path in ("/docs/files/none.js", "/docs/files/../__init__.py", "/docs/files/%2e%2e/__init__.py"):
        answer = member.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
