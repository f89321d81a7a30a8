"""A long run: ``python -m tests.faults --seed 7 --faults 300 --jobs 150``. Exits with 1 if anything is not as promised."""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.clocks import faketime_library
from tests.faults.faults import FAULTS
from tests.faults.run import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Makes faults under jobs, and checks them.")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="what draws the faults; printed")
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=150)
    parser.add_argument("--only", default="", help="make only the faults whose names contain this")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.only in fault.name] or parser.error(f"no fault is named {options.only!r}")
    faketime = shutil.which("faketime")
    if faketime is None and os.environ.get("CI") == "true":
        sys.exit("faketime is not installed (apt-get install faketime)")
    library = faketime_library(faketime) if faketime else None
    plan = Plan(options.seed, options.faults, options.jobs, faults=faults, faketime=library)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # in order: disks are unmounted
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="stillhouse-faults-"))
    outcome = run(plan, folder, lambda text: print(text, flush=True))
    for broken in outcome.broken:
        print(f"NOT AS PROMISED  {broken}")
    ended = ", ".join(f"{number} {status}" for status, number in sorted(outcome.statuses.items()))
    print(
        f"seed {plan.seed}: {len(outcome.made)} faults, jobs {ended}, {outcome.attempts} attempts, "
        f"{len(outcome.broken)} promises broken, {time.monotonic() - began:.0f} s"
    )
    if outcome.broken:
        print(f"the logs are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
