"""Send records through a client, and report the totals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from tb_mqtt_client import DeviceClient, GatewayClient, PublishResult, Statistics
from tb_mqtt_client.cli.consumer import NAME_THE_TIME, RecordConsumer, SendOptions
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.reading import Batch
from tb_mqtt_client.cli.records import Record
from tb_mqtt_client.cli.terminal import Terminal, counted
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.reason_codes import reason_name
from tb_mqtt_client.service.delivery.statistics import DELIVERY_STATES
from tb_mqtt_client.service.gateway.device_session import DeviceSession

MAX_PENDING = 10_000
"""Records that may be unacknowledged at a time: enough to fill the payloads, few enough to need little memory."""
ALREADY_EXPIRED = 1e-9
"""Seconds until values expire that have expired before they are sent: a client accepts only positive ones."""


class RecordSender:
    """Passes single records to a client."""

    def __init__(self, client: DeviceClient, options: SendOptions) -> None:
        self._client = client
        self._options = options
        self.sessions: dict[str, DeviceSession] = {}
        """The sub-devices that were announced, by name."""

    async def send(self, record: Record) -> asyncio.Future[PublishResult]:
        """Pass a record to the client, and return the future of its result.

        Raises:
            ValueError: If the platform cannot store a value or a key of the record.
        """
        # Always in this form, because a key of the record may be called "ts".
        timeseries = {"ts": record.ts, "values": record.values}
        client, details = self._client, record.details
        priority, expires_after = details.priority, _seconds_until(details.expires_ms)
        if record.device is not None and isinstance(client, GatewayClient):
            session = self.sessions.get(record.device)
            if session is None:
                session, _ = await client.connect_device(record.device, details.profile or self._options.device_profile)
                self.sessions[record.device] = session
            if self._options.attributes:
                return await client.send_device_attributes(
                    session, record.values, wait_for_publish=False, priority=priority, expires_after=expires_after
                )
            return await client.send_device_timeseries(
                session,
                timeseries,
                wait_for_publish=False,
                metadata=details.metadata,
                priority=priority,
                expires_after=expires_after,
            )
        if self._options.attributes:
            [delivery] = await client.send_attributes(
                record.values, wait_for_publish=False, priority=priority, expires_after=expires_after
            )
        else:
            [delivery] = await client.send_timeseries(
                timeseries, wait_for_publish=False, priority=priority, expires_after=expires_after
            )
        return delivery


def _seconds_until(expires_ms: int) -> float | None:
    """Return ``expires_after`` for values that expire at a time; they are dropped, and counted, if that is over."""
    return max((expires_ms - now_ms()) / 1000, ALREADY_EXPIRED) if expires_ms else None


class Sender(RecordConsumer):
    """Sends records through a connected client, and waits for their acknowledgements."""

    def __init__(self, client: DeviceClient, options: SendOptions, terminal: Terminal) -> None:
        super().__init__(options, terminal)
        self._sender = RecordSender(client, options)
        self._pending = 0
        self._slots = asyncio.Semaphore(MAX_PENDING)
        self._all_settled = asyncio.Event()
        self._all_settled.set()
        self._deadline: asyncio.Timeout | None = None

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
                    await self._consume(batches)
                except CommandError as error:
                    failure = error
                await self._all_settled.wait()
        except TimeoutError:
            advice = "is the connection up? --verbose shows the log, and tb-mqtt doctor checks each step"
            if self._sender.sessions:
                # Unless the device is a gateway, the platform does not acknowledge its data for sub-devices
                # (docs/platform_contract.md, section 4).
                advice = f"is the device with these credentials marked as a gateway in ThingsBoard? {advice}"
            raise CommandError(f"No acknowledgement for {self._options.timeout:g} s", ExitCode.TIMEOUT, advice) from None
        finally:
            self._deadline = None
        if failure is not None:
            raise failure

    async def _accept(self, record: Record) -> None:
        await self._slots.acquire()
        try:
            delivery = await self._sender.send(record)
        except ValueError:
            self._slots.release()
            raise
        self._pending += 1
        self._all_settled.clear()
        if self._pending == 1:
            self._set_deadline()
        delivery.add_done_callback(self._settled)

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
