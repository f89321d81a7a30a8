"""The datasets that come with the service, by name: what ``service.spec.builtin`` tells of them is in these."""

from collections.abc import Callable

from service.formats import DataArrays
from worker.data.digits import load_digits
from worker.data.languages import load_languages

BUILTIN_LOADERS: dict[str, Callable[[], DataArrays]] = {"digits": load_digits, "languages": load_languages}
