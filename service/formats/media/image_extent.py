"""What the image files of a dataset have in common and what not: their sizes, their kinds of pixels, what is not read of them."""

from collections import Counter
from dataclasses import dataclass, field

from service.errors import InvalidFile
from service.formats.media.encoded import EncodedImage
from service.formats.media.image_file import SIXTEEN_BIT_WHITE, ImageFacts
from service.spec.data import Column, ImageSizes
from service.spec.warning_message import WarningMessage

_MOST_SIZES = 10_000
_SHOWN_SIZES = 10


@dataclass
class ImageExtent:
    """A running total of the images of a dataset."""

    num_bytes: int = 0
    num_images: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Images by (height, width); of the first ten thousand sizes."""
    least: tuple[int, int] = (0, 0)
    most: tuple[int, int] = (0, 0)
    channels: Counter[int] = field(default_factory=Counter)
    num_with_frames: int = 0
    num_sixteen_bit: int = 0
    brightest: int = 0
    """Of 16-bit images."""

    def add(self, image: EncodedImage, facts: ImageFacts, *, max_unpacked_bytes: int) -> None:
        """Adds one image. Raises InvalidFile if the total exceeds the limit."""
        self.num_bytes += image.decoded_bytes
        if self.num_bytes > max_unpacked_bytes:
            raise InvalidFile(f"unpacked, the images are {self.num_bytes:,} bytes; at most {max_unpacked_bytes:,} may be")
        size = image.height, image.width
        if size in self.sizes or len(self.sizes) < _MOST_SIZES:
            self.sizes[size] += 1
        self.least = (min(self.least[0], size[0]), min(self.least[1], size[1])) if self.num_images else size
        self.most = max(self.most[0], size[0]), max(self.most[1], size[1])
        self.num_images += 1
        self.channels[image.channels] += 1
        self.num_with_frames += facts.has_more_frames
        if facts.brightest is not None:
            self.num_sixteen_bit += 1
            self.brightest = max(self.brightest, facts.brightest)

    def column(self) -> Column:
        """The description of the image column, once all images were added."""
        channels = common_channels(self.channels)
        if self.least == self.most:
            return Column(kind="image", dtype="uint8", shape=[*self.least, channels])
        usual = [[*size, count] for size, count in self.sizes.most_common(_SHOWN_SIZES)]
        sizes = ImageSizes(least=list(self.least), greatest=list(self.most), most_common=usual, channels=channels)
        return Column(kind="image", dtype="uint8", sizes=sizes)

    def warnings(self) -> list[WarningMessage]:
        """What of the images is not read, or read otherwise than one might think, once all were added.

        Raises:
            InvalidFile: 16-bit images are so dark that their white must be another.
        """
        told = []
        if self.num_sixteen_bit and self.brightest <= SIXTEEN_BIT_WHITE // 2:
            raise InvalidFile(
                f"the file has {_images(self.num_sixteen_bit)} of 16 bits, and no pixel of them is above {self.brightest:,}, of "
                f"{SIXTEEN_BIT_WHITE:,}: read as they are they would be nearly black; multiply the pixels so that white is "
                f"{SIXTEEN_BIT_WHITE:,}, or save the images with 8 bits"
            )
        if self.num_sixteen_bit:
            message = f"{_images(self.num_sixteen_bit)} of 16 bits: read with 8: 0 is black, {SIXTEEN_BIT_WHITE:,} white"
            told.append(WarningMessage(code="sixteen_bit", message=message))
        if self.num_with_frames:
            message = f"of {_images(self.num_with_frames)} with several frames or pages the first one is read"
            told.append(WarningMessage(code="first_frame", message=message))
        if len(self.channels) > 1:
            kinds = ", ".join(f"{count:,} {_KINDS[channels]}" for channels, count in sorted(self.channels.items()))
            lost = "; transparency is left away, so that transparent pixels show the colour stored for them"
            message = f"the images are of several kinds, {kinds}: all are read as RGB{lost if self.channels[4] else ''}"
            told.append(WarningMessage(code="mixed_modes", message=message))
        return told


_KINDS = {1: "grey", 3: "RGB", 4: "with transparency"}


def common_channels(channels: Counter[int] | set[int]) -> int:
    """The channels in which images of these numbers of channels are all read: theirs if they are alike, else RGB."""
    return next(iter(channels)) if len(channels) == 1 else 3


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"
