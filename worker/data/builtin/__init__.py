"""Loaders of the datasets that come with the service, by the names that ``service.spec.builtin`` describes."""

from collections.abc import Callable

from service.formats import DataArrays
from worker.data.builtin.digits import load_digits
from worker.data.builtin.languages import load_languages

BUILTIN_LOADERS: dict[str, Callable[[], DataArrays]] = {"digits": load_digits, "languages": load_languages}
