"""The audio of a Parquet column: the bytes of WAV or FLAC files, plain or as Hugging Face's ``{bytes, path}``."""

import pyarrow as pa
import pyarrow.compute as pc

from service.errors import InvalidFile
from service.formats.arrow import HOW_TO_EMBED, is_binary, is_string, refuse_nulls, refuse_paths
from service.formats.audio import AudioExtent, check_audio
from service.formats.encoded import EncodedAudio
from service.spec.data import Column


class AudioColumn:
    """See :class:`service.formats.parquet.InputColumn`."""

    rows_at_once = 4
    """Few, because the rows differ in size: each may be half an hour long."""

    def __init__(self, name: str, first: pa.Array, *, num_rows: int, max_unpacked_bytes: int) -> None:
        self._name, self._max_unpacked_bytes = name, max_unpacked_bytes
        self._extent = AudioExtent()
        self._files(first, first_row=0)

    def describe(self) -> Column:
        return self._extent.column()

    def read(self, column: pa.Array, *, first_row: int) -> list[EncodedAudio]:
        if first_row == 0:
            self._extent = AudioExtent()
        clips = []
        for row, data in enumerate(self._files(column, first_row=first_row), start=first_row):
            clip = check_audio(data.as_buffer().to_pybytes(), place=f"column {self._name!r}, row {row}")
            self._extent.add(clip, max_unpacked_bytes=self._max_unpacked_bytes)
            clips.append(clip)
        return clips

    def _files(self, column: pa.Array, *, first_row: int) -> pa.Array:
        place = f"column {self._name!r}"
        if pa.types.is_struct(column.type):
            if "bytes" not in [field.name for field in column.type]:
                raise InvalidFile(f"{place} is a struct without 'bytes'; store the WAV or FLAC itself, as {{bytes, path}}")
            refuse_nulls(column, place=place, first_row=first_row)
            refuse_paths(column, place=place, first_row=first_row)
            column = pc.struct_field(column, "bytes")
        if not is_binary(column.type):
            what = f"{place} is of {str(column.type)[:100]}; sound is the bytes of a WAV or FLAC file, which say its rate"
            raise InvalidFile(f"{what}; of paths, {HOW_TO_EMBED}" if is_string(column.type) else what)
        refuse_nulls(column, place=f"{place} (the sound's bytes)", first_row=first_row)
        return column
