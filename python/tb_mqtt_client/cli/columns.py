"""Read files with columns, Parquet and Arrow (also called Feather), with pyarrow (extra ``table``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.times import DEFAULT_FIELD, GUESSED_FIELDS, Unit

ROWS_A_BATCH = 8192
"""Rows of a Parquet file that are in memory at a time."""


class ColumnFormat(StrEnum):
    """A format of files with columns."""

    PARQUET = "parquet"
    ARROW = "arrow"


_ENDINGS = {".parquet": ColumnFormat.PARQUET, ".arrow": ColumnFormat.ARROW, ".feather": ColumnFormat.ARROW}
_FILE_MAGIC = b"ARROW1"
"""The first bytes of an Arrow file. A stream begins otherwise."""


def format_of(path: str | None) -> ColumnFormat | None:
    """Return the format that the ending of a file's name says; ``None`` if it is not one with columns."""
    name = (path or "").lower()
    return next((form for ending, form in _ENDINGS.items() if name.endswith(ending)), None)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file that are not values."""

    ts: str | None
    """The column with the time. ``None``: ``ts``, or the one that ``guess_ts`` finds."""
    ts_unit: Unit | None
    """The unit of times that are numbers; ``None`` for milliseconds."""
    guess_ts: bool
    """Whether to look for the time in other columns with timestamps if there is no ``ts``."""
    device: str | None
    """The column with the sub-device; ``None`` if all values belong to the connected device."""


class ColumnFile:
    """A file with columns, which is read once."""

    def __init__(self, path: str, form: ColumnFormat, columns: Columns, profile: str) -> None:
        """Open a file.

        Args:
            path: The file.
            form: Its format.
            columns: Its columns.
            profile: The profile of new sub-devices.

        Raises:
            CommandError: pyarrow is not installed, or the file cannot be read.
        """
        try:
            import pyarrow  # noqa: PLC0415  # an optional dependency, which takes a while to import
            import pyarrow.parquet  # noqa: PLC0415
        except ImportError as error:
            advice = "pip install 'tb-mqtt-client[table]'"
            raise CommandError(f"Files of the format {form} need the package pyarrow", ExitCode.USAGE, advice) from error
        self._arrow: Any = pyarrow
        self._profile = profile
        self.columns = columns
        self.rows = 0
        """Rows that were read."""
        try:
            self._schema, self._batches = self._open(path, form)
        except (OSError, pyarrow.ArrowInvalid) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise CommandError(f"{path} cannot be read: {reason}", ExitCode.USAGE) from error
        self.ts: str = columns.ts or self._time_column()
        """The column with the time."""
        self.profile: str | None = None if columns.device is None else self._unused_name("profile")
        """The column with the profile of sub-devices, which is added to those of the file."""

    def _open(self, path: str, form: ColumnFormat) -> tuple[Any, Iterator[Any]]:
        arrow = self._arrow
        if form is ColumnFormat.PARQUET:
            file = arrow.parquet.ParquetFile(path)
            return file.schema_arrow, file.iter_batches(ROWS_A_BATCH)
        source = arrow.memory_map(path)
        is_file = source.read(len(_FILE_MAGIC)) == _FILE_MAGIC
        source.seek(0)
        if is_file:
            file = arrow.ipc.open_file(source)
            return file.schema, (file.get_batch(number) for number in range(file.num_record_batches))
        stream = arrow.ipc.open_stream(source)
        return stream.schema, iter(stream)

    def _time_column(self) -> str:
        if DEFAULT_FIELD not in self._schema.names and self.columns.guess_ts:
            names = {name.lower(): name for name in reversed(self._schema.names)}
            for guessed in GUESSED_FIELDS:
                name: str | None = names.get(guessed)
                if name is not None and self._arrow.types.is_timestamp(self._schema.field(name).type):
                    return name
        return DEFAULT_FIELD

    def _unused_name(self, name: str) -> str:
        while name in self._schema.names:
            name += "_"
        return name

    def reader(self, on_read: Callable[[], object]) -> Any:
        """Return a reader of all batches, an object with ``__arrow_c_stream__``.

        Args:
            on_read: Called before each batch is read, in the thread that reads.
        """
        schema = self._completed(self._arrow.RecordBatch.from_pylist([], schema=self._schema)).schema

        def batches() -> Iterator[Any]:
            for batch in self._batches:
                on_read()
                self.rows += batch.num_rows
                yield self._completed(batch)

        return self._arrow.RecordBatchReader.from_batches(schema, batches())

    def _completed(self, batch: Any) -> Any:
        """Return a batch with the unit of its times, and with the profile of its sub-devices."""
        arrow = self._arrow
        if self.columns.ts_unit is not None and self.ts in batch.schema.names:
            index = batch.schema.get_field_index(self.ts)
            if arrow.types.is_integer(batch.schema.field(index).type):
                unit = arrow.timestamp(self.columns.ts_unit.value, tz="UTC")
                batch = batch.set_column(index, self.ts, batch.column(index).cast(arrow.int64()).cast(unit))
        if self.profile is not None:
            batch = batch.append_column(self.profile, arrow.repeat(arrow.scalar(self._profile), batch.num_rows))
        return batch
