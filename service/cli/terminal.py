"""The two consoles: results on standard output, everything said beside them on standard error."""

import sys

from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 160
"""Of tables in a file or a pipe, where rich would break them at 80 columns."""

out = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
err = Console(stderr=True, width=None if sys.stderr.isatty() else _WIDTH_WITHOUT_TERMINAL)
