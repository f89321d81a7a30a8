"""A program that ends with its parent: ``python -I -S parent_death.py SIGNAL PARENT USER PROGRAM ARGUMENT…`` executes PROGRAM.

This runs as a script and imports nothing of the project. Linux sends SIGNAL once the process PARENT has ended, for whatever
reason (prctl, PR_SET_PDEATHSIG). USER is the name of the user to run as, or empty. On other systems it is a plain exec.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def exec_with_parent_death_signal() -> None:
    """Changes the user, requests the parent-death signal, executes PROGRAM."""
    death_signal, parent, user, *command = sys.argv[1:]
    if user:  # before prctl, because changing the user clears the parent-death signal
        import pwd

        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != int(parent):  # it ended before the call above
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606


exec_with_parent_death_signal()
