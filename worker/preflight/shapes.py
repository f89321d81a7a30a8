"""Networks too large for the memory of a check: measured by their shapes, without a weight."""

import logging
from collections.abc import Callable, Sequence

from torch import nn

from worker.data.tensors import zeros_like
from worker.fake_tensors import with_fake_tensors
from worker.job.error_mapping import as_training_fault
from worker.job.roles import CONTROL, STUDENT, Role
from worker.models import UnfitArchitecture
from worker.models.adapters import num_merged_parameters
from worker.models.build_transformers import LIBRARY_ERRORS
from worker.preflight.findings import Findings
from worker.preflight.profile import size_of
from worker.preflight.sampling import STEP_SAMPLES
from worker.training.parameter_groups import freeze
from worker.training.trainable import check_trainable

logger = logging.getLogger(__name__)

_COPIES_OF_A_TRAINED_WEIGHT = 3
"""A gradient and two moments, beside the weight."""


def build_too_large(findings: Findings, roles: Sequence[Role], *, most_bytes: float) -> dict[Role, nn.Module] | None:
    """Builds networks of the job on the meta device; None if all of them fit into ``most_bytes``."""
    networks: dict[Role, nn.Module] = {}
    num_bytes = 0
    if all(findings.networks.architecture(role).name != "transformers" for role in roles):
        return None
    for role in roles:
        try:
            networks[role] = findings.networks.build_on_meta(role)
        except UnfitArchitecture:
            continue  # building it for real reports the error, unless the meta device is to blame
        num_bytes += size_of(networks[role])
        if role in findings.plan.trained:
            trained = sum(weight.nbytes for weight in networks[role].parameters() if weight.requires_grad)
            num_bytes += _COPIES_OF_A_TRAINED_WEIGHT * trained
    return networks if num_bytes > most_bytes else None


def measure_shapes(
    findings: Findings, networks: dict[Role, nn.Module], *, check: Callable[[nn.Module], None], check_stop: Callable[[], None]
) -> None:
    """Measures networks on the meta device, each on labels alone. ``check`` is called with those that the job trains.

    Raises:
        JobFault: a network cannot be trained as the spec says.
        StopAsked: raised by ``check_stop``.
    """
    findings.note("The networks are too large to be tried on a CPU: figures are those of their shapes, on labels alone.")
    job = findings.networks
    for role in job.specs.plan.given if findings.is_complete else ():
        findings.add_resident(role, job.load_pretrained(role))
    for role, network in networks.items():
        check_stop()
        findings.parameters[role] = num_merged_parameters(network)
        is_trained = role in findings.plan.trained
        if is_trained:
            check(network)
            with as_training_fault(str(role), job.specs.training_path(role)):
                check_trainable(job.build_on_meta(role), job.specs.training(role))
            freeze(network, job.specs.training(role).freeze)
        samples = job.samples(role, "train").inputs_from(0, STEP_SAMPLES)
        try:
            with with_fake_tensors(network):
                inputs = zeros_like(samples)
                if is_trained:
                    findings.add_shapes(role, network, inputs)
                if role != STUDENT:
                    findings.resident[role] = findings.measure_inference(network, inputs)
        except LIBRARY_ERRORS as error:
            logger.warning("The %s has no figures: it does not compute on shapes alone", role, exc_info=error)
            findings.note(f"The {role} has no figures: it does not compute on shapes alone.")
            findings.is_complete = False
    if findings.plan.has_control:
        findings.parameters[CONTROL] = findings.parameters[STUDENT]
