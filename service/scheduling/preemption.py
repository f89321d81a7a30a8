"""The preemption policy: which jobs to stop for jobs of high priority, and which host to reserve for each. No I/O."""

from collections import Counter
from collections.abc import Mapping

from service.lifecycle import Priority
from service.scheduling.hosts import Holder, Host, Need
from service.scheduling.policy import Reservation, Snapshot, Waiting


def preemptions(snapshot: Snapshot, most: int) -> list[tuple[Reservation, list[Holder]]]:
    """For the first ``most`` jobs of high priority without devices: a reservation for each, and the jobs to stop there.

    Jobs for which nothing changes count, and are left out.
    """
    simulated = snapshot.copy()
    # A job that fits somewhere starts there, on devices that those after it cannot have.
    for host in simulated.find_hosts():
        while (placement := simulated.next_for(host)) is not None:
            simulated.start(placement)
    flows = (flow for flow in simulated.flows.values() if flow.key[0] == Priority.HIGH and flow.head.priority == Priority.HIGH)
    urgent = (job for flow in flows for job in flow.window() if job.priority == Priority.HIGH)
    found: list[tuple[Reservation, list[Holder]]] = []
    hopeless: set[Need] = set()
    made: Counter[str] = Counter()
    for job in sorted(urgent, key=simulated.sort_key):
        share = simulated.shares[job.owner_id]
        if share.max_running is not None and share.running + made[job.owner_id] >= share.max_running:
            continue
        room = None if job.need in hopeless else _preemption_for(simulated, job)
        if room is None:
            hopeless.add(job.need)
            continue
        host, victims = room
        before, reservation = simulated.reservation_of(job), Reservation(job, host.worker_id)
        simulated.reservations = [each for each in simulated.reservations if each is not before] + [reservation]
        for victim in victims:
            host.release(victim.job_id)
        if victims or before is None or before.worker_id != host.worker_id:
            found.append((reservation, victims))
        made[job.owner_id] += 1
        if made.total() == most:
            break
    return found


def _preemption_for(snapshot: Snapshot, job: Waiting) -> tuple[Host, list[Holder]] | None:
    """The host where stopping the fewest jobs, and of those the youngest, gives a job its devices; and these jobs.

    No jobs if the devices are coming free there already. None if it fits somewhere now, or if stopping helps on no host.
    """
    hosts = snapshot.hosts_for(job.need)
    if any((devices := host.pick(job.need)) and snapshot.blocking_reservation(host, job, devices) is None for host in hosts):
        return None
    options = [(host, victims) for host in hosts if (victims := _victims(snapshot, host, job)) is not None]
    if not options:
        return None
    return min(options, key=lambda option: (len(option[1]), -sum(v.started_at.timestamp() for v in option[1])))


def _victims(snapshot: Snapshot, host: Host, job: Waiting) -> list[Holder] | None:
    """The jobs to stop on this host; None if that does not help, or would help others that come before the job there."""
    need, suitable = job.need, {device.name for device in host.suitable(job.need)}
    before = [
        reservation.job.need
        for reservation in snapshot.reservations
        if reservation.worker_id == host.worker_id
        and reservation.job.id != job.id
        and reservation.job.need.kind == need.kind
        and not snapshot.shares[reservation.job.owner_id].is_full
        and snapshot.sort_key(reservation.job) < snapshot.sort_key(job)
    ]
    if any({device.name for device in host.suitable(other)} != suitable for other in before):
        return None
    holders = {holder.job_id: holder for name, holder in host.held.items() if name in suitable}
    sizes = Counter(holder.job_id for name, holder in host.held.items() if name in suitable)
    missing = need.count + sum(other.count for other in before) - host.num_free(need)
    missing -= sum(sizes[holder.job_id] for holder in holders.values() if holder.stopping)
    return _fewest([holder for holder in holders.values() if holder.may_be_preempted and not holder.stopping], sizes, missing)


def _fewest(candidates: list[Holder], sizes: Mapping[str, int], missing: int) -> list[Holder] | None:
    """The fewest jobs that hold ``missing`` devices together, and of those sets the youngest; None if all hold too few."""
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
