"""A Python without this project, for the programs that users run beside a student: torch and transformers are imported once."""

import json
import subprocess
import sys
from pathlib import Path

# `None` in sys.modules makes an import fail: what a program needs beyond its libraries would be missed.
_RUN_EACH = """
import contextlib, io, json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.modules["worker"] = sys.modules["service"] = None
for line in sys.stdin:
    request = json.loads(line)
    os.chdir(request["folder"])
    sys.argv = ["-c", *request["arguments"]]
    printed, error = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            exec(request["program"], {"__name__": "__main__"})
        except Exception:
            error = traceback.format_exc()
    print(json.dumps([printed.getvalue(), error]), file=answers, flush=True)
"""


class Interpreter:
    """One process; each program has a namespace of its own there."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _RUN_EACH],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, program: str, *arguments: str, folder: Path) -> str:
        """What the program prints, in that working directory."""
        request = {"program": program, "arguments": arguments, "folder": str(folder)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, f"the interpreter ended with exit code {self._process.wait()}"
        printed, error = json.loads(answer)
        assert error is None, error
        return str(printed)

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
