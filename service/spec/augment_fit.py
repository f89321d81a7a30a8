"""Whether augmentations fit a task and its inputs: every fault at once, each at its place in the spec. Pure, no torch."""

from collections.abc import Mapping, Sequence

from service.errors import Fault
from service.spec.augment import AUGMENTATIONS, AugmentationSpec, Crop, Cutout, Modality

READABLE: Mapping[str, tuple[Modality, ...]] = {
    "image-classification": ("image",),
    "audio-classification": ("waveform", "log-mel"),
    "text-classification": ("text",),
    "sentence-embedding": ("text",),
}
"""What the inputs of each task may be. A causal language model is not here: its tokens are its targets too."""


def augmentation_faults(
    augment: Sequence[AugmentationSpec], *, task: str, image_shape: tuple[int, int, int] | None, pointer: str
) -> list[Fault]:
    """Why augmentations do not fit a task, or images of ``image_shape`` (channels, height, width).

    ``pointer`` is that of the list in the spec.
    """
    readable = READABLE.get(task, ())
    fitting = [name for name, page in AUGMENTATIONS.items() if set(page.spec.modalities) & set(readable)]
    allowed = f"use one of {', '.join(fitting)}" if fitting else "there are none for it: leave augment empty"
    faults = []
    for index, each in enumerate(augment):
        place = f"{pointer}/{index}"
        if not set(each.modalities) & set(readable):
            message = f"{each.name} is for {' and '.join(each.modalities)} inputs, which {task} does not read; {allowed}"
            faults.append(Fault(pointer=place, message=message))
        elif image_shape is not None:
            faults += _size_faults(each, image_shape, pointer=place)
    return faults


def _size_faults(augmentation: AugmentationSpec, image_shape: tuple[int, int, int], *, pointer: str) -> list[Fault]:
    _, height, width = image_shape
    match augmentation:
        case Crop(padding=pixels) if pixels >= min(height, width):
            field, what, most = "padding", "a frame", min(height, width) - 1
        case Cutout(size=pixels) if pixels >= max(height, width):
            field, what, most = "size", "a square", max(height, width) - 1
        case _:
            return []
    message = f"{what} of {pixels} pixels can leave nothing to see of images of {height}x{width}: use {most} or less"
    return [Fault(pointer=f"{pointer}/{field}", message=message)]
