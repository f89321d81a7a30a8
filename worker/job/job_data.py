"""The data of a job, and the local files of what its spec names."""

import os
from collections.abc import Mapping
from pathlib import Path

from service.spec import JobSpec
from service.spec.image_augment import RandomResizedCrop
from service.spec.label_fit import learned_without_labels
from service.spec.source import split_source
from worker.data import Data, load_data
from worker.data.disk.stored import Reading
from worker.data.errors import NoCanvas
from worker.data.images.canvas_choice import read_geometry
from worker.errors import JobFault
from worker.protocol import Assignment
from worker.sources.revisions import network_sources
from worker.tasks import TASKS

_MOST_LOADERS = 8


def load_job_data(spec: JobSpec, inputs: Mapping[str, Path], *, reading: Reading | None = None) -> Data:
    """Loads the data of a job as they are; ``inputs`` are the local files or folders of the spec's sources.

    ``reading`` says how samples are read that stay on disk; without it all are read into memory.

    Raises:
        JobFault: a file is gone, or nothing says the size that images of several are fitted to.
        UnusableData: the job cannot be trained on them.
    """
    dataset = spec.dataset
    geometries = {
        pointer.split("/")[1]: read_geometry(inputs[source])
        for pointer, source in network_sources(spec).items()
        if source in inputs and inputs[source].is_dir()
    }
    trainings = [spec.training, *(teacher.training for teacher in spec.teachers.values() if teacher.training is not None)]
    try:
        return load_data(
            dataset,
            _data_file(inputs, dataset.source),
            task=TASKS[spec.task],
            transfer=_data_file(inputs, dataset.transfer),
            without_labels=learned_without_labels(spec),
            given={role: found for role, found in geometries.items() if found is not None},
            reading=reading,
            takes_windows=any(isinstance(each, RandomResizedCrop) for training in trainings for each in training.augment),
        )
    except NoCanvas as error:
        raise JobFault("invalid_spec", f"{dataset.source}: {error}", details={"pointer": "/dataset/image"}) from error


def reading_of(assignment: Assignment) -> Reading:
    """How a trainer reads samples that stay on disk."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    usual = min(_MOST_LOADERS, max(0, cores // len(assignment.devices) - 1))
    return Reading(assignment.folder, usual if assignment.num_loaders is None else assignment.num_loaders)


def _data_file(inputs: Mapping[str, Path], source: str | None) -> Path | None:
    """The local file of a source of data; None for none and for a builtin one."""
    if source is None or split_source(source).kind == "builtin":
        return None
    return local_input(inputs, source)


def local_input(inputs: Mapping[str, Path], source: str) -> Path:
    """The local file or folder of a source. Raises JobFault if there is none."""
    path = inputs.get(source)
    if path is None or not path.exists():
        raise JobFault("input_unavailable", f"{source} is not there.", hint="It was deleted, or the worker could not fetch it.")
    return path
