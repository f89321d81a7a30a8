"""Many watchers in a process of its own: ``python watcher.py HOST PORT``, which imports nothing of the project.

Standard input holds a line of JSON, the requests: event streams, and long polls whose ``If-None-Match`` is ``"ETAG"``. A long
poll is repeated with the version of its answer. Standard output says ``ready`` once every stream has begun. For each further line
of input it is one line of JSON: the monotonic times at which the watchers had seen the next change, once all have.
"""

import json
import re
import select
import socket
import sys
import time

_ETAG = re.compile(rb'\r\netag: *"(\d+)"', re.IGNORECASE)


def main() -> None:
    host, port = sys.argv[1], int(sys.argv[2])
    asked = json.loads(sys.stdin.readline())
    requests: list[str] = asked["requests"]
    poller = select.epoll()
    watchers = {}
    for request in requests:
        each = socket.create_connection((host, port))
        watchers[each.fileno()] = (each, request)
        each.sendall(request.replace("ETAG", asked["version"]).encode())
        poller.register(each, select.EPOLLIN)
    waiting = {number for number, (_, request) in watchers.items() if "event-stream" in request}
    if not waiting:
        print("ready", flush=True)
    is_asked = False
    seen: dict[int, float] = {}
    poller.register(sys.stdin.fileno(), select.EPOLLIN)
    while True:
        for number, _ in poller.poll():
            if number == sys.stdin.fileno():
                if not sys.stdin.readline():
                    return
                is_asked, seen = True, {}
                continue
            each, request = watchers[number]
            data = each.recv(1 << 18)
            if not data:
                raise SystemExit("the server ended a connection")
            if number in waiting:
                waiting.discard(number)
                if not waiting:
                    print("ready", flush=True)
            if b"event: progress" in data:
                seen[number] = time.monotonic()
            elif (etag := _ETAG.search(data)) is not None:
                if data.startswith(b"HTTP/1.1 200"):
                    seen[number] = time.monotonic()
                each.sendall(request.replace("ETAG", etag[1].decode()).encode())
        if is_asked and len(seen) == len(watchers):
            print(json.dumps(list(seen.values())), flush=True)
            is_asked = False


if __name__ == "__main__":
    main()
