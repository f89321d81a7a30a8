"""Views of samples that are read when they are asked for, made here or by loader processes ahead of the training. B batch.

Invariant: a batch's view is a function of its samples, the epoch and the seed; who made it and when changes no bit of it. What is
announced is a hint: it costs or saves time alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from worker.data.augment import EpochViews, View
from worker.data.disk.loaders import Loaders, Made
from worker.data.disk.stored import StoredInputs
from worker.data.preprocessing import RawInputs
from worker.data.tensors import Inputs, only_tensor


@dataclass(frozen=True)
class ViewMaker:
    """Reads and augments samples; it can be sent to another process."""

    inputs: StoredInputs
    prepare: Callable[[RawInputs], Inputs]
    """A preprocessing's, which makes tensors (B, …) on the CPU."""
    views: EpochViews | None = None

    def __call__(self, indices: Tensor, epoch: int) -> Made:
        """The tensors of a :class:`View`."""
        view = self.view(indices, epoch)
        return [view.inputs, view.partners, view.shares]

    def view(self, indices: Tensor, epoch: int) -> View:
        """The samples at ``indices`` as an epoch sees them."""
        if self.views is None:
            return View(self._fetch(indices))
        return self.views.stored(self._fetch, indices, epoch=epoch)

    def _fetch(self, indices: Tensor) -> Tensor:
        return only_tensor(self.prepare(self.inputs.read(indices.numpy())))


class ViewsAhead:
    """The views of one split, of which those that were announced are made ahead."""

    def __init__(self, maker: ViewMaker) -> None:
        self.maker = maker
        self._loaders = Loaders.of_process(maker.inputs.reading.num_loaders)

    def announce(self, batches: Sequence[Tensor], epoch: int, *, beside: Sequence["ViewsAhead"] = ()) -> None:
        """Says which batches are asked for next, in their order, each of these views and then of those ``beside``."""
        if self._loaders is not None:
            makers = [self.maker, *(other.maker for other in beside)]
            self._loaders.announce((maker, indices.cpu(), epoch) for indices in batches for maker in makers)

    def __call__(self, indices: Tensor, epoch: int) -> View:
        made = None if self._loaders is None else self._loaders.take(self.maker, indices, epoch)
        if made is None or made[0] is None:
            return self.maker.view(indices, epoch)
        return View(made[0], made[1], made[2])
