"""Sends requests over kept-alive connections and waits for each answer: ``python requester.py HOST PORT SECONDS < REQUESTS``.

A process of its own that imports nothing of the project, and as light as Python allows: on two cores a client's time is taken
from the server. Standard input holds the requests, one JSON string each line; each connection repeats one of them. Standard
output is one line of JSON: how many answers came, in how many seconds, their statuses, and percentiles of the
times in milliseconds.
"""

import json
import re
import select
import socket
import sys
import time

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def main() -> None:
    host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    requests = [json.loads(line).encode() for line in sys.stdin]
    sockets = [socket.create_connection((host, port)) for _ in requests]
    poller = select.poll()
    to_answer = {}
    for index, each in enumerate(sockets):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poller.register(each, select.POLLIN)
        to_answer[each.fileno()] = (each, requests[index])
    sent_at = {number: time.perf_counter() for number in to_answer}
    received = dict.fromkeys(to_answer, b"")
    times: list[float] = []
    statuses: dict[str, int] = {}
    began = time.perf_counter()
    end = began + seconds
    for each, request in to_answer.values():
        each.sendall(request)
    waiting = len(sockets)
    while waiting:
        for number, _ in poller.poll():
            each, request = to_answer[number]
            data = received[number] + each.recv(1 << 20)
            if not data:
                raise SystemExit("the server closed a connection")
            now = time.perf_counter()
            if not _is_whole(data):
                received[number] = data
                continue
            received[number] = b""
            status = data[9:12].decode()
            statuses[status] = statuses.get(status, 0) + 1
            times.append(now - sent_at[number])
            if now < end:
                sent_at[number] = now
                each.sendall(request)
            else:
                waiting -= 1
    spent = time.perf_counter() - began
    times.sort()
    answer = {"answers": len(times), "seconds": spent, "statuses": statuses}
    answer |= {f"p{percent}": times[len(times) * percent // 100] * 1000 for percent in (50, 99)}
    print(json.dumps(answer))


def _is_whole(data: bytes) -> bool:
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return False
    length = _LENGTH.search(data, 0, head)
    return length is None or len(data) >= head + 4 + int(length[1])


if __name__ == "__main__":
    main()
