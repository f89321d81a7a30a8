"""A local stand-in for the Hugging Face Hub: the real protocol over real files, as far as a download of a repository needs it.

A repository is served as a network and as a dataset.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

_LARGE_BYTES = 100
"""From this size on a file is one of those that the Hub lists by their SHA-256."""


@dataclass
class Repository:
    """Folders by commit, and commits by branch. With ``token`` its files are for those who bring it."""

    commits: dict[str, Path]
    branches: dict[str, str]
    token: str | None = None


@dataclass
class Hub:
    """What the server serves; ``is_down`` makes it answer 503, and ``asked`` is what was asked of it."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    is_down: bool = False
    asked: list[str] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)
    """Names of files that arrive with other bytes than they are listed with."""

    def add(self, name: str, folder: Path, *, commit: str, branch: str = "main", token: str | None = None) -> None:
        """Adds a commit, which its branch moves to."""
        repository = self.repositories.setdefault(name, Repository({}, {}, token))
        repository.commits[commit], repository.branches[branch] = folder, commit

    def downloads(self) -> list[str]:
        """The files that were sent."""
        return [path.rpartition("/")[2] for path in self.asked if path.startswith("GET ") and "/resolve/" in path]


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serves until the block ends, at ``HF_ENDPOINT=hub.url``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._asked_paths = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()).get("paths", [])
        self._answer()

    def _answer(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        hub.asked.append(f"{self.command} {path}")
        if hub.is_down:
            self._refuse(503)
            return
        prefixes = ("/api/models/", "/api/datasets/", "/datasets/", "/")
        parts = path.removeprefix(next(prefix for prefix in prefixes if path.startswith(prefix))).split("/")
        name, (verb, revision, *rest) = "/".join(parts[:2]), parts[2:] or ["revision", "main"]
        repository = hub.repositories.get(name)
        if repository is None:
            self._refuse(401, "RepoNotFound")
            return
        commit = repository.branches.get(revision, revision)
        files = sorted(path for path in repository.commits.get(commit, Path("none")).rglob("*") if path.is_file())
        if commit not in repository.commits:
            self._refuse(404, "RevisionNotFound")
        elif verb == "revision":
            names = [{"rfilename": path.relative_to(repository.commits[commit]).as_posix()} for path in files]
            self._send_json({"id": name, "sha": commit, "siblings": names})
        elif verb == "paths-info":
            root = repository.commits[commit]
            self._send_json([_entry(root / path, root) for path in self._asked_paths if (root / path).exists()])
        elif verb == "tree":
            root = repository.commits[commit]
            folder = root.joinpath(*rest)
            if not folder.is_dir():
                self._refuse(404, "EntryNotFound")
                return
            query = parse_qs(urlsplit(self.path).query)
            is_recursive = query.get("recursive", ["false"])[0].lower() == "true"
            found = folder.rglob("*") if is_recursive else folder.iterdir()
            self._send_json([_entry(path, root) for path in sorted(found)])
        elif (
            repository.token is not None
            and rest != ["README.md"]
            and self.headers.get("Authorization") != f"Bearer {repository.token}"
        ):
            self._refuse(403, "GatedRepo")
        else:
            self._send_file(repository.commits[commit] / "/".join(rest), commit, damage="/".join(rest) in hub.damaged)

    def _send_file(self, file: Path, commit: str, *, damage: bool) -> None:
        if not file.is_file():
            self._refuse(404, "EntryNotFound")
            return
        content = file.read_bytes()
        etag, size = _etag(content), len(content)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is not None:
            first, last = int(wanted[1]), min(int(wanted[2]), size - 1)
            content = content[first : last + 1]
        self.send_response(200 if wanted is None else 206)
        if wanted is not None:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(bytes(len(content)) if damage else content)

    def _send_json(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _etag(content: bytes) -> str:
    if len(content) >= _LARGE_BYTES:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(path: Path, folder: Path) -> dict[str, object]:
    if path.is_dir():
        name = path.relative_to(folder).as_posix()
        return {"type": "directory", "path": name, "size": 0, "oid": hashlib.sha1(name.encode()).hexdigest()}
    content = path.read_bytes()
    entry: dict[str, object] = {
        "type": "file",
        "path": path.relative_to(folder).as_posix(),
        "size": len(content),
        "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
    }
    if len(content) >= _LARGE_BYTES:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 100}
    return entry
