"""What each epoch of one training sees of its samples. B batch.

Invariant: a view depends on the training's seed, the epoch and the sample alone. All that acts on stored inputs is done once for
student and teacher; what acts on spectrograms is done by the same numbers to each network's own.
"""

from dataclasses import dataclass

from torch import Tensor

from worker.data.augment.augmentation import Augmentation, Fetch, View


@dataclass(frozen=True)
class EpochViews:
    """The augmentation of one training."""

    of_stored: Augmentation
    of_spectrograms: Augmentation
    seed: int
    count: int | None = None
    """How many views of each sample there are, which the epochs go through again and again; None: another in each epoch."""

    def stored(self, fetch: Fetch, indices: Tensor, *, epoch: int) -> View:
        """The samples at ``indices`` (B,) of the training split as the epoch sees them, before any network's preprocessing."""
        return self.of_stored(fetch, indices, seed=self.seed, epoch=self.view(epoch))

    def read(self, inputs: Tensor, indices: Tensor, *, epoch: int) -> Tensor:
        """What a network reads of them (B, …), from what its preprocessing made of them."""
        if not self.of_spectrograms.specs:
            return inputs
        spectrograms = inputs.squeeze(1)
        view = self.of_spectrograms(lambda _: spectrograms, indices, seed=self.seed, epoch=self.view(epoch))
        return view.inputs.unsqueeze(1)

    def view(self, epoch: int) -> int:
        """The number of the view that an epoch sees."""
        return epoch if self.count is None else epoch % self.count

    def told(self, epoch: int) -> str:
        """All that an epoch's view depends on, beside the samples themselves."""
        return repr((self.of_stored, self.of_spectrograms, self.seed, self.view(epoch)))
