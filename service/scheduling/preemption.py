"""Whom to stop for jobs of high priority, and which host to keep for each: the rules, on the picture of ``policy``. No I/O."""

from collections import Counter
from collections.abc import Mapping

from service.lifecycle import Priority
from service.scheduling.hosts import Holder, Host, Need
from service.scheduling.policy import Pool, Reservation, Waiting


def rooms(pool: Pool, most: int) -> list[tuple[Reservation, list[Holder]]]:
    """For the first ``most`` jobs of high priority that have no devices: the host to keep for each, and whom to stop there.

    Those that this changes nothing for count, and are left out.
    """
    ahead = pool.thought_ahead()
    # What fits somewhere starts there, and takes the place of those that come after it.
    for host in ahead.find_hosts():
        while (placement := ahead.next_for(host)) is not None:
            ahead.start(placement)
    lanes = (lane for lane in ahead.lanes.values() if lane.key[0] == Priority.HIGH and lane.head.priority == Priority.HIGH)
    urgent = (job for lane in lanes for job in lane.window() if job.priority == Priority.HIGH)
    found: list[tuple[Reservation, list[Holder]]] = []
    hopeless: set[Need] = set()
    made: Counter[str] = Counter()
    for job in sorted(urgent, key=ahead.standing):
        share = ahead.shares[job.owner_id]
        if share.max_running is not None and share.running + made[job.owner_id] >= share.max_running:
            continue
        room = None if job.need in hopeless else _room_for(ahead, job)
        if room is None:
            hopeless.add(job.need)
            continue
        host, victims = room
        before, kept = ahead.reservation_of(job), Reservation(job, host.worker_id)
        ahead.reservations = [each for each in ahead.reservations if each is not before] + [kept]
        for victim in victims:
            host.release(victim.job_id)
        if victims or before is None or before.worker_id != host.worker_id:
            found.append((kept, victims))
        made[job.owner_id] += 1
        if made.total() == most:
            break
    return found


def _room_for(pool: Pool, job: Waiting) -> tuple[Host, list[Holder]] | None:
    """Where a job has its devices by stopping the fewest jobs, and of those the youngest; and whom.

    Nobody: the devices are coming free there already. None: it fits somewhere now, or stopping helps nowhere.
    """
    hosts = pool.hosts_for(job.need)
    if any((devices := host.pick(job.need)) and pool.hindrance(host, job, devices) is None for host in hosts):
        return None
    options = [(host, victims) for host in hosts if (victims := _victims(pool, host, job)) is not None]
    if not options:
        return None
    return min(options, key=lambda option: (len(option[1]), -sum(v.started_at.timestamp() for v in option[1])))


def _victims(pool: Pool, host: Host, job: Waiting) -> list[Holder] | None:
    """Whom to stop on this host; None where that does not help, or would be for others who stand before the job there."""
    need, suitable = job.need, {device.name for device in host.suitable(job.need)}
    before = [
        kept.job.need
        for kept in pool.reservations
        if kept.worker_id == host.worker_id
        and kept.job.id != job.id
        and kept.job.need.kind == need.kind
        and not pool.shares[kept.job.owner_id].is_full
        and pool.standing(kept.job) < pool.standing(job)
    ]
    if any({device.name for device in host.suitable(other)} != suitable for other in before):
        return None
    holders = {holder.job_id: holder for name, holder in host.held.items() if name in suitable}
    sizes = Counter(holder.job_id for name, holder in host.held.items() if name in suitable)
    missing = need.count + sum(other.count for other in before) - host.num_free(need)
    missing -= sum(sizes[holder.job_id] for holder in holders.values() if holder.stopping)
    return _fewest([holder for holder in holders.values() if holder.may_be_preempted and not holder.stopping], sizes, missing)


def _fewest(candidates: list[Holder], sizes: Mapping[str, int], missing: int) -> list[Holder] | None:
    """As few jobs as hold so many devices together, and of those sets the youngest; None where all are too few."""
    most = sorted((sizes[holder.job_id] for holder in candidates), reverse=True)
    number = next((count for count in range(len(most) + 1) if sum(most[:count]) >= missing), None)
    if number is None:
        return None
    chosen: list[Holder] = []
    youngest_first = sorted(candidates, key=lambda holder: (holder.started_at, holder.job_id), reverse=True)
    for index, holder in enumerate(youngest_first):
        others = sorted((sizes[other.job_id] for other in youngest_first[index + 1 :]), reverse=True)
        left = number - len(chosen) - 1
        if left >= 0 and sizes[holder.job_id] + sum(others[:left]) >= missing:
            chosen.append(holder)
            missing -= sizes[holder.job_id]
    return chosen
