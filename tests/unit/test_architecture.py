"""Imports go one way, heavy libraries stay where they belong, and the folders explain themselves.

The parts of ``service`` and of ``worker`` are listed from the top down, each layer with what belongs to it; a part imports only
from layers below its own, so no two import each other, directly or round a circle. The worker has two sides that meet in
``protocol`` and ``sources``: the host's side knows the database and never torch, the trainer's side knows torch and never the
database. What a trainer's process is to run the host's side imports inside a function, once it is that process.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORT_PACKAGE = "service.public."
"""The folder of ``stillhouse``, what users import: it is installed beside ``service`` and ``worker``, and knows both."""

Layers = dict[str, set[str]]
"""From the top down: what belongs to a layer, and the parts that it has."""

SERVICE_LAYERS: Layers = {
    "commands of the terminal": {"cli"},
    "the HTTP face, and the servers of one machine": {"api", "embedded"},
    "folders that become models; pages for people, as text": {"model_uploads", "web"},
    "whole requests: look-ups and a transaction, or files and a transaction": {
        "sweeper",
        "submission",
        "datasets",
        "models",
        "read_statements",
    },
    "pages and lists over its tables; files that several models have": {"queries", "blobs"},
    "which job starts, on which devices, and why another waits": {"scheduling"},
    "one resource each, over its tables": {
        "preflight",
        "previews",
        "team",
        "workers",
        "updates",
        "store_identity",
        "unlisted_files",
        "secrets",
    },
    "transitions of a job; callers, sessions, uploaded folders": {"jobs", "security", "database", "model_folder"},
    "what devices there are and what was used of them": {"usage", "capacity"},
    "facts of uploaded folders": {"model_facts"},
    "tables, readers of files, the client": {
        "tables",
        "queue_policy",
        "formats",
        "weights",
        "gguf_header",
        "client",
        "read_connection",
        "data_urls",
    },
    "the spec and its states; connections": {
        "spec",
        "lifecycle",
        "broker",
        "notifications",
        "connection",
        "archives",
        "file_roots",
        "store",
        "database_engine",
    },
    "what everybody may know": {"errors", "ids", "imports", "settings", "clock", "part_errors", "own_thread"},
    "what the operating system says": {"error_numbers"},
}
WORKER_LAYERS: Layers = {
    "entry points": {"__main__", "standalone", "preload"},
    "the host's side: claims, supervises and records; everything that knows the database": {"host"},
    "a job tried on a few rows": {"preflight"},
    "an attempt at a job, from spec to result folder": {"job"},
    "documents on a finished job": {"report"},
    "forms of a student; teachers and their outputs": {"export", "teachers"},
    "a network ready for use, with its preprocessing": {"trained"},
    "what each task reads, learns and is measured by": {"tasks"},
    "the training loop and its criteria": {"training"},
    "outputs and figures of a network on data": {"evaluation"},
    "networks; ranks": {"distributed", "models"},
    "losses of the methods and the layers that they compare": {"methods"},
    "samples, preprocessing and augmentation": {"data"},
    "where networks that exist are fetched from": {"sources"},
    "what everything of a trainer may know": {
        "targets",
        "errors",
        "eval_mode",
        "fake_tensors",
        "durable",
        "quiet",
        "spec_file",
        "free_memory",
        "forked",
        "host_memory",
    },
    "what host and trainer say to each other": {"protocol"},
}
HOST_SIDE = {"host", "__main__"}
BETWEEN_SIDES = {"protocol", "sources", "host_memory"}
"""Without torch and without the database: what both sides know."""
SHARED_WITH_TRAINERS = {"spec", "formats", "weights", "gguf_header", "model_facts", "errors", "error_numbers"}
"""What a trainer may know of the service: the spec, the readers of data files, headers of weights and cards, the errors."""


def modules(*packages: str) -> dict[str, ast.Module]:
    """Every module of these packages by its dotted name."""
    found = {}
    for path in sorted(path for package in packages for path in (ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        name = name.removeprefix(IMPORT_PACKAGE)
        found[name] = ast.parse(path.read_text(), filename=str(path))
    return found


def imports(tree: ast.Module, *, inside_functions: bool = True) -> Iterator[str]:
    """The dotted names that a module imports; those inside functions cost nothing until they are called."""
    nodes = ast.walk(tree) if inside_functions else iter(tree.body)
    for node in nodes:
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


def crossings(package: str, *, inside_functions: bool = True) -> Iterator[tuple[str, str]]:
    """(module, imported name) of what a package's modules import of the project itself."""
    for name in MODULES:
        if top(name) == package:
            for target in imports(MODULES[name], inside_functions=inside_functions):
                if top(target) in {"service", "worker", "migrations"}:
                    yield name, target


@pytest.mark.parametrize(("package", "layers"), [("service", SERVICE_LAYERS), ("worker", WORKER_LAYERS)])
def test_every_part_has_its_layer(package: str, layers: Layers) -> None:
    parts = {part(name) for name in MODULES if name.startswith(f"{package}.")}
    listed = set().union(*layers.values())
    choice = "\n".join(f"  {', '.join(sorted(names))}: {what}" for what, names in layers.items())
    assert not parts - listed, f"add to a layer of {package}, from the top down:\n{choice}"
    assert not listed - parts
    assert sum(map(len, layers.values())) == len(parts)


@pytest.mark.parametrize(("package", "layers"), [("service", SERVICE_LAYERS), ("worker", WORKER_LAYERS)])
def test_parts_import_only_downwards(package: str, layers: Layers) -> None:
    depth = {name: level for level, layer in enumerate(layers.values()) for name in layer}
    wrong = [
        f"{name} imports {target}"
        for name, target in crossings(package)
        if top(target) == package and part(target) != part(name) and depth[part(target)] <= depth[part(name)]
    ]
    assert not wrong


def test_the_service_imports_the_worker_in_one_command_alone() -> None:
    wrong = [crossing for crossing in crossings("service") if top(crossing[1]) == "worker"]
    assert {part(name) for name, _ in wrong} == {"cli"}
    assert not [crossing for crossing in crossings("service", inside_functions=False) if top(crossing[1]) == "worker"]


def test_the_import_package_is_of_users_alone() -> None:
    assert [name for name in MODULES if top(name) == "stillhouse"] == ["stillhouse"]
    assert not [name for name, tree in MODULES.items() for target in imports(tree) if top(target) == "stillhouse"]


def test_only_the_hosts_side_of_the_worker_knows_the_database() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, target in crossings("worker")
        if top(target) == "service" and part(name) not in HOST_SIDE and part(target) not in SHARED_WITH_TRAINERS
    ]
    assert not wrong


def test_the_hosts_side_and_the_trainers_side_meet_in_the_protocol() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, target in crossings("worker", inside_functions=False)
        if top(target) == "worker"
        and part(target) not in {*BETWEEN_SIDES, part(name)}
        and (part(name) in HOST_SIDE) != (part(target) in HOST_SIDE)
    ]
    assert not wrong
    across = {
        name
        for name, target in crossings("worker")
        if part(name) == "host" and top(target) == "worker" and part(target) not in {"host", *BETWEEN_SIDES}
    }
    assert across == {"worker.host.trainer_process"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("service.api.app", {"torch", "transformers", "sklearn", "worker"}),
        ("service.broker", {"torch", "transformers", "fastapi", "worker"}),
        ("worker.host.worker", {"torch", "transformers", "sklearn", "fastapi"}),
        ("worker.standalone", {"torch", "transformers", "sklearn", "sqlalchemy", "fastapi"}),
        (
            "worker.job.attempt",
            {"sqlalchemy", "psycopg", "celery", "redis", "fastapi", "httpx", "peft", "bitsandbytes", "gguf"},
        ),
        ("worker.sources.download", {"torch", "transformers", "sqlalchemy", "fastapi"}),
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
