"""Imports go one way, heavy libraries stay where they belong, and the folders explain themselves.

The service's parts are listed from the top down; a part imports only from those below it. The worker has two sides that meet
in ``protocol`` alone: the host's side knows the database and never torch, the trainer's side knows torch and never the database.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SERVICE_LAYERS = [
    {"cli"},
    {"api", "embedded"},
    {"sweeper", "submission", "datasets", "models", "queries"},
    {"scheduling"},
    {"preflight", "store", "team", "workers"},
    {"jobs", "security", "database", "model_folder"},
    {"usage", "capacity"},
    {"tables", "queue_policy", "formats", "weights", "client"},
    {"spec", "lifecycle", "broker", "notifications", "connection", "archives"},
    {"errors", "ids", "settings", "clock"},
]
HOST_SIDE = {"host", "__main__"}
SHARED_WITH_TRAINERS = {"spec", "formats", "errors"}
"""What a trainer may know of the service: the spec, the readers of data files, the errors."""
LAZY = {
    ("service.cli", "worker"),
    ("worker.host", "worker.job"),
    ("worker.host", "worker.preflight"),
    ("worker.standalone", "worker.host.trainer_process"),
}
"""Imports inside a function that cross a border on purpose: ``stillhouse train``, and a forked trainer's start and own start."""


def modules(*packages: str) -> dict[str, ast.Module]:
    """Every module of these packages by its dotted name."""
    found = {}
    for path in sorted(path for package in packages for path in (ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(), filename=str(path))
    return found


def imports(tree: ast.Module) -> Iterator[str]:
    """The dotted names that a module imports, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(name: str) -> str:
    """``service.api.app`` is of the part ``api``."""
    return name.partition(".")[2].partition(".")[0]


def top(name: str) -> str:
    return name.partition(".")[0]


MODULES = modules("service", "worker", "migrations")


def crossings(side: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(module, imported name) of the project's own imports, less the lazy ones that are there on purpose."""
    for name in side:
        for target in imports(MODULES[name]):
            two = ".".join(name.split(".")[:2])
            if top(target) in {"service", "worker", "migrations"} and not any(
                two == source and target.startswith(prefix) for source, prefix in LAZY
            ):
                yield name, target


def test_every_part_of_the_service_has_its_layer() -> None:
    parts = {part(name) for name in MODULES if name.startswith("service.")}
    assert parts == set().union(*SERVICE_LAYERS)
    assert sum(map(len, SERVICE_LAYERS)) == len(parts)


def test_the_service_imports_only_downwards() -> None:
    depth = {name: level for level, layer in enumerate(SERVICE_LAYERS) for name in layer}
    wrong = [
        f"{name} imports {target}"
        for name, target in crossings(name for name in MODULES if name.startswith("service."))
        if top(target) == "service" and part(target) != part(name) and depth[part(target)] <= depth[part(name)]
    ]
    assert not wrong


def test_the_service_never_imports_the_worker() -> None:
    assert not [crossing for crossing in crossings(n for n in MODULES if top(n) == "service") if top(crossing[1]) == "worker"]


def test_only_the_hosts_side_of_the_worker_knows_the_database() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, target in crossings(n for n in MODULES if top(n) == "worker" and part(n) not in HOST_SIDE)
        if top(target) == "service" and part(target) not in SHARED_WITH_TRAINERS
    ]
    assert not wrong


def test_the_hosts_side_and_the_trainers_side_meet_in_the_protocol() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, target in crossings(n for n in MODULES if top(n) == "worker")
        if top(target) == "worker"
        and part(target) not in {"protocol", part(name)}
        and (part(name) in HOST_SIDE) != (part(target) in HOST_SIDE)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("service.api.app", {"torch", "transformers", "sklearn", "worker"}),
        ("service.broker", {"torch", "transformers", "fastapi", "worker"}),
        ("worker.host.worker", {"torch", "transformers", "sklearn", "fastapi"}),
        ("worker.job.attempt", {"sqlalchemy", "psycopg", "celery", "redis", "fastapi", "httpx"}),
        ("worker.models", {"sqlalchemy", "celery", "redis", "fastapi"}),
        ("worker.evaluation.metrics", {"sklearn", "scipy", "torchmetrics"}),
        ("worker.export.onnx", {"onnx", "onnxscript", "onnxruntime"}),
    ],
)
def test_importing_it_leaves_these_out(module: str, unwanted: set[str]) -> None:
    assert not unwanted & loaded_after(f"import {module}")


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        name
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ")
        or (isinstance(node, ast.Call) and ast.unparse(node.func) in {"os.environ.get", "os.getenv"})
    }
    assert not readers


def test_every_module_says_what_it_owns() -> None:
    silent = [name for name, tree in MODULES.items() if ast.get_docstring(tree) is None]
    assert not silent


def test_no_name_hides_what_is_inside() -> None:
    assert not {"utils", "util", "common", "helpers", "base", "misc"} & {name.rpartition(".")[2] for name in MODULES}


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after that code."""
    listing = f"{code}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())
