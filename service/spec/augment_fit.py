"""Checks whether augmentations fit a task, its inputs and its networks: every fault at once, each at its place. No torch."""

from collections.abc import Iterator, Mapping, Sequence

from service.errors import FieldError
from service.spec.augment import AUGMENTATIONS, AugmentationSpec, SpecAugment, TokenDropout
from service.spec.image_augment import Crop, Cutout, RandomResizedCrop
from service.spec.inputs import Features, LogMelFeatures, TokenizerSpec
from service.spec.tasks import TASKS, TaskName

LOG_MEL_RATE = 16_000
"""Sample rate, in Hz, of the sound that log-mel spectrograms are computed from."""


def augmentation_faults(
    augment: Sequence[AugmentationSpec], *, task: TaskName, image_shape: tuple[int, int, int] | None, pointer: str
) -> list[FieldError]:
    """Finds the reasons why augmentations do not fit a task, or images of ``image_shape`` (channels, height, width).

    ``pointer`` is that of the list in the spec.
    """
    readable = TASKS[task].modalities
    fitting = [name for name, page in AUGMENTATIONS.items() if set(page.spec.modalities) & set(readable)]
    allowed = f"use one of {', '.join(fitting)}" if fitting else "there are none for it: leave augment empty"
    faults = []
    for index, each in enumerate(augment):
        place = f"{pointer}/{index}"
        if not set(each.modalities) & set(readable):
            message = f"{each.name} is for {' and '.join(each.modalities)} inputs, which {task} does not read; {allowed}"
            faults.append(FieldError(pointer=place, message=message))
        elif image_shape is not None:
            faults += _size_faults(each, image_shape, pointer=place)
    return faults


def window_faults(augment: Sequence[AugmentationSpec], *, pointer: str) -> Iterator[FieldError]:
    """Finds windows of images that are fitted to ``dataset.image``: they are of the whole images, and so come first."""
    for index, each in enumerate(augment):
        if isinstance(each, RandomResizedCrop) and index:
            message = f"{each.name} takes its window of the whole image, before all else: put it first in the list"
            yield FieldError(pointer=f"{pointer}/{index}", message=message)


def sound_faults(augment: Sequence[AugmentationSpec], networks: Mapping[str, Features], *, pointer: str) -> Iterator[FieldError]:
    """Finds the reasons why networks of sound, by role, cannot all read one view: that of student and teacher in one training."""
    rates = {role: LOG_MEL_RATE if isinstance(each, LogMelFeatures) else each.sample_rate for role, each in networks.items()}
    if augment and len(set(rates.values())) > 1:
        read = " and ".join(f"the {role} reads {rate} samples a second" for role, rate in rates.items())
        yield FieldError(
            pointer=pointer,
            message=f"all networks are to see the same view, and {read}: give them one rate, or leave augment empty",
        )
    for index, each in enumerate(augment):
        if not isinstance(each, SpecAugment):
            continue
        if unfit := [role for role, features in networks.items() if not isinstance(features, LogMelFeatures)]:
            message = f"{each.name} is for log-mel inputs, and the {' and the '.join(unfit)} reads waveforms: leave it out"
            yield FieldError(pointer=f"{pointer}/{index}", message=message)
        elif len({features.mels for features in networks.values() if isinstance(features, LogMelFeatures)}) > 1:
            message = f"{each.name} is to hide the same of all networks, and they read other numbers of mel bands: give them one"
            yield FieldError(pointer=f"{pointer}/{index}", message=message)


def text_faults(
    augment: Sequence[AugmentationSpec], networks: Mapping[str, TokenizerSpec | None], *, pointer: str
) -> Iterator[FieldError]:
    """Finds the reasons why networks of texts, by role, cannot all read one view. None is a tokenizer that is unknown here."""
    tokenizers = list(networks.values())
    for index, each in enumerate(augment):
        if not isinstance(each, TokenDropout):
            continue
        if any(tokenizer != tokenizers[0] for tokenizer in tokenizers):
            message = (
                f"{each.name} is to hide the same tokens from student and teacher, and they have different tokenizers: "
                "leave the student's tokenizer out, so that it reads as its teacher, or leave this out"
            )
            yield FieldError(pointer=f"{pointer}/{index}", message=message)
        elif each.mode == "mask" and any(tokenizer is not None and tokenizer.train == "bpe" for tokenizer in tokenizers):
            message = (
                "a bpe tokenizer has neither a mask token nor an unknown one to stand for a hidden token: take the mode delete"
            )
            yield FieldError(pointer=f"{pointer}/{index}/mode", message=message)


def _size_faults(augmentation: AugmentationSpec, image_shape: tuple[int, int, int], *, pointer: str) -> list[FieldError]:
    _, height, width = image_shape
    match augmentation:
        case Crop(padding=pixels) if pixels >= min(height, width):
            field, what, most = "padding", "a frame", min(height, width) - 1
        case Cutout(size=pixels) if pixels >= max(height, width):
            field, what, most = "size", "a square", max(height, width) - 1
        case _:
            return []
    message = f"{what} of {pixels} pixels can leave nothing to see of images of {height}x{width}: use {most} or less"
    return [FieldError(pointer=f"{pointer}/{field}", message=message)]
