"""From an exception to a job's failure: its code, message, hint, and whether another attempt may succeed."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from service.error_numbers import is_machines_number
from service.errors import InvalidSpec
from worker.data import UnusableData
from worker.data.augment.choose import UnfitAugmentation
from worker.data.errors import UnreadableTokenizer
from worker.distributed.out_of_memory import is_out_of_memory
from worker.durable import os_error_numbers
from worker.errors import JobFault, UnfitTraining
from worker.export.onnx import UnexportableNetwork
from worker.methods import UnfitLayers, UnknownLayer
from worker.models import UnfitArchitecture, UnreadableNetwork
from worker.protocol import Failed

logger = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def as_spec_error(pointer: str) -> Iterator[None]:
    """Turns errors of networks, layers and augmentation that do not fit into a JobFault at ``pointer`` of the spec."""
    try:
        yield
    except UnexportableNetwork as error:
        message = f"The student cannot be exported as the spec asks: {error}"
        raise JobFault("invalid_spec", message, details={"pointer": pointer}) from error
    except (UnknownLayer, UnfitLayers, UnfitAugmentation) as error:
        what = "augmentation" if isinstance(error, UnfitAugmentation) else "method"
        raise JobFault("invalid_spec", f"The {what} does not fit the networks: {error}", details={"pointer": pointer}) from error


@contextmanager
def as_training_fault(role: str, pointer: str) -> Iterator[None]:
    """Turns UnfitTraining of a network into a JobFault; ``pointer`` is that of its training in the spec."""
    try:
        yield
    except UnfitTraining as error:
        message = f"The {role} cannot be trained as the spec says: {error}."
        raise JobFault("invalid_spec", message, hint=error.hint, details={"pointer": f"{pointer}/{error.field}"}) from error


def as_failure(error: Exception) -> Failed:
    """The last event of an attempt that this exception ended."""
    match error:
        case JobFault():
            return Failed(error.code, error.message, error.hint, error.details, error.retryable)
        case InvalidSpec():
            return Failed("invalid_spec", error.detail, details={"errors": [fault.model_dump() for fault in error.faults]})
        case UnfitArchitecture():
            return Failed("invalid_spec", str(error))
    if (number := _machines_number(error)) is not None:
        logger.error("The trainer ended with an exception.", exc_info=error)
        return Failed(
            "artifacts_unavailable",
            f"{'The disk of this host is full' if number in _FULL else 'This host fails'}: {error}",
            hint="Free some space where the worker keeps its files, or mend what the message names, then submit the job again.",
            retryable=True,
        )
    match error:
        case UnusableData():
            return Failed("invalid_data", str(error))
        case UnreadableTokenizer():
            return Failed("input_unavailable", f"The teacher cannot be loaded: {error}")
        case UnreadableNetwork():
            hint = "Load it with from_pretrained where it was made, save it again with save_pretrained, and upload that folder."
            return Failed("input_unavailable", f"The teacher cannot be loaded: {error}", hint)
    logger.error("The trainer ended with an exception.", exc_info=error)
    if is_out_of_memory(error):
        return Failed(
            "out_of_memory",
            f"Memory ran out: {_first_line(error)}",
            hint="Set training.micro_batch to auto, or lower training.batch_size and raise gradient_accumulation by the same "
            "factor, or ask for a larger GPU.",
            retryable=True,
        )
    return Failed(
        "trainer_error", f"{type(error).__name__}: {_first_line(error)}", hint="The log has the traceback.", retryable=True
    )


def _machines_number(error: Exception) -> int | None:
    """The operating system's number of an error that is the machine's; None of any other error, however it was told."""
    return next(filter(is_machines_number, os_error_numbers(error)), None)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:500]
