"""``python -m worker``."""

from worker.host.worker import main

if __name__ == "__main__":
    main()
