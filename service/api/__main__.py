"""``python -m service.api --host 0.0.0.0 --port 8000``: one API process."""

import argparse

from service.api.server import serve

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m service.api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    serve(arguments.host, arguments.port)
