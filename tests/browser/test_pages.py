"""The pages in a real browser, with the real service, worker and training behind them."""

from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, expect

from service.client import Client
from service.embedded.stack import Stack
from tests.browser.conftest import check

Visit = Callable[..., Page]


def test_who_has_not_signed_in_does_so_first_and_comes_to_the_page_that_was_meant(running_stack: Stack, visit: Visit) -> None:
    page = visit(None)
    page.goto("/jobs?status=failed")
    check(page, "sign-in")
    page.get_by_label("Your API key").fill("sh_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not valid")
    page.get_by_label("Your API key").fill(running_stack.connection.api_key)
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs?status=failed")
    assert page.evaluate("document.cookie") == "", "a script can read the key"
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    page.goto("/jobs")
    expect(page).to_have_url(f"{running_stack.connection.url}/sign-in?next=%2Fjobs")


def test_a_newcomer_is_told_what_to_do_first(visit: Visit, client: Client) -> None:
    assert not list(client.jobs())
    page = visit()
    expect(page.get_by_role("heading", name="Your first student")).to_be_visible()
    check(page, "first")


def test_a_job_is_followed_from_the_queue_to_its_report(visit: Visit, client: Client, spec: dict[str, object]) -> None:
    page = visit()
    job = client.submit(spec)
    page.get_by_role("link", name="digits <b>small</b>").first.click()
    page.wait_for_url(f"**/jobs/{job.id}")
    expect(page.locator(".chart").first).to_be_visible()  # while it runs: nobody has loaded the page again
    expect(page.locator("#log-tail")).to_contain_text("Training the student")
    expect(page.locator("h1 .status")).to_have_text("succeeded")
    expect(page.locator(".timeline")).to_contain_text("job.succeeded")
    expect(page.get_by_role("link", name="student/model.safetensors")).to_be_visible()
    chart = page.locator(".chart", has_text="train loss").first
    chart.locator("summary").click()
    table = chart.get_by_label("train loss, as a table")
    expect(table.get_by_role("columnheader")).to_have_text(["step", "teacher", "student", "control"])
    points = client.metrics(job.id, names=["student/train_loss"])["student/train_loss"]
    shown = [row.split() for row in table.locator("tbody tr").all_inner_texts()]
    assert [float(row[-2]) for row in shown] == [float(f"{loss:.4g}") for _, loss in points]
    chart.locator("summary").click()
    check(page, "job")
    with page.expect_response("**/report") as answered:
        page.get_by_role("link", name="Report card").click()
    assert answered.value.ok
    expect(page.locator("body")).to_contain_text("digits <b>small</b>")
    page.goto("/")
    check(page, "queue")
    page.goto("/jobs?status=succeeded")
    expect(page.get_by_role("row")).to_have_count(2)
    check(page, "jobs")


def test_jobs_are_compared_by_figures_by_what_differs_and_by_their_curves(
    visit: Visit, client: Client, spec: dict[str, object]
) -> None:
    brief = {**spec, "training": {"epochs": 1}, "evaluation": {"control": False}}
    warm, cold = (
        client.submit({**brief, "name": f"at {each}", "method": {"name": "soft-targets", "temperature": each}})
        for each in (4.0, 1.0)
    )
    for job in (warm, cold):
        assert client.wait(job.id, timeout_seconds=120).status == "succeeded"
    page = visit()
    page.goto("/jobs")
    for name in ("at 4.0", "at 1.0"):
        page.get_by_label(f"Compare {name}").check()
    page.get_by_role("button", name="Compare the chosen").click()
    expect(page.locator("[data-compared]")).to_have_count(2)
    fields = page.get_by_role("group", name="Where the specs differ").locator("tbody tr")
    expect(fields).to_have_count(1)
    expect(fields.locator("th, td")).to_have_text(["/method/temperature", "1.0", "4.0"])
    chart = page.locator(".chart", has_text="train loss").first
    chart.locator("summary").click()
    heads = chart.get_by_label("train loss, as a table").get_by_role("columnheader")
    expect(heads).to_have_text(["step", "1 at 1.0", "2 at 4.0"])
    scatter = page.locator(".chart", has_text="test score by parameters")
    scatter.locator("summary").click()
    table = scatter.get_by_label("test score by parameters, as a table")
    expect(table.get_by_role("columnheader")).to_have_text(["parameters", "1 at 1.0", "2 at 4.0", "Pareto front"])
    (shown,) = [[float(cell) for cell in row.split()] for row in table.locator("tbody tr").all_inner_texts()]
    assert shown[3] == max(shown[1:3]), "of two of one size the better one is the front"
    check(page, "compare")


def test_an_owner_pauses_resumes_raises_and_cancels_and_others_only_look(
    visit: Visit, client: Client, running_stack: Stack, spec: dict[str, object], member_key: str
) -> None:
    long = {**spec, "name": "a long one", "training": {"epochs": 900}}
    with Client(running_stack.connection.url, member_key) as ada:
        job = ada.submit(long)
        other = client.submit({**long, "name": "the admin's"})
    own = visit(member_key)
    own.goto(f"/jobs/{job.id}")
    watcher = visit(client.create_key(user="eve", role="viewer").key)
    watcher.goto(f"/jobs/{job.id}")
    expect(watcher.locator("h1 .status")).to_be_visible()
    expect(watcher.locator("[data-action]")).to_have_count(0)
    own.get_by_role("button", name="Pause").click()
    for page in (own, watcher):
        expect(page.locator("h1 .status")).to_have_text("paused")
    own.get_by_label("Priority").select_option("low")
    expect(own.locator("#news")).to_have_text("priority: low")
    assert client.job(job.id).priority == "low"
    check(own, "paused")
    own.on("dialog", lambda dialog: dialog.accept())
    own.get_by_role("button", name="Resume").click()
    expect(own.get_by_role("button", name="Resume")).to_have_count(0)
    own.get_by_role("button", name="Cancel").click()
    for page in (own, watcher):
        expect(page.locator("h1 .status")).to_have_text("cancelled")
    own.goto(f"/jobs/{other.id}")
    expect(own.locator("h1 .status")).to_be_visible()
    expect(own.locator("[data-action]")).to_have_count(0)
    client.cancel(other.id, keep="none")


def test_what_is_not_there_is_said_on_a_page(visit: Visit) -> None:
    page = visit()
    answer = page.goto("/jobs/job_00000000000000000000000000")
    assert answer is not None
    assert answer.status == 404
    expect(page.locator(".fault")).to_contain_text("there is no job")
    check(page, "not-there")


def test_a_session_ends_with_its_key(visit: Visit, client: Client) -> None:
    made = client.create_key(user="bob", role="member")
    page = visit(made.key)
    client.revoke_key(made.id)
    page.goto("/jobs")
    page.wait_for_url("**/sign-in?next=*")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-CSRF-Token": "guessed", "Origin": "same"},
        {"X-CSRF-Token": "right"},
        {"X-CSRF-Token": "right", "Origin": "https://elsewhere.example"},
        {"X-CSRF-Token": "right", "Origin": "same", "Sec-Fetch-Site": "cross-site"},
    ],
    ids=["bare", "guessed", "no origin", "another origin", "cross-site"],
)
def test_a_cookie_alone_changes_nothing(running_stack: Stack, headers: dict[str, str]) -> None:
    url = running_stack.connection.url
    with httpx.Client(base_url=url, trust_env=False) as browser:
        form = {"key": running_stack.connection.api_key}
        assert browser.post("/session", data=form, headers={"Origin": "https://elsewhere.example"}).status_code == 403
        assert browser.post("/session", data=form, headers={"Origin": url}).status_code == 303
        token = browser.get("/").text.partition('name="csrf" content="')[2].partition('"')[0]
        right = {"X-CSRF-Token": token, "Origin": url}
        given = {name: {"right": token, "same": url}.get(value, value) for name, value in headers.items()}
        body = {"name": "nobody"}
        assert browser.post("/v1/users", json=body, headers=given).status_code == 403
        assert "nobody" not in browser.get("/v1/users").text
        assert browser.post("/v1/users", json={"name": f"by {headers}"[:60]}, headers=right).status_code in {200, 201, 422}
        assert browser.get("/v1/me", headers={"Authorization": "Bearer sh_wrong"}).status_code == 401
