"""Checks files of images or sound, one after another, and counts what they are; broken ones are refused, or left out and told."""

from service.errors import InvalidFile
from service.formats.media.audio import AudioExtent, check_audio
from service.formats.media.encoded import EncodedAudio, EncodedImage
from service.formats.media.image_extent import ImageExtent
from service.formats.media.image_file import check_image
from service.spec.data import Column
from service.spec.warning_message import WarningMessage

_SHOWN = 10


class MediaFiles:
    """The files of one input column."""

    def __init__(self, *, max_unpacked_bytes: int, skip_broken: bool) -> None:
        self._max_unpacked_bytes, self._skip_broken = max_unpacked_bytes, skip_broken
        self._images, self._clips = ImageExtent(), AudioExtent()
        self._num_skipped, self._first_reasons = 0, list[str]()

    def image(self, data: bytes | None, *, place: str) -> EncodedImage | None:
        """Checks an image; None for one that is left out. Raises InvalidFile if it is broken and may not be."""
        try:
            image, facts = check_image(_whole(data, place), place=place)
        except InvalidFile as error:
            self._skip(error)
            return None
        self._images.add(image, facts, max_unpacked_bytes=self._max_unpacked_bytes)
        return image

    def clip(self, data: bytes | None, *, place: str) -> EncodedAudio | None:
        """Checks a clip of sound, as :meth:`image`."""
        try:
            clip = check_audio(_whole(data, place), place=place)
        except InvalidFile as error:
            self._skip(error)
            return None
        self._clips.add(clip, max_unpacked_bytes=self._max_unpacked_bytes)
        return clip

    def column(self) -> Column:
        """The description of the column, once all files were read."""
        return self._images.column() if self._images.num_images else self._clips.column()

    def warnings(self) -> list[WarningMessage]:
        """What is left out of the files, and what of them is not read, once all were read. Raises InvalidFile as they do."""
        told = self._images.warnings()
        if self._num_skipped:
            reasons = "; ".join(self._first_reasons)
            more = "; …" if self._num_skipped > _SHOWN else ""
            message = f"{self._num_skipped:,} rows are left out, as their files cannot be read: {reasons}{more}"
            told.append(WarningMessage(code="rows_skipped", message=message))
        if not self._images.num_images and not self._clips.rates:
            first = self._first_reasons[0] if self._first_reasons else "there is none"
            raise InvalidFile(f"no file of the input can be read: {first}")
        return told

    def _skip(self, error: InvalidFile) -> None:
        if not self._skip_broken:
            raise error
        self._num_skipped += 1
        if len(self._first_reasons) < _SHOWN:
            self._first_reasons.append(error.detail)


def _whole(data: bytes | None, place: str) -> bytes:
    if data is None:
        raise InvalidFile(f"{place}: there is no value; fill it or drop the row")
    return data
