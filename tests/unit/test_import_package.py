"""``stillhouse``: what users import, each name loaded at its first use."""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import service.client
import stillhouse
from service.spec.architectures import SmallCnn
from worker.data.images.pixels import PixelPreprocessing
from worker.models import build_network, save_network
from worker.targets import Targets

ROOT = Path(__file__).parents[2]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code", ["import stillhouse", "from stillhouse import Client, JobSpec; Client(url='http://127.0.0.1:1')"]
)
def test_the_package_and_its_client_need_neither_torch_nor_the_service(code: str) -> None:
    heavy = {"torch", "transformers", "fastapi", "sqlalchemy", "celery", "redis", "worker"}
    assert run(f"{code}; import sys; print(*{heavy} & set(sys.modules))") == ""


def test_everything_that_it_offers_is_there_under_its_own_name() -> None:
    assert len(set(stillhouse.__all__)) == len(stillhouse.__all__)
    assert dir(stillhouse) == stillhouse.__all__
    assert {getattr(stillhouse, name).__name__ for name in stillhouse.__all__} == set(stillhouse.__all__)
    assert set(service.client.__all__) <= set(stillhouse.__all__)
    with pytest.raises(AttributeError, match="no attribute 'jobs'"):
        _ = stillhouse.jobs


def test_type_checkers_see_what_it_offers() -> None:
    tree = ast.parse(Path(stillhouse.__file__).read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(stillhouse.__all__)
    assert Path(stillhouse.__file__).with_name("py.typed").exists()


def test_the_folder_that_an_editable_install_puts_on_the_path_holds_nothing_else() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    (folder,) = build["sources"]
    assert [path.name for path in (ROOT / folder).iterdir() if path.name != "__pycache__"] == ["stillhouse"]


def test_a_student_of_an_own_network_is_loaded(tmp_path: Path) -> None:
    network = build_network(SmallCnn(name="small-cnn", width=4), input_shape=(1, 8, 8), num_outputs=2).eval()
    preprocessing = PixelPreprocessing(mean=(0.3,), std=(0.4,), rescale_factor=1 / 16)
    save_network(network, tmp_path, preprocessing=preprocessing, targets=Targets.of_classes(["ant", "bee"]))
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "stillhouse"
    student = stillhouse.load_network(tmp_path)
    assert isinstance(student, stillhouse.LoadedNetwork)
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(student.network(student.preprocessing(images)), network(preprocessing(images)))
    assert student.classes == ["ant", "bee"]


def test_a_folder_that_holds_no_network_is_an_error_that_the_package_offers(tmp_path: Path) -> None:
    with pytest.raises(stillhouse.UnreadableNetwork):
        stillhouse.load_network(tmp_path)


def test_a_network_without_torch_is_refused_with_what_to_install() -> None:
    code = """
import sys
sys.modules["torch"] = None
import stillhouse
try:
    from stillhouse import load_network
except ImportError as error:
    print(error)
assert stillhouse.Client
"""
    assert run(code) == (
        "stillhouse.load_network needs the package 'torch', which is not installed: pip install 'stillhouse[worker]'"
    )
