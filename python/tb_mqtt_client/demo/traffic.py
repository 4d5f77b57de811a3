"""What the demo sends. Every datapoint has a (device, key, timestamp) of its own, so that none can replace another.

The live metrics carry the time of their reading. The bulk that follows carries the milliseconds before the program
began: a history that ends where the live metrics begin.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tb_mqtt_client import GatewayClient, PublishResult
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.demo.latency import Latencies
from tb_mqtt_client.demo.metrics import Machine, Reading, Values, sized
from tb_mqtt_client.service.gateway.device_session import DeviceSession

SECONDS_BETWEEN_READINGS = 0.25
CALLS_IN_FLIGHT = 5_000
"""Calls without an answer at a time: enough to fill every payload, few enough to stay small in memory."""


class DemoError(Exception):
    """The demo cannot go on; the text is for the person in front of it."""


@dataclass
class Answers:
    """What became of the calls, counted here and not by the client: one of the two sides that must agree."""

    sent: int = 0
    answered: int = 0
    failed_calls: int = 0
    first_failure: str | None = None
    last_answer: float = field(default_factory=time.monotonic)

    def add(self, result: PublishResult, datapoints: int) -> None:
        self.answered += datapoints
        self.last_answer = time.monotonic()
        if not result.is_successful():
            self.failed_calls += 1
            self.first_failure = self.first_failure or f"{result}"


class Traffic:
    """The sub-devices of one gateway and what is sent for them."""

    def __init__(self, client: GatewayClient, machine: Machine, device_count: int | None) -> None:
        self._client = client
        self._machine = machine
        self._device_count = device_count
        self._sessions: dict[str, DeviceSession] = {}
        self._began_ms = time.time_ns() // 1_000_000
        self._readings: list[list[Reading]] = []
        self._last_live_ms = self._began_ms
        self._room = asyncio.Semaphore(CALLS_IN_FLIGHT)
        self.answers = Answers()
        self.live_latencies = Latencies()
        self.bulk_latencies = Latencies()

    async def register(self) -> int:
        """Announce every part of the machine as a sub-device; give their number."""
        readings = await self._read()
        if not readings:
            raise DemoError("no metrics of this machine can be read")
        for device, profile, _ in readings:
            session, result = await self._client.connect_device(device, profile, wait_for_publish=True)
            if not isinstance(result, PublishResult) or result.reason_code == LocalReasonCode.NOT_DELIVERED:
                # The platform silently drops data for others from a device that is not a gateway (platform_contract.md, section 4).
                raise DemoError(
                    f"no acknowledgement for the sub-device {device!r}: "
                    "is the device with this token marked as a gateway in ThingsBoard?"
                )
            if not result.is_successful():
                raise DemoError(f"the platform refused the sub-device {device!r}: {result.reason}")
            self._sessions[device] = session
        return len(self._sessions)

    async def stream(self, seconds: float) -> None:
        """Send live metrics, each reading after the one before is acknowledged. One reading at least."""
        end = time.monotonic() + seconds
        while True:
            # A clock that is set back must not give a timestamp twice.
            self._last_live_ms = max(self._last_live_ms + 1, time.time_ns() // 1_000_000)
            readings = [reading for reading in await self._read() if reading.device in self._sessions]
            self._readings.append(readings)
            for device, _, values in readings:
                await self._send(device, self._last_live_ms, values, self.live_latencies)
            await self.drain()
            left = end - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(SECONDS_BETWEEN_READINGS, left))

    async def bulk(self, datapoints: int) -> None:
        """Send exactly so many datapoints, as fast as the client takes them: `stream`'s readings again and again."""
        for device, ts, values in self._history(datapoints):
            await self._send(device, ts, values, self.bulk_latencies)
        await self.drain()

    async def drain(self) -> None:
        """Wait until every call has its answer."""
        for _ in range(CALLS_IN_FLIGHT):
            await self._room.acquire()
        for _ in range(CALLS_IN_FLIGHT):
            self._room.release()

    async def _read(self) -> list[Reading]:
        # In a thread: a disk that does not answer must not hold up the connection.
        return sized(await asyncio.to_thread(self._machine.read), self._device_count)

    async def _send(self, device: str, ts: int, values: Values, latencies: Latencies) -> None:
        await self._room.acquire()
        began = time.monotonic()
        # Without waiting here, a call costs a future instead of a round trip; where the limits hold the client up, it
        # makes this call wait itself.
        future = await self._client.send_device_timeseries(
            self._sessions[device], {"ts": ts, "values": values}, wait_for_publish=False
        )
        count = len(values)
        self.answers.sent += count

        def answered(done: asyncio.Future[PublishResult]) -> None:
            self._room.release()
            if not done.cancelled():
                latencies.add(time.monotonic() - began)
                self.answers.add(done.result(), count)

        future.add_done_callback(answered)

    def _history(self, datapoints: int) -> Iterator[tuple[str, int, Values]]:
        """Give readings with the milliseconds that end where the program began, cut to the number asked for."""
        rounds, left = 0, datapoints
        while left > 0:
            left -= sum(len(values) for _, _, values in self._readings[rounds % len(self._readings)])
            rounds += 1
        left = datapoints
        for number in range(rounds):
            ts = self._began_ms - rounds + number
            for device, _, values in self._readings[number % len(self._readings)]:
                if left < len(values):
                    values = dict(list(values.items())[:left])  # noqa: PLW2901 - the last call's share
                if values:
                    yield device, ts, values
                left -= len(values)
