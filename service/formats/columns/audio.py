"""The audio of a Parquet column: the bytes of WAV or FLAC files, plain or as Hugging Face's ``{bytes, path}``."""

import pyarrow as pa
import pyarrow.compute as pc

from service.errors import InvalidFile
from service.formats.columns.arrow import HOW_TO_EMBED, is_binary, is_string, refuse_paths, type_name
from service.formats.media.check import MediaFiles
from service.formats.media.encoded import EncodedAudio
from service.spec.data import Column
from service.spec.warning_message import WarningMessage


class AudioColumn:
    """See :class:`service.formats.readers.parquet.InputColumn`."""

    rows_at_once = 4
    """Few, because the rows differ in size: each may be half an hour long."""

    def __init__(self, name: str, first: pa.Array, *, num_rows: int, max_unpacked_bytes: int, skip_broken: bool) -> None:
        self._name = name
        self.files = MediaFiles(max_unpacked_bytes=max_unpacked_bytes, skip_broken=skip_broken)
        self._files(first, first_row=0)

    def describe(self) -> Column:
        return self.files.column()

    def warnings(self) -> list[WarningMessage]:
        return self.files.warnings()

    def read(self, column: pa.Array, *, first_row: int) -> list[EncodedAudio | None]:
        """Files, None for one that is left out."""
        return [
            self.files.clip(
                None if data.as_buffer() is None else data.as_buffer().to_pybytes(), place=f"column {self._name!r}, row {row}"
            )
            for row, data in enumerate(self._files(column, first_row=first_row), start=first_row)
        ]

    def _files(self, column: pa.Array, *, first_row: int) -> pa.Array:
        place = f"column {self._name!r}"
        if pa.types.is_struct(column.type):
            if "bytes" not in [field.name for field in column.type]:
                raise InvalidFile(f"{place} is a struct without 'bytes'; store the WAV or FLAC itself, as {{bytes, path}}")
            refuse_paths(column, place=place, first_row=first_row)
            column = pc.struct_field(column, "bytes")
        if not is_binary(column.type):
            what = f"{place} is of {type_name(column.type)}; sound is the bytes of a WAV or FLAC file, which say its rate"
            raise InvalidFile(f"{what}; of paths, {HOW_TO_EMBED}" if is_string(column.type) else what)
        return column
