"""The ``stillhouse`` command in processes of its own, forked from one that has imported it: that takes longer than most commands.

Nor does any of them look at the end for garbage in what was imported.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

_FORK_EACH = """
import gc, json, os, sys
import service.database, service.security
from service.cli import main
gc.freeze()
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
os.environ.clear()
os.environ.update(request["environment"])
for number, name in enumerate(("stdin", "stdout", "stderr")):
    os.dup2(os.open(os.path.join(request["streams"], name), os.O_RDWR), number)
sys.stdin = os.fdopen(0)
sys.argv = ["stillhouse", *request["arguments"]]
main()
"""


class Commands:
    """One process that forks one for each command."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORK_EACH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str, environment: Mapping[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        """What the command printed and ended with, in this environment and no other."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with TemporaryDirectory() as folder:
            streams = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
            for path, text in zip(streams, (stdin, "", ""), strict=True):
                path.write_text(text)
            request = {"arguments": arguments, "environment": dict(environment), "streams": folder}
            print(json.dumps(request), file=self._process.stdin, flush=True)
            code = self._process.stdout.readline()
            assert code, f"the process that forks ended with exit code {self._process.wait()}"
            _, out, err = (path.read_text() for path in streams)
        return subprocess.CompletedProcess(arguments, int(code), out, err)

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
