"""The two consoles: results go to standard output, everything else to standard error.

Only tables are fitted to the terminal: a command to copy is never broken into lines, nor is an address or an id.
"""

import sys

from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 160
"""The width of tables in a file or a pipe, where rich would wrap them at 80 columns."""

out = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False, soft_wrap=True)
err = Console(stderr=True, width=None if sys.stderr.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False, soft_wrap=True)
