"""When a message may go: rate limits and backpressure of one client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tb_mqtt_client._native import TokenBuckets, take_all
from tb_mqtt_client.common.logging_utils import OccasionalLog, get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.rate_limit.backpressure_controller import BackpressureController
from tb_mqtt_client.common.rate_limit.rate_limit import EMPTY_RATE_LIMIT, RateLimit
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter, unlimited
from tb_mqtt_client.constants.mqtt_topics import GATEWAY_CONNECT_TOPIC
from tb_mqtt_client.service.delivery.learned_limits import Amounts, LearnedLimits, Stamp
from tb_mqtt_client.service.delivery.packing import NO_BOUNDS, MessageBounds, smallest_bound

logger = get_logger(__name__)

FIRST_CONTACT_COST = 2
"""Messages that the announcement of a sub-device costs: its creation and its session (docs/platform_contract.md, section 4)."""
NANOSECONDS = 1e9
BLAME_SECONDS = 30.0
"""If connections end for limits within so many seconds, the kind of traffic that was blamed first may be innocent."""


@dataclass(slots=True)
class Traffic:
    """One kind of messages, and all limits that it is counted on."""

    learned: LearnedLimits
    announced: list[RateLimit]
    own: list[RateLimit] = field(default_factory=list)
    """The user's."""
    largest_known: tuple[int, ...] = ()
    """The most that one message may take by ``announced`` and ``own``, as of the last ``refresh``; 0 for no bound."""

    def refresh(self) -> None:
        """Take new windows of ``announced`` and ``own`` into account."""
        both = [limits for limits in (self.announced, self.own) if limits]
        self.largest_known = tuple(smallest_bound(*[limit.minimal_limit for limit in pair]) for pair in zip(*both, strict=True))

    def largest(self) -> tuple[int, ...]:
        """Return the most that one message may take from each limit; 0 for no bound."""
        if not self.learned.active:
            return self.largest_known
        pairs = zip(self.largest_known, self.learned.limits, strict=True)
        return tuple([smallest_bound(known, limit.largest) for known, limit in pairs])


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
        self.backpressure = backpressure
        self._clock = clock
        self._changed = asyncio.Event()
        self._waiting = 0
        self._limited_since = 0
        self._nanoseconds_limited = 0
        self._log = OccasionalLog(logger)
        self._blamed: Traffic | None = None
        self._blamed_at = 0
        """For the limits of which kind of traffic a connection ended last, and when."""
        device_limits, gateway_limits = device, gateway or unlimited("gateway")
        self._device_service = _service_traffic("device", device_limits)
        self._device_data = _data_traffic("device", device_limits)
        self._gateway_service = _service_traffic("gateway", gateway_limits)
        self._gateway_data = _data_traffic("gateway", gateway_limits)
        for traffic in self._all():
            traffic.refresh()

    @property
    def seconds_limited(self) -> float:
        """Seconds in which a message waited for the limits."""
        running = self._clock() - self._limited_since if self._waiting else 0
        return (self._nanoseconds_limited + running) / NANOSECONDS

    @property
    def limited(self) -> bool:
        """Whether a message waits for the limits now, or for the end of a pause."""
        return self._waiting > 0

    def set_own_limits(self, limiter: RateLimiter) -> None:
        """Apply limits of the user to all that the client publishes, in addition to those of the server."""
        of_data = [limiter.telemetry_datapoints_rate_limit, limiter.telemetry_message_rate_limit]
        for traffic in (self._device_service, self._gateway_service):
            traffic.own = [limiter.message_rate_limit] if limiter.message_rate_limit.has_limit() else []
        for traffic in (self._device_data, self._gateway_data):
            traffic.own = of_data if any(limit.has_limit() for limit in of_data) else []
        self.limits_changed()

    def bounds(self, *, gateway: bool) -> MessageBounds:
        """Return how much a message with datapoints may hold."""
        datapoints, devices = (self._gateway_data if gateway else self._device_data).largest()
        return MessageBounds(datapoints, devices) if datapoints or devices else NO_BOUNDS

    def largest_service_message(self, *, gateway: bool) -> int:
        """Return how many of the limit ``messages`` one message may take at most; 0 for no bound."""
        [largest] = (self._gateway_service if gateway else self._device_service).largest()
        return largest

    def try_take(self, message: MqttPublishMessage) -> float:
        """Take what the message needs. Seconds to wait; 0.0 when it was taken."""
        traffic, amounts = self._traffic_of(message), _amounts(message)
        now = self._clock()
        wait = self._try_take(traffic, amounts, now, message)
        if not wait:
            message.stamp = traffic.learned.record(amounts, now)
        return wait

    def try_take_subscription(self, topic: str) -> float:
        """The same for a SUBSCRIBE that the server counts as a message of the device (docs/platform_contract.md, section 5)."""
        now = self._clock()
        wait = self._try_take(self._device_service, (1,), now, topic)
        if not wait:
            self._device_service.learned.record((1,), now)
        return wait

    def _try_take(self, traffic: Traffic, amounts: Amounts, now: int, what: object) -> float:
        pause = self.backpressure.remaining()
        if pause > 0:
            return pause
        requests = [_request(limit, amount) for limit, amount in zip(traffic.announced, amounts, strict=True)]
        if traffic.own:
            requests += [_request(limit, amount) for limit, amount in zip(traffic.own, amounts, strict=True)]
        learned = traffic.learned
        if learned.active:
            requests += learned.requests(amounts, now)
        wait = take_all(requests, now)
        if wait is None:
            return 0.0
        if learned.active:
            learned.note_limited(amounts, now)
        nanoseconds, capacity, seconds = wait
        logger.debug("Limit %d:%g reached, %r waits %.3f s", capacity, seconds, what, nanoseconds / NANOSECONDS)
        return nanoseconds / NANOSECONDS

    def admits_ever(self, message: MqttPublishMessage) -> bool:
        """Whether the limits of now have room for so many datapoints and devices in one message."""
        if message.is_service_message:
            return True
        datapoints, devices = self._traffic_of(message).largest()
        if not datapoints and not devices:
            return True
        # One datapoint of one device cannot be made smaller: an estimate must not stand in its way.
        written = message.datapoints - message.superseded
        return (written <= max(1, datapoints) or not datapoints) and (message.devices <= max(1, devices) or not devices)

    def refused(self, message: MqttPublishMessage, source: str) -> None:
        """Learn from a PUBACK that refused a message for a quota.

        The server works on the messages of one connection in their order (docs/platform_contract.md, section 4), so those before
        this one were accepted, even if their PUBACKs never come.
        """
        self._learn([message], source)

    def disconnected_for_limit(self, messages: Iterable[MqttPublishMessage], source: str, *, is_guess: bool = False) -> None:
        """Learn from the end of a connection that exceeded a limit, or, as a guess, may have.

        ``messages``: those without PUBACK that may have exceeded it, in order.
        """
        self._learn(self._of_likeliest_kind(list(messages)), source, is_guess=is_guess)

    def _of_likeliest_kind(self, messages: list[MqttPublishMessage]) -> list[MqttPublishMessage]:
        """Return the messages of the kind of traffic whose limit was exceeded, which the server does not say.

        That is data, unless data was slowed down for the last refusal and there are as many messages of another kind as ever.
        """
        order = self._device_data, self._gateway_data, self._device_service, self._gateway_service
        kinds = [(one, of) for one in order if (of := [message for message in messages if self._traffic_of(message) is one])]
        (first, likeliest), others = kinds[0], kinds[1:]
        now = self._clock()
        if first is self._blamed and now - self._blamed_at < BLAME_SECONDS * NANOSECONDS:
            for other, of in others:
                if other.learned.is_at_peak(now):
                    first.learned.doubt(now)
                    return of
        return likeliest

    def disconnected_for_limit_at_qos_0(self, message: MqttPublishMessage, source: str, *, is_guess: bool = False) -> None:
        """Learn as ``disconnected_for_limit`` does where nothing is acknowledged. ``message``: the last one that was published."""
        learned = self._traffic_of(message).learned
        first, last = learned.unsure(self._clock())
        if first != last:
            self._learn_between(learned, first, last, (0,) * len(last.totals), source, is_guess=is_guess)

    def _learn(self, messages: list[MqttPublishMessage], source: str, *, is_guess: bool = False) -> None:
        first, last = messages[0], messages[-1]
        if isinstance(first.stamp, Stamp) and isinstance(last.stamp, Stamp):
            self._blamed, self._blamed_at = self._traffic_of(first), self._clock()
            learned = self._blamed.learned
            self._learn_between(learned, first.stamp, last.stamp, _amounts(last), source, is_guess=is_guess)

    def _learn_between(
        self, limits: LearnedLimits, first: Stamp, last: Stamp, refused: Amounts, source: str, *, is_guess: bool
    ) -> None:
        learned = limits.learn(first, last, refused, source, self._clock(), is_guess=is_guess)
        for limit in learned:
            state = limit.state()
            self._log.warn_of(
                state.limit,
                "The server %s a limit on %s that it did not announce (%s): about %g a second, %g are used from now on. "
                "If this is not the limit that was exceeded, the client finds out by itself",
                "may enforce" if is_guess else "enforces",
                state.limit,
                source,
                state.estimate,
                state.per_second,
            )
        if learned:
            self.limits_changed()

    def retract(self, messages: Iterable[MqttPublishMessage]) -> None:
        """Do not count messages without PUBACK as accepted: their connection may have ended for a limit."""
        # Backwards, so that the first message of each kind has the last word.
        for message in reversed(list(messages)):
            if isinstance(message.stamp, Stamp):
                self._traffic_of(message).learned.retract(message.stamp)

    def connection_lost(self) -> None:
        """Take into account that a connection ended for another reason than a limit: limits may have changed meanwhile."""
        now = self._clock()
        for traffic in self._all():
            traffic.learned.connection_lost(now)

    def learned_limits(self) -> list[dict[str, Any]]:
        """Return what was learned from refusals, as JSON values: limit, per_second, estimate, source, refusals."""
        return [
            {
                "limit": state.limit,
                "per_second": state.per_second,
                "estimate": state.estimate,
                "source": state.source,
                "refusals": state.refusals,
            }
            for traffic in self._all()
            for limit in traffic.learned.limits
            if limit.rate is not None
            for state in [limit.state()]
        ]

    def likely_limit(self, message: MqttPublishMessage) -> str:
        """For the log, when the server says that a limit was exceeded: which one it may have been."""
        now = self._clock()
        traffic = self._traffic_of(message)
        fullest = [
            (_least_filled(limit.buckets, now), limit.name) for limit in (*traffic.announced, *traffic.own) if limit.has_limit()
        ]
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
        """Apply new windows: wake the workers that wait by the old ones."""
        for traffic in self._all():
            traffic.refresh()
        self._changed.set()

    def limits_of(self, message: MqttPublishMessage) -> tuple[RateLimit, RateLimit]:
        """The limits of messages and of datapoints that a message is counted on."""
        announced = self._traffic_of(message).announced
        if message.is_service_message:
            return announced[0], EMPTY_RATE_LIMIT
        datapoints, messages = announced
        return messages, datapoints

    def _traffic_of(self, message: MqttPublishMessage) -> Traffic:
        if message.is_device_message:
            return self._device_service if message.is_service_message else self._device_data
        return self._gateway_service if message.is_service_message else self._gateway_data

    def _all(self) -> tuple[Traffic, ...]:
        return self._device_service, self._device_data, self._gateway_service, self._gateway_data


def _service_traffic(whose: str, limiter: RateLimiter) -> Traffic:
    return Traffic(LearnedLimits(f"{whose} messages"), [limiter.message_rate_limit])


def _data_traffic(whose: str, limiter: RateLimiter) -> Traffic:
    learned = LearnedLimits(f"{whose} telemetry datapoints", f"{whose} telemetry messages")
    return Traffic(learned, [limiter.telemetry_datapoints_rate_limit, limiter.telemetry_message_rate_limit])


def _amounts(message: MqttPublishMessage) -> Amounts:
    """Return what a message takes from each limit of its ``Traffic``."""
    if message.is_service_message:
        # Of several devices: their keep-alive.
        return (FIRST_CONTACT_COST if message.topic == GATEWAY_CONNECT_TOPIC else message.devices,)
    return message.datapoints - message.superseded, message.devices


def _request(limit: RateLimit, amount: int) -> tuple[TokenBuckets, int]:
    # A service message larger than a window of today could never go otherwise.
    return limit.buckets, min(amount, limit.minimal_limit or amount)


def _least_filled(buckets: TokenBuckets, now: int) -> float:
    windows = zip(buckets.windows, buckets.tokens(now), strict=True)
    return min(tokens / capacity for (capacity, _), tokens in windows)
