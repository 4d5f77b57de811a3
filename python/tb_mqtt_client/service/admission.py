"""When a message may go: rate limits and backpressure of one client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tb_mqtt_client._native import TokenBuckets, take_all
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.rate_limit.backpressure_controller import BackpressureController
from tb_mqtt_client.common.rate_limit.rate_limit import EMPTY_RATE_LIMIT, RateLimit
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter, unlimited
from tb_mqtt_client.constants.mqtt_topics import GATEWAY_CONNECT_TOPIC

logger = get_logger(__name__)

FIRST_CONTACT_COST = 2
"""Messages that the announcement of a sub-device costs: its creation and its session (platform_contract.md, section 4)."""
NANOSECONDS = 1e9


class Admission:
    """Everything that a message needs is taken at once, or its worker waits, without a token taken."""

    def __init__(
        self,
        device: RateLimiter,
        gateway: RateLimiter | None,
        backpressure: BackpressureController,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``device`` limits the connected device's own traffic, ``gateway`` the sum of its sub-devices (``None``: no limits);
        monotonic nanoseconds.
        """
        self._device = device
        self._gateway = gateway or unlimited("gateway")
        self.backpressure = backpressure
        self._clock = clock
        self._changed = asyncio.Event()
        self._waiting = 0
        self._limited_since = 0
        self._nanoseconds_limited = 0

    @property
    def seconds_limited(self) -> float:
        """Seconds in which a message waited for the limits."""
        running = self._clock() - self._limited_since if self._waiting else 0
        return (self._nanoseconds_limited + running) / NANOSECONDS

    @property
    def limited(self) -> bool:
        """Whether a message waits for the limits now, or for the end of a pause."""
        return self._waiting > 0

    def try_take(self, message: MqttPublishMessage) -> float:
        """Take what the message needs. Seconds to wait; 0.0 when it was taken."""
        return self._try_take(self._needs(message), message)

    def try_take_subscription(self, topic: str) -> float:
        """The same for a SUBSCRIBE that the server counts as a message of the device (platform_contract.md, section 5)."""
        return self._try_take([(self._device.message_rate_limit, 1)], topic)

    def _try_take(self, needs: list[tuple[RateLimit, int]], what: object) -> float:
        pause = self.backpressure.remaining()
        if pause > 0:
            return pause
        # A service message larger than a window of today could never go otherwise.
        requests = [(limit.buckets, min(needed, limit.minimal_limit or needed)) for limit, needed in needs]
        wait = take_all(requests, self._clock())
        if wait is None:
            return 0.0
        nanoseconds, capacity, seconds = wait
        logger.debug("Limit %d:%g reached, %r waits %.3f s", capacity, seconds, what, nanoseconds / NANOSECONDS)
        return nanoseconds / NANOSECONDS

    def admits_ever(self, message: MqttPublishMessage) -> bool:
        """Whether the limits of now have room for so many datapoints and devices in one message."""
        return message.is_service_message or all(
            needed <= (limit.minimal_limit or needed) for limit, needed in self._needs(message)
        )

    def likely_limit(self, message: MqttPublishMessage) -> str:
        """For the log, when the server says that a limit was exceeded: which one it may have been."""
        now = self._clock()
        fullest = [(_least_filled(limit.buckets, now), limit.name) for limit, _ in self._needs(message) if limit.has_limit()]
        if not fullest:
            return "one that the server did not announce, such as the tenant's"
        return f"{min(fullest)[1]}, or one that the server did not announce, such as the tenant's"

    async def wait(self, seconds: float) -> None:
        """Wait that long, or until the limits change."""
        if not self._waiting:
            self._limited_since = self._clock()
        self._waiting += 1
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._nanoseconds_limited += self._clock() - self._limited_since

    def limits_changed(self) -> None:
        """Wake those who wait by the old limits."""
        self._changed.set()

    def limits_of(self, message: MqttPublishMessage) -> tuple[RateLimit, RateLimit]:
        """The limits of messages and of datapoints that a message is counted on."""
        limiter = self._limiter_of(message)
        if message.is_service_message:
            return limiter.message_rate_limit, EMPTY_RATE_LIMIT
        return limiter.telemetry_message_rate_limit, limiter.telemetry_datapoints_rate_limit

    def _limiter_of(self, message: MqttPublishMessage) -> RateLimiter:
        return self._device if message.is_device_message else self._gateway

    def _needs(self, message: MqttPublishMessage) -> list[tuple[RateLimit, int]]:
        limiter = self._limiter_of(message)
        if message.is_service_message:
            # Of several devices: their keep-alive.
            cost = FIRST_CONTACT_COST if message.topic == GATEWAY_CONNECT_TOPIC else message.devices
            return [(limiter.message_rate_limit, cost)]
        return [
            (limiter.telemetry_message_rate_limit, message.devices),
            (limiter.telemetry_datapoints_rate_limit, message.datapoints - message.superseded),
        ]


def _least_filled(buckets: TokenBuckets, now: int) -> float:
    windows = zip(buckets.windows, buckets.tokens(now), strict=True)
    return min(tokens / capacity for (capacity, _), tokens in windows)
