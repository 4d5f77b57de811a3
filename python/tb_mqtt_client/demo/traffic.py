"""The data that the demo sends. The combination of device, key and timestamp is unique, so no datapoint replaces another.

The live metrics have the time of their reading. The bulk that follows has the milliseconds before the start of the
program, like a history that ends where the live metrics begin.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tb_mqtt_client import GatewayClient, PublishResult
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.demo.metrics import Machine, Reading, Values, sized
from tb_mqtt_client.service.gateway.device_session import DeviceSession

SECONDS_BETWEEN_READINGS = 0.25
MAX_PENDING_SENDS = 5_000
"""Sends without a result at a time: enough to fill every payload, few enough to need little memory."""

# Each bucket is 1 % wide, which is the precision of a percentile.
_BUCKET_WIDTH = math.log(1.01)


class DemoError(Exception):
    """The demo cannot continue; the message is for the user."""


class Latencies:
    """A histogram of durations, whose buckets grow with the duration. Its memory does not depend on their number."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one duration."""
        # The minimum, which is the resolution of the clock, keeps the logarithm finite.
        self._buckets[round(math.log(max(seconds, 1e-9)) / _BUCKET_WIDTH)] += 1

    def percentile(self, percent: float) -> float | None:
        """Return the seconds that ``percent`` of the durations did not exceed, or ``None`` if there are no durations."""
        rank = math.ceil(self._buckets.total() * percent / 100)
        reached = 0
        for bucket, count in sorted(self._buckets.items()):
            reached += count
            if reached >= rank:
                return math.exp(bucket * _BUCKET_WIDTH)
        return None


@dataclass
class Results:
    """The results of all sends, counted by the caller. They must agree with the numbers of the client and the platform."""

    sent: int = 0
    """Datapoints that were sent."""
    resolved: int = 0
    """Datapoints that have a result."""
    failed_sends: int = 0
    """Sends whose result is not successful."""
    first_failure: str | None = None
    last_result: float = field(default_factory=time.monotonic)
    """When the last result arrived, by the monotonic clock."""

    def add(self, result: PublishResult, datapoints: int) -> None:
        """Count the result of one send."""
        self.resolved += datapoints
        self.last_result = time.monotonic()
        if not result.is_successful():
            self.failed_sends += 1
            self.first_failure = self.first_failure or f"{result}"


class Traffic:
    """Sends data for the sub-devices of one gateway."""

    def __init__(self, client: GatewayClient, machine: Machine, device_count: int | None) -> None:
        self._client = client
        self._machine = machine
        self._device_count = device_count
        self._sessions: dict[str, DeviceSession] = {}
        self._began_ms = time.time_ns() // 1_000_000
        self._readings: list[list[Reading]] = []
        self._last_live_ms = self._began_ms
        self._slots = asyncio.Semaphore(MAX_PENDING_SENDS)
        self.results: Results = Results()
        self.live_latencies: Latencies = Latencies()
        self.bulk_latencies: Latencies = Latencies()

    async def register(self) -> int:
        """Announce every part of the machine as a sub-device.

        Returns:
            The number of sub-devices.

        Raises:
            DemoError: If there are no metrics, or if the platform does not accept a sub-device.
        """
        readings = await self._read()
        if not readings:
            raise DemoError("no metrics of this machine can be read")
        for device, profile, _ in readings:
            session, result = await self._client.connect_device(device, profile, wait_for_publish=True)
            if not isinstance(result, PublishResult) or result.reason_code == LocalReasonCode.NOT_DELIVERED:
                # If the device is not a gateway, the platform silently drops its data for sub-devices (docs/platform_contract.md,
                # section 4).
                raise DemoError(
                    f"no acknowledgement for the sub-device {device!r}: "
                    "is the device with this token marked as a gateway in ThingsBoard?"
                )
            if not result.is_successful():
                raise DemoError(f"the platform refused the sub-device {device!r}: {result.reason}")
            self._sessions[device] = session
        return len(self._sessions)

    async def stream(self, seconds: float) -> None:
        """Send live metrics for a duration, each reading after the previous one is acknowledged, and at least one reading."""
        end = time.monotonic() + seconds
        while True:
            # Timestamps grow even if the clock is set back, so that none is used twice.
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
        """Send exactly this number of datapoints as fast as the client accepts them, by repeating the readings of ``stream``."""
        for device, ts, values in self._history(datapoints):
            await self._send(device, ts, values, self.bulk_latencies)
        await self.drain()

    async def drain(self) -> None:
        """Wait until every send has a result."""
        for _ in range(MAX_PENDING_SENDS):
            await self._slots.acquire()
        for _ in range(MAX_PENDING_SENDS):
            self._slots.release()

    async def _read(self) -> list[Reading]:
        # In a thread, because a disk that does not respond must not block the connection.
        return sized(await asyncio.to_thread(self._machine.read), self._device_count)

    async def _send(self, device: str, ts: int, values: Values, latencies: Latencies) -> None:
        await self._slots.acquire()
        began = time.monotonic()
        # The result is not awaited here, so a send costs a future instead of a round trip. If rate limits slow the client
        # down, the send itself waits.
        future = await self._client.send_device_timeseries(
            self._sessions[device], {"ts": ts, "values": values}, wait_for_publish=False
        )
        count = len(values)
        self.results.sent += count

        def resolved(done: asyncio.Future[PublishResult]) -> None:
            self._slots.release()
            if not done.cancelled():
                latencies.add(time.monotonic() - began)
                self.results.add(done.result(), count)

        future.add_done_callback(resolved)

    def _history(self, datapoints: int) -> Iterator[tuple[str, int, Values]]:
        """Yield readings with the milliseconds before the start of the program, with exactly this number of datapoints."""
        rounds, left = 0, datapoints
        while left > 0:
            left -= sum(len(values) for _, _, values in self._readings[rounds % len(self._readings)])
            rounds += 1
        left = datapoints
        for number in range(rounds):
            ts = self._began_ms - rounds + number
            for device, _, values in self._readings[number % len(self._readings)]:
                if left < len(values):
                    values = dict(list(values.items())[:left])  # noqa: PLW2901 - the rest for the last send
                if values:
                    yield device, ts, values
                left -= len(values)
