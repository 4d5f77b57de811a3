"""Pass the records of an input on, one after the other, and count and report bad lines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.reading import Batch
from tb_mqtt_client.cli.records import BadLine, Parsed, Record
from tb_mqtt_client.cli.terminal import Terminal

BAD_LINES_SHOWN = 20
"""Bad lines that are printed; the others are only counted."""
NAME_THE_TIME = "--ts-field names the field or column with the time"


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How to send records."""

    attributes: bool
    """Whether to send client attributes instead of telemetry."""
    timeout: float
    """Seconds without an acknowledgement after which sending gives up."""
    device_profile: str = "default"
    """The profile of new sub-devices."""
    skip_bad: bool = False
    """Whether to skip bad lines instead of ending at the first one."""


class RecordConsumer(ABC):
    """Takes the records of one input."""

    advice_on_times: str = NAME_THE_TIME
    """How the user names the time of a record."""

    def __init__(self, options: SendOptions, terminal: Terminal) -> None:
        self._options = options
        self._terminal = terminal
        self.records: int = 0
        """The number of records that were accepted."""
        self.timeless: int = 0
        """The number of accepted records without a time."""
        self.bad_lines: int = 0
        """The number of lines that were not accepted."""

    @abstractmethod
    async def _accept(self, record: Record) -> None:
        """Take a record.

        Raises:
            ValueError: If the platform cannot store a value or a key of the record.
        """

    async def _batch_ended(self) -> None:  # noqa: B027  # most need nothing here
        """Note that no further record is there yet."""

    async def _consume(self, batches: AsyncIterator[Batch]) -> None:
        try:
            first = True
            async for batch in batches:
                if first:
                    self._check_times(batch)
                    first = False
                for item in batch:
                    await self._process(item)
                await self._batch_ended()
        except (OSError, ValueError) as error:
            raise CommandError(f"The input is not usable: {error}", ExitCode.USAGE) from error

    def _check_times(self, batch: Batch) -> None:
        """Warn if the first records have no times, because most of the input may then be superseded."""
        records = [item for item in batch if isinstance(item, Record)]
        if not self._options.attributes and len(records) > 1 and all(record.ts is None for record in records):
            self._terminal.note(
                f"none of the first {len(records):,} records has a time, so each is stored under the time of sending; "
                "only the last value of a key in one millisecond is stored",
                "warning",
            )
            self._terminal.note(self.advice_on_times, "next")

    async def _process(self, item: Parsed) -> None:
        if isinstance(item, Record):
            await self._take(item)
        elif isinstance(item, BadLine):
            self._report_bad(item)
        else:
            self._terminal.note(
                f"times are read from {item.field!r}, {item.notation} (--no-guess-ts sends it as a value, "
                "--ts-field and --ts-unit name the field and its unit)"
            )

    async def _take(self, record: Record) -> None:
        try:
            await self._accept(record)
        except ValueError as error:
            self._report_bad(BadLine(record.line, str(error)))
            return
        self.records += 1
        self.timeless += record.ts is None

    def _report_bad(self, bad: BadLine) -> None:
        self.bad_lines += 1
        # Arguments of the command line have no line number.
        text = f"line {bad.line}: {bad.reason}" if bad.line else bad.reason
        if not self._options.skip_bad:
            raise CommandError(
                f"Stopped at {text}" if bad.line else text,
                ExitCode.USAGE,
                "--skip-bad reports such lines and continues" if bad.line else "",
            )
        if self.bad_lines <= BAD_LINES_SHOWN:
            self._terminal.note(f"skipped {text}", "warning")
        if self.bad_lines == BAD_LINES_SHOWN:
            self._terminal.note("further bad lines are counted, but not shown")
