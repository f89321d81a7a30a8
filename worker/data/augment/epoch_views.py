"""The views of the samples in each epoch of one training. B batch.

Invariant: a view depends on the training's seed, the epoch and the sample alone. Operations on stored inputs run once for student
and teacher; operations on spectrograms run on each network's own, with the same draws.
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
    """Number of views of each sample, through which the epochs cycle; None: a new view in each epoch."""

    def stored(self, fetch: Fetch, indices: Tensor, *, epoch: int) -> View:
        """Computes the view of the samples at ``indices`` (B,) of the training split, before any network's preprocessing."""
        return self.of_stored(fetch, indices, seed=self.seed, epoch=self.view(epoch))

    def read(self, inputs: Tensor, indices: Tensor, *, epoch: int) -> Tensor:
        """Augments preprocessed ``inputs`` (B, …) of the samples at ``indices``; only spectrograms have operations here."""
        if not self.of_spectrograms.specs:
            return inputs
        spectrograms = inputs.squeeze(1)
        view = self.of_spectrograms(lambda _: spectrograms, indices, seed=self.seed, epoch=self.view(epoch))
        return view.inputs.unsqueeze(1)

    def view(self, epoch: int) -> int:
        """Index of the view that an epoch sees."""
        return epoch if self.count is None else epoch % self.count

    def told(self, epoch: int) -> str:
        """Text of all that an epoch's view depends on beside the samples, for the key of cached teacher outputs."""
        return repr((self.of_stored, self.of_spectrograms, self.seed, self.view(epoch)))
