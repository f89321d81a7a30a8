"""The ``stillhouse`` command. ``service.cli.failure`` lists its exit codes."""

import sys

from service.imports import not_collected

with not_collected():
    from service.cli import comparison, deployment, embedded, jobs, library, queue, team, training
    from service.cli.application import app
    from service.cli.failure import Expected, explain
    from service.cli.terminal import err

__all__ = ["app", "main"]

for module in (jobs, comparison, queue, library, training, embedded, team, deployment):
    module.register(app)


def main() -> None:
    """Runs the command line."""
    try:
        app()
    except Expected as error:
        sys.exit(explain(error, err))
