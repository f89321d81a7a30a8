"""What importing the client and the command line must not load."""

import subprocess
import sys

import pytest

import service.client


@pytest.mark.parametrize("module", ["service.client", "service.cli"])
def test_importing_it_loads_neither_the_service_nor_torch(module: str) -> None:
    heavy = {"fastapi", "sqlalchemy", "celery", "redis", "psutil", "torch", "worker"}
    code = f"import sys, {module}; print(*{heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_everything_that_is_promised_is_there() -> None:
    assert sorted(service.client.__all__) == service.client.__all__
    assert all(hasattr(service.client, name) for name in service.client.__all__)
