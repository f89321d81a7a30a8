"""The loss of deep mutual learning: Zhang, Xiang, Hospedales, Lu, 2018, arXiv:1706.00384.

The other methods that change who teaches whom, ``born-again`` and ``teacher-assistant``, learn by the soft targets' loss.
"""

from service.spec.methods import DeepMutual
from worker.methods.batch import Loss
from worker.methods.context import LossContext
from worker.methods.multi_task import teacher_losses


def deep_mutual_loss(spec: DeepMutual, context: LossContext) -> Loss:
    """``KL(p_other ‖ p_own)`` of either network, summed over the targets; the other network is its teacher."""
    return lambda batch: teacher_losses(
        context.targets,
        batch.student.logits,
        batch.teacher_outputs.logits,
        divergence="kl",
        temperature=spec.temperature,
        weights=batch.row_weights,
    ).sum()
