"""Samples of the test split that the report shows: where student and teacher differ most, and what language models write."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from service.spec.cards.samples import Disagreement, Generation
from worker.data import Data
from worker.report.shown_sample import shown_sample
from worker.tasks import TASKS
from worker.teachers.ensemble import Teachers
from worker.trained import TrainedNetwork


def disagreements(data: Data, teachers: Teachers, *, teacher: Tensor, student: Tensor) -> Iterator[Disagreement]:
    """The samples of the test split on which outputs of student and teacher differ most."""
    split = data.splits["test"]
    for each in TASKS[data.task].disagreements(teacher, student, split.labels, data.targets, only=teachers.teaches):
        shown, said = shown_sample(split, each.sample, data, word=each.word), each.said
        yield Disagreement(
            place=split.place(each.sample),
            target=said.target,
            label=said.label,
            teacher=said.teacher,
            student=said.student,
            distance=said.distance,
            text=shown.text,
            picture=shown.picture,
        )


def generations(data: Data, networks: Mapping[str, TrainedNetwork], *, count: int) -> Iterator[Generation]:
    """What each network writes for prompts of the test split, evenly spaced; of networks that write nothing none."""
    split, task = data.splits["test"], TASKS[data.task]
    places = np.unique(np.linspace(0, len(split) - 1, num=min(count, len(split))).round().astype(np.int64))
    if not len(places):
        return
    some = split.at(torch.from_numpy(places))
    written = {
        role: task.written(network.network, network.preprocessing, some, device=network.device)
        for role, network in networks.items()
    }
    if any(len(each) != len(places) for each in written.values()):
        return  # nothing is written, or a text makes no row of its own
    for place, *each in zip(places.tolist(), *written.values(), strict=True):
        ours = dict(zip(written, each, strict=True))
        student = ours["student"]
        yield Generation(
            place=split.place(place),
            prompt=student.prompt,
            reference=student.reference,
            written={role: one.written for role, one in ours.items()},
        )
