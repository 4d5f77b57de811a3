"""Records on their way through a client, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from tb_mqtt_client import DeviceClient, GatewayClient, PublishResult, Statistics
from tb_mqtt_client.cli.outcomes import CommandError, ExitCode
from tb_mqtt_client.cli.reading import Batch
from tb_mqtt_client.cli.records import BadLine, Record
from tb_mqtt_client.cli.terminal import Terminal, counted
from tb_mqtt_client.common.clock import now_ms
from tb_mqtt_client.common.statistics import DELIVERY_STATES
from tb_mqtt_client.constants.reason_codes import reason_name
from tb_mqtt_client.service.gateway.device_session import DeviceSession

CALLS_PENDING = 10_000
"""Calls without an answer at a time: enough for full payloads, few enough to stay small in memory."""
BAD_LINES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Orders:
    """How records are to be sent."""

    attributes: bool
    silence: float
    """Seconds without an answer after which it gives up."""
    device_profile: str = "default"
    skip_bad: bool = False


class Sender:
    """Sends records through a connected client, and waits for their answers."""

    def __init__(self, client: DeviceClient, orders: Orders, terminal: Terminal) -> None:
        self._client = client
        self._orders = orders
        self._terminal = terminal
        self._sessions: dict[str, DeviceSession] = {}
        self._pending = 0
        self._room = asyncio.Semaphore(CALLS_PENDING)
        self._all_answered = asyncio.Event()
        self._all_answered.set()
        self._deadline: asyncio.Timeout | None = None
        self.records = 0
        """Records that the client accepted."""
        self.bad_lines = 0

    async def send_all(self, batches: AsyncIterator[Batch]) -> None:
        """Send, and wait for all answers.

        Raises ``CommandError`` for a bad line unless these are skipped (what was sent before is waited for), and when no
        answer comes any more.
        """
        failure: CommandError | None = None
        try:
            async with asyncio.timeout(None) as self._deadline:
                try:
                    await self._send_each(batches)
                except CommandError as error:
                    failure = error
                await self._all_answered.wait()
        except TimeoutError:
            advice = "is the connection up? --verbose tells, and tb-mqtt doctor looks at each step"
            if self._sessions:
                # The platform says nothing to others (platform_contract.md, section 4).
                advice = f"is the device with these credentials marked as a gateway in ThingsBoard? {advice}"
            raise CommandError(f"There was no answer for {self._orders.silence:g} s", ExitCode.TIMEOUT, advice) from None
        finally:
            self._deadline = None
        if failure is not None:
            raise failure

    async def _send_each(self, batches: AsyncIterator[Batch]) -> None:
        try:
            async for batch in batches:
                for item in batch:
                    if isinstance(item, Record):
                        await self._send(item)
                    else:
                        self._bad(item)
        except (OSError, ValueError) as error:
            raise CommandError(f"The input is not usable: {error}", ExitCode.USAGE) from error

    async def _send(self, record: Record) -> None:
        await self._room.acquire()
        try:
            delivery = await self._accept(record)
        except ValueError as error:
            self._room.release()
            self._bad(BadLine(record.line, str(error)))
            return
        self.records += 1
        self._pending += 1
        self._all_answered.clear()
        if self._pending == 1:
            self._wait_for_answers()
        delivery.add_done_callback(self._answered)

    async def _accept(self, record: Record) -> asyncio.Future[PublishResult]:
        """Give a record to the client. Raises ``ValueError`` for what the platform cannot store."""
        # Always with a time: a key of the record may be called "ts".
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

    def _answered(self, _delivery: asyncio.Future[PublishResult]) -> None:
        self._room.release()
        self._pending -= 1
        if not self._pending:
            self._all_answered.set()
        self._wait_for_answers()

    def _wait_for_answers(self) -> None:
        """Somebody who waits for input is not late; a client that waits for answers may be."""
        if self._deadline is not None and not self._deadline.expired():
            at = asyncio.get_running_loop().time() + self._orders.silence
            self._deadline.reschedule(at if self._pending else None)

    def _bad(self, bad: BadLine) -> None:
        self.bad_lines += 1
        text = f"line {bad.line}: {bad.reason}" if bad.line else bad.reason
        if not self._orders.skip_bad:
            raise CommandError(
                f"Nothing is sent from here on: {text}" if bad.line else text,
                ExitCode.USAGE,
                "--skip-bad reports such lines and goes on" if bad.line else "",
            )
        if self.bad_lines <= BAD_LINES_SHOWN:
            self._terminal.note(f"skipped {text}", "warning")
        if self.bad_lines == BAD_LINES_SHOWN:
            self._terminal.note("more of these are counted, and not shown")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The sums at the end."""

    statistics: Statistics
    records: int
    bad_lines: int
    seconds: float
    failed: bool
    """It ended before all of it was sent and answered."""

    def exit_code(self) -> ExitCode:
        """The truth."""
        if self.statistics.acknowledged != self.statistics.accepted:
            return ExitCode.REFUSED
        return ExitCode.SKIPPED if self.bad_lines else ExitCode.DONE

    def show(self, terminal: Terminal) -> None:
        """To stdout: the sum, and what is worth a word about it."""
        if terminal.as_json:
            terminal.document(self._document())
            return
        statistics = self.statistics
        mark = {ExitCode.DONE: "good", ExitCode.SKIPPED: "warning"}.get(self.exit_code(), "bad")
        if self.failed and mark == "good":
            mark = "warning"
        states = {state: getattr(statistics, state) for state in DELIVERY_STATES}
        # The first one always: a sum needs a second side.
        terms = [f"{name} {count:,}".replace("_", " ") for name, count in states.items() if count or name == "acknowledged"]
        sum_ = f"accepted {statistics.accepted:,} = {' + '.join(terms)} datapoints"
        terminal.line(terminal.marked(terminal.out, mark, sum_))
        for code, count in sorted(statistics.rejected_by_reason.items()):
            terminal.line(f"  rejected: {count:,} as {reason_name(code)} ({code:#04x})")
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

    def _document(self) -> dict[str, Any]:
        others = {"records": self.records, "bad_lines": self.bad_lines, "seconds": round(self.seconds, 3)}
        return self.statistics.as_dict() | others
