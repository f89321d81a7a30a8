"""Is the queue fair, and what does that cost? ``python -m benchmarks.queue_policy``

A week of a made-up team of 20 (light users, users who post many jobs at once, users of whole hosts; 1 to 8 GPUs, three
priorities) is replayed through the service's own claim, sweep and preemption on PostgreSQL, on a simulated cluster. Beside it the
same week in the order of arrival, and in the order of priority and arrival: both through the same claim, so packing, reservations
and short jobs that pass are the same, and only the order differs.

``light``: waits of the light users' jobs, median and 90th percentile. ``share off``: how much of the week's GPU-seconds went to
others than by weight (what a user cannot use for want of jobs is the others'), 0 to 1. ``use``: of all GPU-seconds of the week,
those that were held. ``over a day``: jobs that waited longer, and of them those of low priority and of 8 GPUs. ``8 GPUs``: the
waits of the largest jobs. Below, each user's waits and what each got.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from sqlalchemy import text

from benchmarks.made_up_team import DAY, HOUR, Person, Posted, posts, team
from benchmarks.simulated_cluster import EVERYBODY, Cluster, Run, by_priority, first_in_first_out
from service.database import Database, upgrade
from service.embedded.servers import postgres
from service.queue_policy import QueuePolicy

HOSTS = (8, 8, 8, 8, 4, 4)


def fair_shares(people: Sequence[Person], demand: dict[str, float], total: float) -> dict[str, float]:
    """GPU-seconds by user: by weight, and what one cannot use goes to the others by weight."""
    fair, open_ = dict.fromkeys((p.name for p in people), 0.0), {p.name: p.weight for p in people}
    left = min(total, sum(demand.values()))
    while open_ and left > 1e-6:
        unit = left / sum(open_.values())
        sated = [name for name, weight in open_.items() if demand.get(name, 0.0) - fair[name] <= unit * weight]
        for name in sated or list(open_):
            gain = min(demand.get(name, 0.0) - fair[name], unit * open_[name])
            fair[name] += gain
            left -= gain
            if name in sated:
                del open_[name]
        if not sated:
            break
    return fair


def used(runs: Sequence[Run], until: float) -> dict[str, float]:
    """GPU-seconds by user that were held before a time."""
    found: dict[str, float] = {}
    for run in runs:
        seconds = sum(max(0.0, min(end, until) - start) for start, end in run.spans)
        found[run.posted.person.name] = found.get(run.posted.person.name, 0.0) + seconds * run.posted.gpus
    return found


def share_off(runs: Sequence[Run], people: Sequence[Person], until: float) -> float:
    """The part of all that was used which went to others than would be fair."""
    got = used(runs, until)
    demand: dict[str, float] = {}
    for run in runs:
        demand[run.posted.person.name] = demand.get(run.posted.person.name, 0.0) + run.posted.gpus * run.posted.seconds
    total = sum(got.values())
    fair = fair_shares(people, demand, total)
    return sum(abs(got.get(p.name, 0.0) - fair[p.name]) for p in people) / 2 / total


def waits(runs: Sequence[Run], *, kind: str | None = None, gpus: int | None = None) -> list[float]:
    """Sorted, in seconds."""
    return sorted(run.wait for run in runs if kind in (None, run.posted.person.kind) and gpus in (None, run.posted.gpus))


def line(name: str, runs: Sequence[Run], people: Sequence[Person], days: float, preemptions: int) -> str:
    light, large = waits(runs, kind="light"), waits(runs, gpus=8)
    until = days * DAY
    capacity = sum(HOSTS) * until
    over = [run for run in runs if run.wait > DAY]
    of_low, of_large = sum(run.posted.priority == "low" for run in over), sum(run.posted.gpus == 8 for run in over)
    longest = max(run.wait for run in runs)
    return (
        f"{name:26}{_hours(light, 0.5):>7}{_hours(light, 0.9):>7}{_hours(waits(runs, kind='bursty'), 0.5):>9}"
        f"{_hours(waits(runs, kind='heavy'), 0.5):>8}{share_off(runs, people, until):>11.2f}"
        f"{100 * sum(used(runs, until).values()) / capacity:>7.1f}%{len(over):>9} ({of_low:>3},{of_large:>3})"
        f"{_hours(large, 0.5):>9}{_hours(large, 0.9):>7}{longest / HOUR:>9.1f}{preemptions:>7}"
    )


HEAD = (
    f"{'hours':26}{'light':>7}{'p90':>7}{'bursty':>9}{'heavy':>8}{'share off':>11}{'use':>8}{'over a day':>19}"
    f"{'8 GPUs':>9}{'p90':>7}{'longest':>9}{'preem':>7}"
)


def by_user(by_order: dict[str, list[Run]], people: Sequence[Person], until: float) -> list[str]:
    """For each user and order: the median wait, that of nine in ten jobs, both in hours, and the GPU-hours that were got."""
    lines = ["", f"{'median, p90, GPU-hours':26}{'weight':>7}" + "".join(f"{name:>26}" for name in by_order)]
    for person in people:
        cells = []
        for runs in by_order.values():
            own = waits([run for run in runs if run.posted.person.name == person.name])
            got = used(runs, until).get(person.name, 0.0) / HOUR
            cells.append(f"{_hours(own, 0.5):>12}{_hours(own, 0.9):>7}{got:>7.0f}")
        lines.append(f"{f'{person.name}, {person.kind}':26}{person.weight:>7g}" + "".join(cells))
    return lines


def replay(
    server: str, name: str, posted: Sequence[Posted], people: Sequence[Person], policy: QueuePolicy
) -> tuple[list[Run], int]:
    """In a database of its own."""
    with _database(server, name) as url:
        cluster = Cluster(url, HOSTS, [*people, EVERYBODY], queue_policy=policy)
        with closing(cluster.database):
            runs = cluster.replay(posted)
    return runs, cluster.preemptions


@contextmanager
def _database(server: str, name: str) -> Iterator[str]:
    with closing(Database(server)) as admin, admin.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(f"CREATE DATABASE {name}"))
        url = server.replace("/postgres?", f"/{name}?")
        upgrade(url)
        yield url
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def owners(runs: Sequence[Run], posted: Sequence[Posted]) -> list[Run]:
    """Runs of jobs that everybody posted, as those of whoever posted them."""
    by_number = {post.number: post for post in posted}
    return [replace(run, posted=by_number[run.posted.number]) for run in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--load", type=float, default=0.85, help="what is posted, as a part of what the GPUs could do")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--try-rules", action="store_true", help="also with other settings of the queue")
    options = parser.parse_args()
    people = team()
    variants = {"fair share": QueuePolicy()}
    if options.try_rules:
        variants |= {
            "promote after 3 days": QueuePolicy(promote_after_seconds=3 * DAY),
            "promote after 12 hours": QueuePolicy(promote_after_seconds=DAY / 2),
            "keep a host after 2 hours": QueuePolicy(reserve_after_seconds=2 * HOUR),
            "half-life of a day": QueuePolicy(usage_half_life_seconds=DAY),
        }
    with tempfile.TemporaryDirectory(prefix="stillhouse-policy-") as folder, postgres(Path(folder)) as server:
        with closing(Database(server.url)) as admin, admin.engine.connect() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT")
            alone.execute(text("ALTER SYSTEM SET synchronous_commit = off"))
            alone.execute(text("SELECT pg_reload_conf()"))
        for seed in range(options.seeds):
            posted = posts(people, days=options.days, gpus=sum(HOSTS), load=options.load, seed=seed)
            large = sum(post.gpus == 8 for post in posted)
            print(f"\nseed {seed}: {len(posted)} jobs in {options.days:g} days, {large} of 8 GPUs, load {options.load:g}\n{HEAD}")
            by_order: dict[str, list[Run]] = {}
            for number, (name, policy) in enumerate(variants.items()):
                runs, preemptions = replay(server.url, f"fair_{seed}_{number}", posted, people, policy)
                print(line(name, runs, people, options.days, preemptions), flush=True)
                by_order[name] = runs
            for name, order in (("first in, first out", first_in_first_out), ("priority, then age", by_priority)):
                runs, preemptions = replay(server.url, f"{order.__name__}_{seed}", order(posted), people, QueuePolicy())
                by_order[name] = owners(runs, posted)
                print(line(name, by_order[name], people, options.days, preemptions), flush=True)
            print("\n".join(by_user(by_order, people, options.days * DAY)))


def _hours(sorted_seconds: Sequence[float], part: float) -> str:
    if not sorted_seconds:
        return "-"
    if part == 0.5:
        return f"{statistics.median(sorted_seconds) / HOUR:.1f}"
    return f"{sorted_seconds[min(len(sorted_seconds) - 1, int(len(sorted_seconds) * part))] / HOUR:.1f}"


if __name__ == "__main__":
    main()
