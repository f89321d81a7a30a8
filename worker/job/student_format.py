"""The number format of a student while it is trained, and what does not go into it."""

from torch import nn

from service.spec.job import StudentSpec
from worker.distributed.sync_batch_norm import batch_norms
from worker.errors import JobFault
from worker.models.loading import DTYPES, compute_in
from worker.targets import Targets


def in_student_format(network: nn.Module, spec: StudentSpec, targets: Targets) -> nn.Module:
    """Puts a student into the format of its weights, and returns it; one in float32 is as it was.

    Raises:
        JobFault: bf16 is too coarse for it.
    """
    if spec.weights == "fp32":
        return network
    reason = None
    if batch_norms(network):
        reason = "its batch norms' running statistics change by less than bf16 can hold"
    elif targets.units is not None:
        reason = "it predicts numbers in the data's units, of which bf16 holds two digits"
    if reason is not None:
        raise JobFault(
            "invalid_spec",
            f"The student cannot be trained with weights in {spec.weights}: {reason}.",
            hint="Set student.weights to fp32; with precision bf16 it computes in bf16 all the same.",
            details={"pointer": "/student/weights"},
        )
    return compute_in(network, DTYPES[spec.weights])
