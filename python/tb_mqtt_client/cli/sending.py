"""Send records through a client, and report the outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from tb_mqtt_client import DeviceClient, GatewayClient, PublishResult, Statistics
from tb_mqtt_client.cli.outcomes import CommandError, ExitCode
from tb_mqtt_client.cli.reading import Batch
from tb_mqtt_client.cli.records import BadLine, Parsed, Record
from tb_mqtt_client.cli.terminal import Terminal, counted
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.reason_codes import reason_name
from tb_mqtt_client.service.delivery.statistics import DELIVERY_STATES
from tb_mqtt_client.service.gateway.device_session import DeviceSession

CALLS_PENDING = 10_000
"""Sends that may be unacknowledged at a time: enough for full payloads, few enough to stay small in memory."""
BAD_LINES_SHOWN = 20
NAME_THE_TIME = "--ts-field names the field or column with the time"


@dataclass(frozen=True, slots=True)
class Orders:
    """How to send records."""

    attributes: bool
    silence: float
    """Seconds without an acknowledgement after which sending gives up."""
    device_profile: str = "default"
    skip_bad: bool = False


class Sender:
    """Sends records through a connected client, and waits for their acknowledgements."""

    def __init__(self, client: DeviceClient, orders: Orders, terminal: Terminal) -> None:
        self._client = client
        self._orders = orders
        self._terminal = terminal
        self._sessions: dict[str, DeviceSession] = {}
        self._pending = 0
        self._room = asyncio.Semaphore(CALLS_PENDING)
        self._all_settled = asyncio.Event()
        self._all_settled.set()
        self._deadline: asyncio.Timeout | None = None
        self.records = 0
        """Records that the client accepted."""
        self.timeless = 0
        """Of these, the ones without a time of their own."""
        self.bad_lines = 0

    async def send_all(self, batches: AsyncIterator[Batch]) -> None:
        """Send, and wait for all acknowledgements.

        Raises:
            CommandError: For a bad line unless these are skipped (after waiting for the records before it), and if no
                acknowledgement arrives for ``Orders.silence`` seconds.
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
                # The platform does not acknowledge what others publish for sub-devices (platform_contract.md, section 4).
                advice = f"is the device with these credentials marked as a gateway in ThingsBoard? {advice}"
            raise CommandError(f"No acknowledgement for {self._orders.silence:g} s", ExitCode.TIMEOUT, advice) from None
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
                    await self._take(item)
        except (OSError, ValueError) as error:
            raise CommandError(f"The input is not usable: {error}", ExitCode.USAGE) from error

    def _check_times(self, batch: Batch) -> None:
        """Warn before the rest of the input is sent: without times, most of it may be superseded."""
        records = [item for item in batch if isinstance(item, Record)]
        if not self._orders.attributes and len(records) > 1 and all(record.ts is None for record in records):
            self._terminal.note(
                f"none of the first {len(records):,} records has a time, so each is stored under the time of sending; "
                "of several values of a key in one millisecond only the last is stored",
                "warning",
            )
            self._terminal.note(NAME_THE_TIME, "next")

    async def _take(self, item: Parsed) -> None:
        if isinstance(item, Record):
            await self._send(item)
        elif isinstance(item, BadLine):
            self._bad(item)
        else:
            self._terminal.note(
                f"times are read from {item.field!r}, {item.notation} (--no-guess-ts sends it as a value, "
                "--ts-field and --ts-unit name the field and its unit)"
            )

    async def _send(self, record: Record) -> None:
        await self._room.acquire()
        try:
            delivery = await self._accept(record)
        except ValueError as error:
            self._room.release()
            self._bad(BadLine(record.line, str(error)))
            return
        self.records += 1
        self.timeless += record.ts is None
        self._pending += 1
        self._all_settled.clear()
        if self._pending == 1:
            self._set_deadline()
        delivery.add_done_callback(self._settled)

    async def _accept(self, record: Record) -> asyncio.Future[PublishResult]:
        """Pass a record to the client. Raises ``ValueError`` for values that the platform cannot store."""
        # Always with a time, because a key of the record may be called "ts".
        timeseries = {"ts": now_ms() if record.ts is None else record.ts, "values": record.values}
        client = self._client
        if record.device is not None and isinstance(client, GatewayClient):
            session = self._sessions.get(record.device)
            if session is None:
                session, _ = await client.connect_device(record.device, self._orders.device_profile)
                self._sessions[record.device] = session
            if self._orders.attributes:
                return await client.send_device_attributes(session, record.values, wait_for_publish=False)
            return await client.send_device_timeseries(session, timeseries, wait_for_publish=False)
        if self._orders.attributes:
            [delivery] = await client.send_attributes(record.values, wait_for_publish=False)
        else:
            [delivery] = await client.send_timeseries(timeseries, wait_for_publish=False)
        return delivery

    def _settled(self, _delivery: asyncio.Future[PublishResult]) -> None:
        self._room.release()
        self._pending -= 1
        if not self._pending:
            self._all_settled.set()
        self._set_deadline()

    def _set_deadline(self) -> None:
        """Restart the deadline: it applies only while acknowledgements are pending, not while waiting for input."""
        if self._deadline is not None and not self._deadline.expired():
            at = asyncio.get_running_loop().time() + self._orders.silence
            self._deadline.reschedule(at if self._pending else None)

    def _bad(self, bad: BadLine) -> None:
        self.bad_lines += 1
        text = f"line {bad.line}: {bad.reason}" if bad.line else bad.reason
        if not self._orders.skip_bad:
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
class Outcome:
    """The totals at the end."""

    statistics: Statistics
    records: int
    timeless: int
    bad_lines: int
    seconds: float
    attributes: bool
    failed: bool
    """It ended before everything was sent and acknowledged."""

    @property
    def lost(self) -> int:
        """Return how many datapoints were acknowledged but will not be stored.

        Of an attribute only the newest value matters, so a superseded one is not a loss.
        """
        return 0 if self.attributes else self.statistics.superseded

    def exit_code(self) -> ExitCode:
        """Return 0 only if everything was acknowledged, and nothing was skipped or lost."""
        if self.statistics.acknowledged != self.statistics.accepted:
            return ExitCode.REFUSED
        return ExitCode.INCOMPLETE if self.bad_lines or self.lost else ExitCode.DONE

    def show(self, terminal: Terminal) -> None:
        """Print the totals to stdout, and details that explain them."""
        if terminal.as_json:
            terminal.document(self._document())
            return
        statistics = self.statistics
        mark = {ExitCode.DONE: "good", ExitCode.INCOMPLETE: "warning"}.get(self.exit_code(), "bad")
        if self.failed and mark == "good":
            mark = "warning"
        states = {state: getattr(statistics, state) for state in DELIVERY_STATES}
        # The first one always: a sum needs a second side.
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
