"""``python -m worker``."""

import sys

from service.imports import not_collected
from worker.host.fork_server import start_fork_server

if __name__ == "__main__":
    if not {"-h", "--help"}.intersection(sys.argv):
        start_fork_server()  # it imports for seconds, this process meanwhile what it needs itself
    with not_collected():
        from worker.host.worker import main

    main()
