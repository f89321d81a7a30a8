"""README and docs against what they name: pages and anchors, files and modules, commands and options, settings, fields, tests.

What they print to be run is run by ``tests/acceptance/test_readme.py``.
"""

import json
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import SecretStr
from typer.core import TyperGroup

from service.cli import app
from service.errors import FAILURE_CODES
from service.lifecycle import Status
from service.settings import Settings
from service.spec import JobSpec, parse_spec
from service.spec.architectures import ARCHITECTURES
from service.spec.augment import AUGMENTATIONS
from service.spec.data import DatasetSpec
from service.spec.job import EvaluationSpec, ResourceSpec, StudentSpec, TeacherSpec
from service.spec.methods import METHODS
from service.spec.require import RequireSpec
from service.spec.tasks import TASKS
from service.spec.training import TrainingSpec
from tests.documents import PAGES, ROOT, blocks, code_lines, every_block, is_defined, names, prose, rows, section, spans

COMMANDS = typer.main.get_group(app).commands
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
LINE_LENGTH = 130
MAX_LINES_OF_README = 220
SETTINGS = {str(field.validation_alias or f"STILLHOUSE_{name.upper()}"): field for name, field in Settings.model_fields.items()}
CLIENT_VARIABLES = {"STILLHOUSE_URL", "STILLHOUSE_API_KEY", "STILLHOUSE_HOME"}
WORDS = {
    "": "",
    "true": True,
    "a day": 86_400,
    "a week": 7 * 86_400,
    "1 MiB": 2**20,
    "20 GiB": 20 * 2**30,
    "all": None,
    "`DATABASE_URL`": "",
    "the system's": None,
    "`teacher-cache` in the scratch folder": None,
    "none": SecretStr(""),
    "`network-cache` in the scratch folder": None,
    "`data-cache` in the scratch folder": None,
    "by CPU threads": None,
}
"""Defaults of settings as they are written for people."""


# Form


def test_the_readme_has_at_most_so_many_lines() -> None:
    assert len(PAGES["README.md"].splitlines()) <= MAX_LINES_OF_README


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_wrapped_as_the_codes_are(page: str) -> None:
    may_be_longer = re.compile(r"\||\s*(- |\d+\. )?\S+$")  # a row of a table, and what cannot be broken
    long = [line for line in prose(page).splitlines() if len(line) > LINE_LENGTH and not may_be_longer.match(line)]
    assert not long


def test_no_page_repeats_another() -> None:
    said: Counter[str] = Counter()
    for page in PAGES:
        parts = {
            *re.split(r"\n\n|\n(?=[|-])", prose(page)),
            *re.split(r"(?<=[.:]) ", " ".join(prose(page).split())),
            *blocks(page),
        }
        said.update({" ".join(part.split()) for part in parts})
    assert [part for part, count in said.items() if count > 1 and len(part) > 60] == []


# Links, files, modules


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    broken = []
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        place = (ROOT / page).parent / path if path else ROOT / page
        if not place.exists() or (anchor and anchor not in anchors(place.resolve().relative_to(ROOT).as_posix())):
            broken.append(target)
    assert not broken


def test_the_readme_links_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+)", PAGES["README.md"]))
    assert set(PAGES) - {"README.md"} <= linked


def test_the_tree_of_the_readme_is_that_of_the_project() -> None:
    (tree,) = (block for block in blocks("README.md", "") if block.startswith("service/ "))
    missing, packages, folder = [], set(), Path()
    for line in tree.splitlines():
        if not line.startswith(" "):
            folder = ROOT
        listed = re.findall(r"(?:^|(?<=\s))([a-z_]+(?:\.py|/))(?=\s|$)", line)
        assert listed, line
        missing += [name for name in listed if not (folder / name).exists() and not (ROOT / name).exists()]
        packages |= {folder / name for name in listed if name.endswith("/")}
        if not line.startswith(" "):
            folder = ROOT / listed[0]
    assert not missing
    assert {path.parent for top in ("service", "worker") for path in (ROOT / top).glob("*/__init__.py")} <= packages
    assert {path.parent for path in ROOT.glob("*/__init__.py")} <= packages


@pytest.mark.parametrize("page", PAGES)
def test_every_path_and_every_module_that_is_named_is_there(page: str) -> None:
    tops = "service|worker|tests|benchmarks|examples|migrations|docs"
    paths = [span for span in spans(page) if re.fullmatch(rf"({tops}|\.ci)/[\w./-]*", span)]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    dotted = [
        found for span in spans(page) for found in re.findall(r"^((?:service|worker|benchmarks|stillhouse)(?:\.\w+)+)", span)
    ]
    assert [name for name in dotted if not is_defined(name)] == []


def test_every_example_is_named() -> None:
    named = set(re.findall(r"examples/[\w-]+\.\w+", "\n".join(PAGES.values())))
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").iterdir() if path.is_file()} == named


# Commands


def commands_of(page: str) -> list[list[str]]:
    """The words after ``stillhouse`` in all code of a page."""
    lines = [line.split("stillhouse ", 1)[1] for line in code_lines(page) if re.search(r"(^|(?<!from)[\s/$(])stillhouse ", line)]
    return [shlex.split(re.sub(r"[)|].*| ….*", "", line)) for line in lines]


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)])
def test_every_command_and_every_option_is_there(page: str) -> None:
    for words in commands_of(page):
        command = COMMANDS[words[0]]
        if isinstance(command, TyperGroup):
            command = command.commands[words[1]]
        options = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
        if words[0] == "worker":  # its own parser reads them
            options = set(
                re.findall(r'add_argument\("(--[a-z-]+)"', (ROOT / "worker/host/worker.py").read_text(encoding="utf-8"))
            )
        assert {word for word in words if word.startswith("--")} <= options, words


def test_every_make_target_is_there() -> None:
    lines = [line for page in PAGES for line in code_lines(page)]
    targets = {found[1] for line in lines if (found := re.match(r"make (?:\w+=\S+ )?([a-z]+)", line))}
    assert {"demo", "test", "check"} <= targets
    assert targets <= set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))


def test_what_docker_is_to_run_is_there() -> None:
    services, seen = set(COMPOSE["services"]), set()
    for line in code_lines("docs/deploy.md"):
        words = line.split()
        if words[:2] == ["docker", "compose"]:
            verb, rest = words[2], [word for word in words[3:] if not word.startswith("-")]
            if verb == "exec":
                rest = rest[:1]
            elif verb == "build":
                rest = [word for word in rest if "=" not in word]
            assert set(rest) <= services, line
            seen.add(verb)
        elif words[:2] == ["docker", "build"]:
            assert re.search(rf" AS {words[words.index('--target') + 1]}$", DOCKERFILE, flags=re.MULTILINE)
            seen.add("image")
    assert {"up", "exec", "logs", "down", "build", "image"} <= seen
    for name in {"EXTRAS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"}:
        assert name in PAGES["docs/deploy.md"]
        assert re.search(rf"^ARG {name}", DOCKERFILE, flags=re.MULTILINE)
    image_rows = {cells[0]: names(cells[2]) for cells in rows(section("docs/deploy.md", "Images"))}
    assert [*image_rows] == ["`stillhouse-service` (`service`)", "`stillhouse-worker` (`worker`)"]
    assert {command for told in image_rows.values() for command in told} <= set(COMMANDS)
    assert set(COMPOSE["volumes"]) <= set(spans("docs/deploy.md"))


def test_every_figure_of_speed_has_its_program_and_every_program_is_named() -> None:
    told = [found for page in PAGES for line in code_lines(page) if (found := re.match(r"python -m benchmarks\.(\w+)(.*)", line))]
    for program, options in (found.groups() for found in told):
        path = ROOT / f"benchmarks/{program}"
        source = (path / "__main__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
        assert "__main__" in source
        assert all(f'"{option}"' in source for option in options.split())
    programs = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text(encoding="utf-8")}
    programs |= {path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py")}
    assert programs == {found[1] for found in told}
    assert all(re.search(r"python -m benchmarks\.", cells[2]) for cells in rows(PAGES["docs/speed.md"]))


# The spec


def fields(text: str) -> list[str]:
    """What the first cells of a text's tables name."""
    return [name for cells in rows(text) for name in names(cells[0])]


def test_the_table_of_the_spec_has_every_field() -> None:
    assert sorted(fields(section("README.md", "The job spec"))) == sorted(JobSpec.model_fields)


@pytest.mark.parametrize(
    ("heading", "model"),
    [("Your own data", DatasetSpec), ("Teacher", TeacherSpec), ("Student", StudentSpec), ("Training", TrainingSpec)],
)
def test_each_part_of_the_spec_is_told_with_every_field(heading: str, model: type[Any]) -> None:
    text = section("docs/spec.md", heading)
    (table,) = re.findall(r"^Fields of `\w+`[^\n]*\n\n((?:\|.*\n)+)", text.replace(":\n", "\n"), flags=re.MULTILINE) or [""]
    assert sorted(fields(table)) == sorted(model.model_fields)


def test_evaluation_and_resources_are_told_with_every_field() -> None:
    told = fields(section("docs/spec.md", "Evaluation and exports"))
    evaluation = ["exports", *(f"evaluation.{name}" for name in EvaluationSpec.model_fields)]
    assert sorted(told) == sorted([*evaluation, *RequireSpec.model_fields])
    told = [name.partition(":")[0] for name in fields(section("docs/queue.md", "What a job asks for"))]
    resources = {f"resources.{name}" for name in ResourceSpec.model_fields}
    assert {name for name in told if name.startswith("resources.")} == resources
    assert {"priority", "depends_on"} <= set(told)


def test_tasks_methods_architectures_and_augmentations_are_those_of_the_spec() -> None:
    assert fields(section("docs/spec.md", "Tasks")) == list(TASKS)
    assert set(TASKS) <= set(names(section("README.md", "The job spec")))
    assert sorted(fields(section("docs/spec.md", "Methods"))) == sorted(METHODS)
    student = [name for name in fields(section("docs/spec.md", "Student")) if name not in StudentSpec.model_fields]
    assert sorted(student) == sorted(ARCHITECTURES)
    told = {
        name
        for cells in rows(section("docs/spec.md", "Training"))
        for name in names(cells[-1])
        if cells[0] in ("images", "sound", "texts")
    }
    assert told == set(AUGMENTATIONS)


def test_each_paper_of_a_method_is_that_of_the_catalogue() -> None:
    for cells in rows(section("docs/spec.md", "Methods")):
        for identifier in re.findall(r"arXiv:[\d.]+", cells[2]):
            assert identifier in METHODS[names(cells[0])[0]].paper


def test_every_piece_of_a_spec_is_one() -> None:
    pieces = every_block("yaml")
    assert pieces
    network = {"name": "small-cnn"}
    least = {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": network},
        "student": {"architecture": network},
    }
    for _, piece in pieces:
        parse_spec(least | yaml.safe_load(piece))


# The queue, the settings


def test_every_state_and_every_code_of_a_failure_is_told() -> None:
    states = [name for cells in rows(section("docs/queue.md", "States of a job")) for name in names(cells[0])]
    assert set(Status) <= set(states)
    codes = fields(section("docs/queue.md", "Why a job fails"))
    assert sorted(codes) == sorted(FAILURE_CODES)


def test_every_setting_is_told_with_its_default_and_no_other_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    told = {variable: cells[1] for cells in rows(PAGES["docs/settings.md"]) for variable in names(cells[0])}
    of_hugging_face = {name for name in told if name.startswith("HF_")}
    assert set(told) - of_hugging_face == set(SETTINGS)
    for variable in SETTINGS:
        written = told[variable]
        value = WORDS[written] if written in WORDS else json.loads(written.strip("`"))
        assert value == SETTINGS[variable].get_default(call_default_factory=True), variable


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_that_a_page_names_is_one(page: str) -> None:
    told = set(re.findall(r"\b(?:STILLHOUSE_[A-Z_]+|DATABASE_(?:DIRECT_)?URL|REDIS_URL|CUDA_VISIBLE_DEVICES)\b", PAGES[page]))
    assert told <= set(SETTINGS) | CLIENT_VARIABLES
    if page == "docs/settings.md":
        assert told == set(SETTINGS) | CLIENT_VARIABLES


# Decisions, glossary


def test_each_decision_has_its_context_its_consequence_and_the_tests_that_hold_it() -> None:
    decisions = re.split(r"^## ", PAGES["docs/decisions.md"], flags=re.MULTILINE)[1:]
    assert [decision.partition(".")[0] for decision in decisions] == [str(number) for number in range(1, len(decisions) + 1)]
    for decision in decisions:
        assert re.findall(r"^- \*\*(.*?)\*\*", decision, flags=re.MULTILINE) == [
            "Context.",
            "Decision.",
            "Consequence.",
            "Held by",
        ]
        assert len(decision.splitlines()) <= 18, decision
        held = re.findall(r"^  - \[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)$", decision, flags=re.MULTILINE)
        assert held, decision
        for name, path in held:
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), name


def test_the_glossary_is_sorted_and_names_what_is_there() -> None:
    entries = re.findall(r"^- \*\*(.+?)\*\*: (.*?)(?=^- |\Z)", PAGES["docs/glossary.md"], flags=re.MULTILINE | re.DOTALL)
    words = [word.lower() for word, _ in entries]
    assert words == sorted(set(words))
    assert 10 <= len(words) <= 30
    for word, text in entries:
        said = " ".join(text.split())
        found = re.fullmatch(r"(.+?\.) Nearest: [^`]+\. In `([\w.]+)`\.", said)
        assert found, word
        assert len(re.findall(r"[.;] ", found[1] + " ")) <= 3, f"{word}: one or two sentences"
        assert is_defined(found[2]), found[2]
