"""Becomes another program that ends with its parent: ``python -I -S tether.py SIGNAL PARENT USER PROGRAM ARGUMENT…``.

Runs as a script and imports nothing of the project. Linux sends SIGNAL when the parent is gone, however it went. USER is a name
to run as, or empty; changing it clears the parent-death signal, so it comes first. Elsewhere than on Linux it is a plain exec.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Changes the user, ties this process to its parent, becomes PROGRAM."""
    death_signal, parent, user, *command = sys.argv[1:]
    if user:
        import pwd

        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != int(parent):  # it died before the line above
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606


main()
