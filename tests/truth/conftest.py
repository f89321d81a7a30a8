"""One thread, as in the tests of the worker: the networks here are tiny."""

from tests.unit.worker.conftest import _one_thread

__all__ = ["_one_thread"]
