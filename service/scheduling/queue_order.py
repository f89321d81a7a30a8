"""The order in which the waiting jobs of a snapshot would start. No I/O but the reads of further jobs of a flow."""

import heapq
from collections import defaultdict
from collections.abc import Container, Iterator
from itertools import islice

from service.scheduling.hosts import Need
from service.scheduling.policy import Flow, Snapshot, Waiting


def queue_order(snapshot: Snapshot, most: int, *, starting: Container[str] = ()) -> Iterator[Waiting]:
    """Yields the first ``most`` waiting jobs in queue order, each start charged to its owner.

    A job that is not among ``starting`` is charged only against its owner's jobs that fit nowhere else than it does: the others
    may start before it.
    """
    queue_policy, count = snapshot.queue_policy, 0
    by_class: dict[int, list[Flow]] = {}
    needs: dict[str, set[Need]] = defaultdict(set)
    for flow in snapshot.flows.values():
        by_class.setdefault(flow.key[0], []).append(flow)
        needs[flow.owner_id].add(flow.need)
    charged: dict[tuple[str, Need], float] = defaultdict(float)

    def level(flow: Flow) -> float:
        share = snapshot.shares[flow.owner_id]
        return share.level + charged[flow.owner_id, flow.need] / share.weight

    for _, flows in sorted(by_class.items()):
        waiting = [(flow, _all_jobs(flow)) for flow in flows]
        heap = [(level(flow), job.sort_key, index, job) for index, (flow, jobs) in enumerate(waiting) for job in islice(jobs, 1)]
        heapq.heapify(heap)
        while heap:
            known, sort_key, index, job = heapq.heappop(heap)
            flow, jobs = waiting[index]
            if (risen := level(flow)) > known:
                heapq.heappush(heap, (risen, sort_key, index, job))
                continue
            yield job
            count += 1
            if count == most:
                return
            amount = queue_policy.entry_charge(job.need.gpus, job.need.cpu_slots)
            for need in needs[flow.owner_id]:
                if job.id in starting or job.need.fits_wherever(need):
                    charged[flow.owner_id, need] += amount
            following = next(jobs, None)
            if following is not None:
                heapq.heappush(heap, (level(flow), following.sort_key, index, following))


def _all_jobs(flow: Flow) -> Iterator[Waiting]:
    """Yields a flow's jobs in order, and reads further ones as they are needed."""
    index = 0
    while True:
        if index == len(flow.jobs):
            flow.extend(flow)
            if index == len(flow.jobs):
                return
        yield flow.jobs[index]
        index += 1
