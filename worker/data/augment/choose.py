"""Chooses the views of a training by its data and the inputs of its network; checks that a teacher can read the same views."""

from collections.abc import Sequence
from typing import Any

import torch

from service.spec.augment import AugmentationSpec, TokenDropout
from worker.data.augment.augmentation import Augmentation
from worker.data.augment.epoch_views import EpochViews
from worker.data.augment.operation import Stored, Vocabulary
from worker.data.dataset import Data
from worker.data.disk.stored import StoredInputs
from worker.data.images.pixel_range import value_range
from worker.data.preprocessing import Preprocessing, RawInputs, first
from worker.data.split import is_images
from worker.data.tensors import only_tensor
from worker.data.text.tokenization import NO_TOKEN

_MOST_COMPARED = 1000
"""Samples on disk that two networks' stored forms are compared on."""


class UnfitAugmentation(ValueError):
    """The augmentations do not fit the inputs of the networks; the message says what to change."""


def epoch_views(
    augment: Sequence[AugmentationSpec], *, data: Data, preprocessing: Preprocessing, seed: int, count: int | None = None
) -> EpochViews:
    """Builds the views of the training split for a network behind ``preprocessing``.

    Raises:
        UnfitAugmentation: an operation changes inputs that the network does not read.
    """
    behind = [each for each in augment if each.modalities == ("log-mel",)]
    before = [each for each in augment if each not in behind]
    if behind and not preprocessing.reads_spectrograms:
        raise UnfitAugmentation(f"{behind[0].name} is for log-mel inputs, and this network reads others: leave it out")
    stored = _stored(data, preprocessing, augment)
    num_samples = len(data.splits["train"])
    of_stored = Augmentation(before, num_samples, stored)
    of_spectrograms = Augmentation(behind, num_samples, stored, first_stream=len(before))
    return EpochViews(of_stored, of_spectrograms, seed, count)


def check_same_views(views: EpochViews, inputs: RawInputs, *, student: Preprocessing, teacher: Preprocessing) -> None:
    """Checks that both networks read ``inputs``, of the training split, in the same stored form, so that they can share a view.

    Raises:
        UnfitAugmentation: they do not.
    """
    if student is teacher:
        return
    if isinstance(inputs, StoredInputs):
        inputs = inputs.evenly(_MOST_COMPARED).read()
    ours, theirs = only_tensor(student.prepare(inputs)), only_tensor(teacher.prepare(inputs))
    if not torch.equal(ours, theirs):
        what = "other tokens" if student.own_tokenizer is not None else "clips of another rate or length"
        raise UnfitAugmentation(
            f"student and teacher are to see the same view, and the teacher reads {what}: "
            "have the student read as its teacher does, or leave augment empty"
        )
    if views.of_spectrograms.specs:
        shapes = [tuple(only_tensor(reads(first(ours, 1))).shape) for reads in (student, teacher)]
        if not teacher.reads_spectrograms or shapes[0] != shapes[1]:
            raise UnfitAugmentation(
                f"{views.of_spectrograms.specs[0].name} is to hide the same from student and teacher, and they read inputs of "
                f"shape {shapes[0][1:]} and {shapes[1][1:]}: give the student its teacher's features, or leave it out"
            )


def _stored(data: Data, preprocessing: Preprocessing, augment: Sequence[AugmentationSpec]) -> Stored:
    inputs = data.splits["train"].inputs
    if preprocessing.own_tokenizer is not None:
        hides = any(isinstance(each, TokenDropout) and each.mode == "mask" for each in augment)
        return Stored(vocabulary=_vocabulary(preprocessing.own_tokenizer, hides=hides))
    if data.max_value is not None:
        whole = data.splits["train"].whole
        return Stored(value_range=(0.0, data.max_value), whole=whole, canvas=None if whole is None else whole.canvas)
    if is_images(inputs) and len(inputs):  # floating-point images of any range
        return Stored(value_range=value_range(inputs))
    return Stored()


def _vocabulary(tokenizer: Any, *, hides: bool) -> Vocabulary:
    mask = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.unk_token_id
    if mask is None and hides:
        raise UnfitAugmentation(
            "the tokenizer has neither a mask token nor an unknown one to stand for a hidden token: take the mode delete"
        )
    around = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
    return Vocabulary(
        pad=NO_TOKEN,
        mask=NO_TOKEN if mask is None else mask,
        special=tuple(sorted({each for each in around if each is not None})),
    )
