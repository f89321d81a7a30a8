"""Augmentation of whole batches, on their own device. One module per modality; nothing loops over samples.

Every view of a sample is a function of (seed, epoch, sample): neither the batch nor the device nor an interruption changes it, so
a teacher can be given exactly the view that its student saw.
"""

from worker.data.augment.augmentation import MIX_OPERATIONS, OPERATIONS, Augmentation, Fetch, View
from worker.data.augment.epoch_views import EpochViews
from worker.data.augment.operation import Stored, Vocabulary

__all__ = [
    "MIX_OPERATIONS",
    "OPERATIONS",
    "Augmentation",
    "EpochViews",
    "Fetch",
    "Stored",
    "View",
    "Vocabulary",
]
