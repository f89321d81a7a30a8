"""Runs trainers in processes of their own for the tests: ``python -m tests.integration.trainer_host ADDRESS``.

As the worker's fork server does, this process imports everything once and computes nothing; each trainer is a fork of it. A
trainer sends each event, and each look for a stop request, to the test, and waits for the answer: so a test can kill it at
an exact place.
"""

import json
import os
import signal
import sys
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import sklearn.datasets  # noqa: F401 - imported here once, not in each fork
import torch._dynamo  # noqa: F401 - the first optimizer would import it

from worker.evaluation import speed
from worker.job.attempt import run
from worker.protocol import Assignment, Event, StopRequest, decode_stop, encode

speed._MOST_ROUNDS = 3  # as in the tests' own process


class RemoteReporter:
    """Asks the test about everything."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def emit(self, event: Event) -> None:
        self._connection.send_bytes(encode(event))
        self._connection.recv_bytes()

    def stop_request(self) -> StopRequest | None:
        self._connection.send_bytes(b"stop?")
        answer = self._connection.recv_bytes()
        return decode_stop(answer) if answer else None


def main(address: str) -> None:
    with Client(address, "AF_UNIX") as control:
        while True:
            try:
                request: dict[str, Any] = json.loads(control.recv_bytes())
            except EOFError:
                return
            pid = os.fork()
            if pid == 0:
                control.close()
                _train(request)
                os._exit(0)
            control.send_bytes(str(pid).encode())
            _, status = os.waitpid(pid, 0)
            control.send_bytes(str(os.waitstatus_to_exitcode(status)).encode())


def _train(request: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assignment = Assignment(
        job_id="job_test", spec=request["spec"], folder=Path(request["folder"]), num_threads=request["threads"]
    )
    with Client(request["address"], "AF_UNIX") as connection:
        run(assignment, RemoteReporter(connection))


if __name__ == "__main__":
    main(sys.argv[1])
