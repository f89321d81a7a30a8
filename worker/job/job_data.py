"""The data of a job, and the local files of what its spec names."""

from collections.abc import Mapping
from pathlib import Path

from service.spec import JobSpec
from service.spec.label_fit import learned_without_labels
from service.spec.source import split_source
from worker.data import Data, load_data
from worker.errors import JobFault
from worker.tasks import TASKS


def load_job_data(spec: JobSpec, inputs: Mapping[str, Path]) -> Data:
    """Loads the data of a job as they are; ``inputs`` are the local files of the spec's sources.

    Raises:
        JobFault: a file is gone.
        UnusableData: the job cannot be trained on them.
    """
    dataset = spec.dataset
    return load_data(
        dataset,
        _data_file(inputs, dataset.source),
        task=TASKS[spec.task],
        transfer=_data_file(inputs, dataset.transfer),
        without_labels=learned_without_labels(spec),
    )


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
