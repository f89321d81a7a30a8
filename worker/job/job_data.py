"""The data of a job, and the local files of what its spec names."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from service.spec import JobSpec, parse_spec
from service.spec.label_fit import learned_without_labels
from service.spec.source import split_source
from worker.data import Data, load_data
from worker.errors import JobFault
from worker.models import UnreadableNetwork
from worker.models.gguf_folder import plain_folder
from worker.protocol import Assignment
from worker.sources.cache import NetworkCache
from worker.sources.revisions import network_sources
from worker.tasks import TASKS

_CONVERTED = "converted"
"""The folder for converted networks of a training that has no host."""


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


@contextmanager
def plain_networks(assignment: Assignment) -> Iterator[Assignment]:
    """The assignment with every network in a plain folder, which stays until the block ends: one of llama.cpp is converted.

    Raises:
        JobFault: a network cannot be read.
    """
    cache = NetworkCache(assignment.network_cache or assignment.folder / _CONVERTED, max_bytes=assignment.network_cache_bytes)
    inputs = dict(assignment.inputs)
    with ExitStack() as held:
        for pointer, source in network_sources(parse_spec(assignment.spec)).items():
            if source in inputs and inputs[source].is_dir():
                try:
                    inputs[source] = held.enter_context(plain_folder(inputs[source], cache=cache))
                except UnreadableNetwork as error:
                    message = f"{source} cannot be loaded: {error}"
                    raise JobFault("input_unavailable", message, details={"pointer": pointer}) from error
        yield replace(assignment, inputs=inputs)


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
