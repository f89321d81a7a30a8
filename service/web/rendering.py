"""Renders the templates. Each text in them is escaped; what a page loads, it loads from this service.

The files have addresses with a digest of all of them, so that a browser keeps them for ever and never mixes two versions.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
MEDIA_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
"""By the endings of the files that pages load."""
PAGES = (("/", "Queue"), ("/jobs", "Jobs"))
"""The pages that each page leads to."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def render(template: str, **context: Any) -> str:
    """Renders a page."""
    return _environment().get_template(template).render(context)


@cache
def static_files() -> Mapping[str, bytes]:
    """The files that pages load, by name."""
    found = dict(_files(resources.files("service.web") / "static", ""))
    return {name: found[name] for name in sorted(found)}


@cache
def static_digest() -> str:
    """A digest of all of them, short enough for an address."""
    digest = hashlib.sha256()
    for name, data in static_files().items():
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]


def duration(seconds: float | None) -> str:
    """Seconds for people: ``42 s``, ``3 min 5 s``, ``2 h 10 min``, ``3 d 4 h``."""
    if seconds is None:
        return "–"
    total = round(seconds)
    days, hours, minutes = total // 86_400, total // 3600 % 24, total // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {total % 60} s" if minutes else f"{total} s"


def size(num_bytes: float | None) -> str:
    """Bytes for people, in powers of 1024."""
    if num_bytes is None:
        return "–"
    value = float(num_bytes)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes all")


def moment(time: datetime | str | None) -> Markup:
    """A time in UTC; the browser's script shows it in the time zone of whoever reads it."""
    if time is None:
        return Markup("–")
    read = (datetime.fromisoformat(time) if isinstance(time, str) else time).astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(read.isoformat(), f"{read:%Y-%m-%d %H:%M}")


def percent(share: float | None) -> str:
    """A share of 1 in percent."""
    return "–" if share is None else f"{share:.0%}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("service.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": duration, "size": size, "moment": moment, "percent": percent}
    environment.globals |= {"static": f"/static/{static_digest()}", "pages": PAGES}
    return environment


def _files(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _files(entry, f"{prefix}{entry.name}/")
        elif entry.name.rpartition(".")[2] in MEDIA_TYPES:
            found.append((f"{prefix}{entry.name}", entry.read_bytes()))
    return found
