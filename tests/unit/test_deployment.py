"""Dockerfile and docker-compose.yml against what they name: the Compose specification, the settings, the commands, the routes.

No Docker is needed. ``tests/data/README.md`` says where the specification's schema is from.
"""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from service.api.app import create_app
from service.cli import app
from service.settings import Settings
from worker.host.devices import parse_devices

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMMANDS = typer.main.get_group(app).commands
OURS = [name for name, service in SERVICES.items() if "build" in service]
FINAL_STAGES = ["service", "worker"]


@dataclass
class Stage:
    """One ``FROM`` of the Dockerfile, and what follows it."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)


def read_stages(text: str) -> dict[str, Stage]:
    """The stages by name: continued lines joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    stages: dict[str, Stage] = {}
    for line in filter(None, text.splitlines()):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            base, _, name = rest.split()
            stages[name] = Stage(base)
        else:
            list(stages.values())[-1].instructions.append((keyword, re.sub(r"\s+", " ", rest).strip()))
    return stages


STAGES = read_stages((ROOT / "Dockerfile").read_text())


def inherited(name: str, keyword: str) -> Iterator[str]:
    """What ``keyword`` says in a stage and in those that it is built on, the last one first."""
    while name in STAGES:
        yield from (rest for word, rest in reversed(STAGES[name].instructions) if word == keyword)
        name = STAGES[name].base


def settings_variables() -> set[str]:
    prefix = Settings.model_config["env_prefix"]
    return {str(of.validation_alias or f"{prefix}{name.upper()}") for name, of in Settings.model_fields.items()}


def image_variables(target: str) -> dict[str, str]:
    pairs = [part.split("=", 1) for line in inherited(target, "ENV") for part in shlex.split(line)]
    return dict(reversed(pairs))


def without_interpolation(value: str) -> str:
    """What Compose makes of ``${NAME:-default}`` where nothing is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "m": 60}[unit]


def mounts(name: str) -> dict[str, str]:
    """The volumes of a service by the folder in which it sees them."""
    return {target: volume for volume, target in (entry.split(":")[:2] for entry in SERVICES[name].get("volumes", []))}


# The Compose file


def test_the_compose_file_follows_the_specification() -> None:
    faults = jsonschema.Draft7Validator(SCHEMA).iter_errors(COMPOSE)
    assert [f"{fault.json_path}: {fault.message}" for fault in faults] == []


@pytest.mark.parametrize(
    ("name", "value"), [("imagee", "x"), ("depends_on", {"postgres": {"condition": "ready"}}), ("ports", "8321:8321")]
)
def test_the_specification_refuses_what_compose_would(name: str, value: object) -> None:
    broken = deepcopy(COMPOSE)
    broken["services"]["api"][name] = value
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(broken)


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_refers_to_is_there(name: str) -> None:
    assert set(SERVICES[name].get("depends_on", {})) <= set(SERVICES)
    assert set(mounts(name).values()) <= set(COMPOSE["volumes"])
    assert {config["source"] for config in SERVICES[name].get("configs", [])} <= set(COMPOSE["configs"])
    waited_for = [other for other, how in SERVICES[name].get("depends_on", {}).items() if how["condition"] == "service_healthy"]
    assert all("test" in SERVICES[other]["healthcheck"] for other in waited_for)


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_one_that_the_settings_read(name: str) -> None:
    set_here = set(SERVICES[name]["environment"])
    assert set_here <= settings_variables()
    assert {"DATABASE_URL", "REDIS_URL", "STILLHOUSE_STORE"} <= set_here


def test_no_password_has_a_default() -> None:
    uses = re.findall(r"\$\{\w*PASSWORD(:?[?+-]?)", COMPOSE_TEXT)
    assert uses
    assert set(uses) == {":?"}


def test_the_schema_is_up_to_date_before_anything_reads_it() -> None:
    for name in set(OURS) - {"migrate"}:
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["restart"] == "no", "restarted for ever, it would never be completed"


@pytest.mark.parametrize("name", OURS)
def test_store_and_scratch_are_volumes(name: str) -> None:
    target = SERVICES[name]["build"]["target"]
    for variable in ("STILLHOUSE_STORE", "STILLHOUSE_SCRATCH"):
        place = without_interpolation(SERVICES[name]["environment"][variable])
        assert place == image_variables(target)[variable]
        folder = place.removeprefix("file://")
        assert folder in mounts(name)
        assert folder in json.loads(next(inherited(target, "VOLUME")))


def test_every_service_sees_the_same_store() -> None:
    store = without_interpolation(SERVICES["api"]["environment"]["STILLHOUSE_STORE"]).removeprefix("file://")
    assert len({mounts(name)[store] for name in OURS}) == 1


def test_a_stop_waits_for_the_drain() -> None:
    drain = Settings.model_fields["stop_grace_seconds"].default
    for name in ("worker", "worker-cpu"):
        assert seconds(SERVICES[name]["stop_grace_period"]) > drain
    from service.api.server import _GRACE_SECONDS

    assert seconds(SERVICES["api"]["stop_grace_period"]) > _GRACE_SECONDS


def test_only_one_of_the_two_workers_needs_a_gpu() -> None:
    (device,) = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "deploy" not in SERVICES["worker-cpu"]
    assert "profiles" in SERVICES["worker-cpu"], "a plain `up` starts one worker"
    assert SERVICES["worker"]["image"] == SERVICES["worker-cpu"]["image"]


# What the containers run


@pytest.mark.parametrize("name", OURS)
def test_each_service_runs_a_command_that_there_is(name: str) -> None:
    target = SERVICES[name]["build"]["target"]
    assert json.loads(next(inherited(target, "ENTRYPOINT"))) == ["stillhouse"] == list(PROJECT["scripts"])
    command, *arguments = SERVICES[name].get("command") or json.loads(next(inherited(target, "CMD")))
    COMMANDS[command].make_context(command, list(arguments)).close()
    if command == "worker" and arguments:
        option, devices = arguments
        assert option == "--devices"
        assert parse_devices(devices)


def test_the_commands_in_comments_are_there() -> None:
    told = re.findall(r"exec api stillhouse ([a-z-]+)", COMPOSE_TEXT)
    assert "admin-key" in told
    assert set(told) <= set(COMMANDS)


def test_the_health_checks_ask_for_a_page_that_the_api_has_where_it_listens() -> None:
    paths = create_app(Settings(DATABASE_URL="postgresql://", REDIS_URL="redis://", store="memory://")).openapi()["paths"]
    port = next(str(option.default) for option in COMMANDS["serve"].params if option.name == "port")
    for check in (next(inherited("service", "HEALTHCHECK")), " ".join(SERVICES["api"]["healthcheck"]["test"])):
        asked = re.search(r"HTTPConnection\(.127\.0\.0\.1., (\d+), .*request\(.GET., .(/\w+).\)", check, flags=re.DOTALL)
        assert asked is not None
        assert asked[1] == port
        assert "get" in paths[asked[2]]
    assert next(inherited("service", "EXPOSE")) == port
    (published,) = SERVICES["api"]["ports"]
    assert published.rpartition(":")[2] == port


def test_the_health_check_of_the_one_shot_migration_is_off() -> None:
    assert SERVICES["migrate"]["healthcheck"] == {"disable": True}


# The Dockerfile


def test_the_targets_that_compose_builds_are_there() -> None:
    targets = {(SERVICES[name]["build"]["target"], SERVICES[name]["image"]) for name in OURS}
    assert targets == {(stage, f"stillhouse-{stage}") for stage in FINAL_STAGES}
    assert {target for target, _ in targets} <= set(STAGES)


def test_packages_are_installed_by_the_makefiles_command() -> None:
    makefile = re.findall(r"^\t\$\(PIP\) (install .*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    theirs = {tuple(part for part in shlex.split(line)[:-1] if part != "-e") for line in makefile if "-e" in line}
    assert len(theirs) == 1

    installs = []
    for stage in STAGES.values():
        defaults = dict(rest.split("=", 1) for keyword, rest in stage.instructions if keyword == "ARG" and "=" in rest)
        for keyword, rest in stage.instructions:
            for command in re.findall(r"python -m pip (install [^&]*)", rest) if keyword == "RUN" else []:
                *options, what = shlex.split(Template(command).substitute(defaults))
                assert {tuple(option for option in options if option != "--no-deps")} == theirs
                installs.append(what)
    assert sorted(installs) == [".", ".[service]", ".[worker]"]
    assert {"service", "worker"} <= set(PROJECT["optional-dependencies"])


def test_every_stage_that_installs_can_be_given_another_index() -> None:
    installing = [stage for stage in STAGES.values() if any("pip install" in rest for _, rest in stage.instructions)]
    assert len(installing) == 3
    for stage in installing:
        assert {("ARG", "PIP_INDEX_URL"), ("ARG", "PIP_EXTRA_INDEX_URL")} <= set(stage.instructions)


def test_every_package_of_the_project_is_in_the_images() -> None:
    copied = {name for keyword, rest in STAGES["application"].instructions if keyword == "COPY" for name in rest.split()[:-1]}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(build["only-include"]) <= copied
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    read = {name for stage in ("build", "application") for name in copied_from_context(stage)}
    assert read == let_through
    assert all((ROOT / name).exists() for name in read)


def copied_from_context(stage: str) -> Iterator[str]:
    for keyword, rest in STAGES[stage].instructions:
        if keyword == "COPY" and not rest.startswith("--from"):
            yield from rest.split()[:-1]


@pytest.mark.parametrize("stage", FINAL_STAGES)
def test_an_image_runs_as_an_ordinary_user_with_a_fixed_number(stage: str) -> None:
    user, _, group = next(inherited(stage, "USER")).partition(":")
    assert int(user) >= 1000
    assert int(group) >= 1000
    assert any(f"--uid {user} " in line and f"--gid {group} " in line for line in inherited(stage, "RUN"))


@pytest.mark.parametrize("stage", FINAL_STAGES)
def test_an_image_has_nothing_but_what_was_installed_for_it(stage: str) -> None:
    sources = [rest.split()[0].removeprefix("--from=") for rest in inherited(stage, "COPY")]
    assert sources == ["application", f"{stage}-dependencies"], "the source over the packages"
    assert not any("pip" in line or "apt" in line for line in inherited(stage, "RUN"))
    assert not {"build", "dependencies", *sources} & set(bases(stage)), "what builds is no part of what runs"


def bases(stage: str) -> Iterator[str]:
    while stage in STAGES:
        stage = STAGES[stage].base
        yield stage


@pytest.mark.parametrize("stage", FINAL_STAGES)
def test_what_an_image_sets_the_settings_read(stage: str) -> None:
    ours = {name for name in image_variables(stage) if name.startswith("STILLHOUSE_")}
    assert ours
    assert ours <= settings_variables()


def test_the_label_tells_the_projects_version() -> None:
    labels = dict(part.split("=", 1) for line in inherited("service", "LABEL") for part in shlex.split(line))
    assert labels["org.opencontainers.image.version"] == PROJECT["version"]
    assert labels["org.opencontainers.image.licenses"] == PROJECT["license"]


def test_every_stage_starts_from_the_same_base_or_from_another_stage() -> None:
    assert {stage.base for stage in STAGES.values()} - set(STAGES) == {"python:3.11-slim-bookworm"}
