"""Send records through a client, and report the totals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from tb_mqtt_client import DeviceClient, GatewayClient, PublishResult, Statistics
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.reading import Batch
from tb_mqtt_client.cli.records import BadLine, Parsed, Record
from tb_mqtt_client.cli.terminal import Terminal, counted
from tb_mqtt_client.constants.reason_codes import reason_name
from tb_mqtt_client.service.delivery.statistics import DELIVERY_STATES
from tb_mqtt_client.service.gateway.device_session import DeviceSession

MAX_PENDING = 10_000
"""Records that may be unacknowledged at a time: enough to fill the payloads, few enough to need little memory."""
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


class Sender:
    """Sends records through a connected client, and waits for their acknowledgements."""

    def __init__(self, client: DeviceClient, options: SendOptions, terminal: Terminal) -> None:
        self._client = client
        self._options = options
        self._terminal = terminal
        self._sessions: dict[str, DeviceSession] = {}
        self._pending = 0
        self._slots = asyncio.Semaphore(MAX_PENDING)
        self._all_settled = asyncio.Event()
        self._all_settled.set()
        self._deadline: asyncio.Timeout | None = None
        self.records = 0
        """The number of records that the client accepted."""
        self.timeless = 0
        """The number of accepted records without a time."""
        self.bad_lines = 0
        """The number of lines that were not sent."""

    async def send_all(self, batches: AsyncIterator[Batch]) -> None:
        """Send all records, and wait for their acknowledgements.

        Args:
            batches: The parsed input.

        Raises:
            CommandError: If a line is bad and ``skip_bad`` is not set (after the records before it are acknowledged), if
                the input cannot be read, or if no acknowledgement arrives for ``SendOptions.timeout`` seconds.
        """
        failure: CommandError | None = None
        try:
            async with asyncio.timeout(None) as self._deadline:
                try:
                    await self._send_each(batches)
                except CommandError as error:
                    failure = error
                await self._all_settled.wait()
        except TimeoutError:
            advice = "is the connection up? --verbose shows the log, and tb-mqtt doctor checks each step"
            if self._sessions:
                # Unless the device is a gateway, the platform does not acknowledge its data for sub-devices
                # (docs/platform_contract.md, section 4).
                advice = f"is the device with these credentials marked as a gateway in ThingsBoard? {advice}"
            raise CommandError(f"No acknowledgement for {self._options.timeout:g} s", ExitCode.TIMEOUT, advice) from None
        finally:
            self._deadline = None
        if failure is not None:
            raise failure

    async def _send_each(self, batches: AsyncIterator[Batch]) -> None:
        try:
            first = True
            async for batch in batches:
                if first:
                    self._check_times(batch)
                    first = False
                for item in batch:
                    await self._process(item)
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
            self._terminal.note(NAME_THE_TIME, "next")

    async def _process(self, item: Parsed) -> None:
        if isinstance(item, Record):
            await self._send(item)
        elif isinstance(item, BadLine):
            self._report_bad(item)
        else:
            self._terminal.note(
                f"times are read from {item.field!r}, {item.notation} (--no-guess-ts sends it as a value, "
                "--ts-field and --ts-unit name the field and its unit)"
            )

    async def _send(self, record: Record) -> None:
        await self._slots.acquire()
        try:
            delivery = await self._accept(record)
        except ValueError as error:
            self._slots.release()
            self._report_bad(BadLine(record.line, str(error)))
            return
        self.records += 1
        self.timeless += record.ts is None
        self._pending += 1
        self._all_settled.clear()
        if self._pending == 1:
            self._set_deadline()
        delivery.add_done_callback(self._settled)

    async def _accept(self, record: Record) -> asyncio.Future[PublishResult]:
        """Pass a record to the client, and return the future of its result.

        Raises:
            ValueError: If the platform cannot store a value or a key of the record.
        """
        # Always in this form, because a key of the record may be called "ts".
        timeseries = {"ts": record.ts, "values": record.values}
        client = self._client
        if record.device is not None and isinstance(client, GatewayClient):
            session = self._sessions.get(record.device)
            if session is None:
                session, _ = await client.connect_device(record.device, self._options.device_profile)
                self._sessions[record.device] = session
            if self._options.attributes:
                return await client.send_device_attributes(session, record.values, wait_for_publish=False)
            return await client.send_device_timeseries(session, timeseries, wait_for_publish=False)
        if self._options.attributes:
            [delivery] = await client.send_attributes(record.values, wait_for_publish=False)
        else:
            [delivery] = await client.send_timeseries(timeseries, wait_for_publish=False)
        return delivery

    def _settled(self, _delivery: asyncio.Future[PublishResult]) -> None:
        self._slots.release()
        self._pending -= 1
        if not self._pending:
            self._all_settled.set()
        self._set_deadline()

    def _set_deadline(self) -> None:
        """Restart the deadline, which applies only while acknowledgements are pending, not while input is awaited."""
        if self._deadline is not None and not self._deadline.expired():
            at = asyncio.get_running_loop().time() + self._options.timeout
            self._deadline.reschedule(at if self._pending else None)

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


@dataclass(frozen=True, slots=True)
class Totals:
    """The totals of one ``send``."""

    statistics: Statistics
    records: int
    timeless: int
    bad_lines: int
    seconds: float
    attributes: bool
    failed: bool
    """Whether an error ended the command before everything was sent and acknowledged."""

    @property
    def lost(self) -> int:
        """Return how many datapoints were acknowledged but are not stored.

        A superseded attribute is not a loss, because only the newest value of an attribute matters.
        """
        return 0 if self.attributes else self.statistics.superseded

    def exit_code(self) -> ExitCode:
        """Return the exit code: 0 only if everything was acknowledged, and nothing was skipped or lost."""
        if self.statistics.acknowledged != self.statistics.accepted:
            return ExitCode.REFUSED
        return ExitCode.INCOMPLETE if self.bad_lines or self.lost else ExitCode.DONE

    def show(self, terminal: Terminal) -> None:
        """Print the totals to stdout, with details about rejected, superseded and skipped data."""
        if terminal.as_json:
            terminal.document(self._document())
            return
        statistics = self.statistics
        mark = {ExitCode.DONE: "good", ExitCode.INCOMPLETE: "warning"}.get(self.exit_code(), "bad")
        if self.failed and mark == "good":
            mark = "warning"
        states = {state: getattr(statistics, state) for state in DELIVERY_STATES}
        # "acknowledged" is shown even if it is 0, because a sum needs at least one term.
        terms = [f"{name} {count:,}".replace("_", " ") for name, count in states.items() if count or name == "acknowledged"]
        datapoints = "datapoint" if statistics.accepted == 1 else "datapoints"
        terminal.line(terminal.marked(terminal.out, mark, f"accepted {statistics.accepted:,} = {' + '.join(terms)} {datapoints}"))
        for code, count in sorted(statistics.rejected_by_reason.items()):
            terminal.line(f"  rejected: {count:,} as {reason_name(code)} ({code:#04x})")
        if statistics.superseded:
            self._show_superseded(terminal)
        if self.bad_lines:
            terminal.line(f"  bad lines: {self.bad_lines:,}")
        parts = [
            counted(self.records, "record"),
            counted(statistics.messages_published, "message"),
            counted(statistics.bytes_published, "byte"),
        ]
        if statistics.reconnects:
            parts.append(counted(statistics.reconnects, "reconnect"))
        terminal.line(f"  {', '.join(parts)}, {self.seconds:.1f} s")

    def _show_superseded(self, terminal: Terminal) -> None:
        same = "key" if self.attributes else "key and time"
        terminal.line(f"  superseded: {self.statistics.superseded:,}, not stored: a later value has the same {same}")
        if self.lost and self.timeless:
            advice = f"{counted(self.timeless, 'record')} without a time got the time of sending; {NAME_THE_TIME}"
            terminal.line(Text("  ").append_text(terminal.marked(terminal.out, "next", advice)))

    def _document(self) -> dict[str, Any]:
        others = {
            "records": self.records,
            "records_without_time": self.timeless,
            "bad_lines": self.bad_lines,
            "seconds": round(self.seconds, 3),
        }
        return self.statistics.as_dict() | others
