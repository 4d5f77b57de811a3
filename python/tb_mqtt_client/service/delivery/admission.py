"""Decides when a message may be published: rate limits and backpressure of one client."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from tb_mqtt_client._native import TokenBuckets, take_all
from tb_mqtt_client.common.logging_utils import ExtendedLogger, OccasionalLog, get_logger
from tb_mqtt_client.common.rate_limit.backpressure_controller import UNKNOWN_LIMIT, BackpressureController
from tb_mqtt_client.common.rate_limit.rate_limit import RateLimit
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter
from tb_mqtt_client.service.delivery.learned_limits import Amounts, LearnedLimits, Stamp
from tb_mqtt_client.service.delivery.payload_limits import PayloadLimits, smallest_bound
from tb_mqtt_client.service.delivery.work_item import WorkItem

logger: ExtendedLogger = get_logger(__name__)

FIRST_CONTACT_COST = 2
"""Tokens that an announcement takes: the platform counts one message for the device and one for its session
(docs/platform_contract.md, section 4)."""
NANOSECONDS = 1e9
APPLYING_SHARE = 0.5
"""A limit applies while less than this share of its tokens is left."""
BLAME_SECONDS = 30.0
"""If another limit is exceeded within this many seconds, the kind of traffic that was slowed down may not have been the cause."""


class Traffic:
    """One kind of messages, and the limits that apply to it."""

    def __init__(self, learned: LearnedLimits, announced: list[RateLimit]) -> None:
        """Create a kind of traffic.

        Args:
            learned: Limits that are learned from refusals.
            announced: Limits that the server announces, for the same amounts in the same order.
        """
        self.learned = learned
        self.announced = announced
        self.own: list[RateLimit] = []
        """Limits of the user, for the same amounts in the same order."""
        self.largest_known: tuple[int, ...] = ()
        """The largest amount that one message may take from each of the announced and own limits; 0 for no bound."""
        self._buckets: list[tuple[TokenBuckets, int, int]] = []
        self.refresh()

    def refresh(self) -> None:
        """Apply new windows of `announced` and `own`."""
        both = [limits for limits in (self.announced, self.own) if limits]
        self._buckets = [
            (limit.buckets, index, limit.minimal_limit)
            for limits in both
            for index, limit in enumerate(limits)
            if limit.has_limit()
        ]
        self.largest_known = tuple(smallest_bound(*[limit.minimal_limit for limit in pair]) for pair in zip(*both, strict=True))

    def largest(self) -> tuple[int, ...]:
        """Return the largest amount that one message may take from each limit, learned limits included; 0 for no bound."""
        if not self.learned.active:
            return self.largest_known
        pairs = zip(self.largest_known, self.learned.limits, strict=True)
        return tuple([smallest_bound(known, limit.largest) for known, limit in pairs])

    def admitted_within(self, seconds: float, now: int) -> list[float]:
        """Return the amounts that the limits admit within a time from now on; infinity where there is no limit."""
        amounts = [math.inf] * len(self.announced)
        for buckets, index, _ in self._buckets:
            for tokens, (capacity, duration) in zip(buckets.tokens(now), buckets.windows, strict=True):
                amounts[index] = min(amounts[index], tokens + capacity * seconds / duration)
        if self.learned.active:
            for index, limit in enumerate(self.learned.limits):
                if limit.rate is not None:
                    amounts[index] = min(amounts[index], limit.rate * seconds)
        return amounts

    def requests(self, amounts: Amounts, now: int) -> list[tuple[TokenBuckets, int]]:
        """Return the tokens that a message takes, in the form of `take_all`."""
        # At most a whole window: a message that needs more tokens could otherwise never be published.
        requests = [(buckets, min(amounts[index], largest)) for buckets, index, largest in self._buckets]
        return requests + self.learned.requests(amounts, now) if self.learned.active else requests


class DataTraffic(Traffic):
    """Messages with datapoints, which are packed to fit in the limits."""

    def __init__(self, learned: LearnedLimits, announced: list[RateLimit], payload_limits: PayloadLimits) -> None:
        """Create a kind of traffic, as `Traffic` does.

        Args:
            learned: Limits of datapoints and of messages.
            announced: Limits of datapoints and of messages.
            payload_limits: Bytes of one message; its datapoints and devices follow from the other limits.
        """
        self.payload_limits: PayloadLimits = payload_limits
        self.most_devices = 0
        """Devices in one message, whatever the limits are; 0 for no bound."""
        super().__init__(learned, announced)

    def refresh(self) -> None:
        """Apply new windows, and new sizes."""
        super().refresh()
        self.narrow()

    def narrow(self) -> PayloadLimits:
        """Bring the limits of one message in line with the other limits, and return them."""
        datapoints, devices = self.largest()
        self.payload_limits = self.payload_limits.narrowed(datapoints, smallest_bound(devices, self.most_devices))
        return self.payload_limits


class Admission:
    """Admits messages: takes the tokens of all limits that apply to a message, or takes none and reports how long to wait."""

    def __init__(
        self,
        device: RateLimiter,
        sub_devices: RateLimiter,
        backpressure: BackpressureController,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Create the admission of one client.

        Args:
            device: Limits of the connected device's own traffic.
            sub_devices: Limits of the sum of a gateway's sub-devices.
            backpressure: Pauses of all publishing.
            clock: Returns monotonic nanoseconds.
        """
        self.backpressure = backpressure
        self.changes: int = 0
        """The number of changes of the limits: a message that was checked since the last change is within them."""
        self._clock = clock
        self._changed = asyncio.Event()
        self._waiting = 0
        self._limited_since = 0
        self._nanoseconds_limited = 0
        self._log = OccasionalLog(logger)
        self._blamed: Traffic | None = None
        """The kind of traffic whose limits were assumed to be exceeded, last."""
        self._blamed_at = 0
        self._device_service = _service_traffic("device", device)
        self._device_data = _data_traffic("device", device, PayloadLimits.of_device())
        self._device_data.most_devices = 1
        self._gateway_service = _service_traffic("gateway", sub_devices)
        self._gateway_data = _data_traffic("gateway", sub_devices, PayloadLimits.of_sub_devices())
        self._all = self._device_service, self._device_data, self._gateway_service, self._gateway_data

    @property
    def seconds_limited(self) -> float:
        """Seconds in which a message waited for the limits."""
        running = self._clock() - self._limited_since if self._waiting else 0
        return (self._nanoseconds_limited + running) / NANOSECONDS

    @property
    def limited(self) -> bool:
        """Whether a message waits for the limits now, or for the end of a pause."""
        return self._waiting > 0

    def set_session(self, max_packet_size: int, mqtt_version: int) -> None:
        """Apply the limits of a new session: the sizes given here, and windows that were set in the rate limiters.

        Args:
            max_packet_size: Bytes of the MQTT remaining length.
            mqtt_version: The protocol version of the session.
        """
        self._device_data.payload_limits = PayloadLimits.of_device(max_packet_size, mqtt_version)
        self._gateway_data.payload_limits = PayloadLimits.of_sub_devices(max_packet_size, mqtt_version)
        self.limits_changed()

    def set_own_limits(self, limiter: RateLimiter) -> None:
        """Apply limits of the user to everything that the client publishes, in addition to those of the server."""
        of_data = [limiter.telemetry_datapoints_rate_limit, limiter.telemetry_message_rate_limit]
        for traffic in (self._device_service, self._gateway_service):
            traffic.own = [limiter.message_rate_limit] if limiter.message_rate_limit.has_limit() else []
        for traffic in (self._device_data, self._gateway_data):
            traffic.own = of_data if any(limit.has_limit() for limit in of_data) else []
        self.limits_changed()

    def set_most_devices(self, devices: int) -> None:
        """Limit the sub-devices whose data one message combines; 0 for no limit but those of the server."""
        self._gateway_data.most_devices = devices
        self.limits_changed()

    def payload_limits(self, *, of_sub_devices: bool) -> PayloadLimits:
        """Return how much a message with datapoints may hold."""
        traffic = self._gateway_data if of_sub_devices else self._device_data
        return traffic.narrow() if traffic.learned.active else traffic.payload_limits

    def admitted_within(self, seconds: float, *, of_sub_devices: bool) -> tuple[float, float]:
        """Return how many datapoints and messages the limits admit within a time from now on; infinity for no limit.

        Args:
            seconds: The time.
            of_sub_devices: Whose limits; each sub-device in a message counts as a message.
        """
        traffic = self._gateway_data if of_sub_devices else self._device_data
        datapoints, messages = traffic.admitted_within(seconds, self._clock())
        return datapoints, messages

    def largest_service_message(self, *, of_sub_devices: bool) -> int:
        """Return how many of the limit ``messages`` one message may take at most; 0 for no bound."""
        [largest] = (self._gateway_service if of_sub_devices else self._device_service).largest()
        return largest

    def try_take(self, item: WorkItem) -> float:
        """Take the tokens that a message needs. Return the seconds to wait; 0.0 when they were taken."""
        traffic, amounts = self._traffic_of(item), _amounts(item)
        now = self._clock()
        wait = self._try_take(traffic, amounts, now, item)
        if not wait:
            item.stamp = traffic.learned.record(amounts, now)
        return wait

    def try_take_subscription(self, topic: str) -> float:
        """Take the token of a SUBSCRIBE that the server counts as a message of the device (docs/platform_contract.md, section 5).

        Returns:
            The seconds to wait; 0.0 when the token was taken.
        """
        now = self._clock()
        wait = self._try_take(self._device_service, (1,), now, topic)
        if not wait:
            self._device_service.learned.record((1,), now)
        return wait

    def _try_take(self, traffic: Traffic, amounts: Amounts, now: int, what: object) -> float:
        if self.backpressure.has_paused and (pause := self.backpressure.remaining()) > 0:
            return pause
        wait = take_all(traffic.requests(amounts, now), now)
        if wait is None:
            return 0.0
        if traffic.learned.active:
            traffic.learned.note_limited(amounts, now)
        nanoseconds, capacity, seconds = wait
        logger.debug("Limit %d:%g reached, %r waits %.3f s", capacity, seconds, what, nanoseconds / NANOSECONDS)
        return nanoseconds / NANOSECONDS

    def is_within(self, item: WorkItem) -> bool:
        """Return whether a message has no more datapoints and devices than the limits allow for one message."""
        if not item.has_datapoints:
            return True
        limits = self.payload_limits(of_sub_devices=item.of_sub_devices)
        # One datapoint of one device cannot be split, so a learned limit must not make it unsendable.
        written = item.datapoints - item.superseded
        return (not limits.max_datapoints or written <= max(1, limits.max_datapoints)) and (
            not limits.max_devices or item.devices <= limits.max_devices
        )

    def refused(self, item: WorkItem, source: str) -> None:
        """Learn from a PUBACK that refused a message for a quota.

        The server handles the messages of one connection in their order (docs/platform_contract.md, section 4), so it accepted the
        messages before this one, even if their PUBACKs never arrive.
        """
        self._learn([item], source)

    def disconnected_for_limit(self, items: Iterable[WorkItem], source: str, *, is_guess: bool = False) -> None:
        """Learn from a connection that ended because a limit was exceeded.

        Args:
            items: The unacknowledged messages that may have exceeded it, in their order.
            source: How the limit was noticed, for the log.
            is_guess: Whether the limit is only a possible reason.
        """
        self._learn(self._of_likeliest_kind(list(items)), source, is_guess=is_guess)

    def _of_likeliest_kind(self, items: list[WorkItem]) -> list[WorkItem]:
        """Return the messages of the kind of traffic whose limit was probably exceeded, which the server does not report.

        That is data, unless data was slowed down a moment ago and another kind of traffic was not.
        """
        order = self._device_data, self._gateway_data, self._device_service, self._gateway_service
        kinds = [(one, of) for one in order if (of := [item for item in items if self._traffic_of(item) is one])]
        (first, likeliest), others = kinds[0], kinds[1:]
        now = self._clock()
        if first is self._blamed and now - self._blamed_at < BLAME_SECONDS * NANOSECONDS:
            for other, of in others:
                if other.learned.is_at_peak(now):
                    first.learned.shorten_hold(now)
                    return of
        return likeliest

    def disconnected_for_limit_at_qos_0(self, item: WorkItem, source: str, *, is_guess: bool = False) -> None:
        """Learn from a connection that ended because messages with QoS 0, which are not acknowledged, exceeded a limit.

        Args:
            item: The last of these messages.
            source: How the limit was noticed, for the log.
            is_guess: Whether the limit is only a possible reason.
        """
        learned = self._traffic_of(item).learned
        first, last = learned.unconfirmed(self._clock())
        if first != last:
            self._learn_between(learned, first, last, (0,) * len(last.totals), source, is_guess=is_guess)

    def _learn(self, items: list[WorkItem], source: str, *, is_guess: bool = False) -> None:
        first, last = items[0], items[-1]
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
                "The server %s a limit on %s that it did not announce (%s): about %g per second; the client now uses %g. "
                "If another limit was exceeded, the client corrects this automatically",
                "may enforce" if is_guess else "enforces",
                state.limit,
                source,
                state.estimate,
                state.per_second,
            )
        if learned:
            self.limits_changed()

    def retract(self, items: Iterable[WorkItem]) -> None:
        """Do not count unacknowledged messages as accepted: their connection may have ended because of a limit."""
        # Backwards, so that the totals end as they were before the first message of each kind.
        for item in reversed(list(items)):
            if isinstance(item.stamp, Stamp):
                self._traffic_of(item).learned.retract(item.stamp)

    def connection_lost(self) -> None:
        """Note that a connection ended for another reason than a limit: limits may have changed meanwhile."""
        now = self._clock()
        for traffic in self._all:
            traffic.learned.connection_lost(now)

    def learned_limits(self) -> list[dict[str, Any]]:
        """Return the learned limits as JSON values: limit, per_second, estimate, source, refusals."""
        return [
            {
                "limit": state.limit,
                "per_second": state.per_second,
                "estimate": state.estimate,
                "source": state.source,
                "refusals": state.refusals,
            }
            for traffic in self._all
            for limit in traffic.learned.limits
            if limit.rate is not None
            for state in [limit.state()]
        ]

    def applying_limit(self) -> str | None:
        """Return the name of the limit that slows data down at the moment: the one with the fewest tokens left; else ``None``."""
        now = self._clock()
        found: list[tuple[float, str]] = []
        for traffic in (self._device_data, self._gateway_data):
            known = [limit for limit in (*traffic.announced, *traffic.own) if limit.has_limit()]
            found += [(_least_filled(limit.buckets, now), limit.name or UNKNOWN_LIMIT) for limit in known]
            found += [(0.0, limit.name) for limit in traffic.learned.limits if limit.rate is not None and limit.is_used_up(now)]
        filled, name = min(found, default=(1.0, None))
        return name if filled < APPLYING_SHARE else None

    def likely_limit(self, item: WorkItem) -> str:
        """Return the name of the limit that a refused message may have exceeded, for the log."""
        now = self._clock()
        traffic = self._traffic_of(item)
        fullest = [
            (_least_filled(limit.buckets, now), limit.name) for limit in (*traffic.announced, *traffic.own) if limit.has_limit()
        ]
        if not fullest:
            return UNKNOWN_LIMIT
        return f"{min(fullest)[1]}, or {UNKNOWN_LIMIT}"

    async def wait(self, seconds: float) -> None:
        """Wait for a number of seconds, or until the limits change."""
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
        """Apply new windows: wake the workers that wait for tokens of the old ones, and have packed messages checked again."""
        self.changes += 1
        for traffic in self._all:
            traffic.refresh()
        self._changed.set()

    def _traffic_of(self, item: WorkItem) -> Traffic:
        if item.of_sub_devices:
            return self._gateway_data if item.has_datapoints else self._gateway_service
        return self._device_data if item.has_datapoints else self._device_service


def _service_traffic(whose: str, limiter: RateLimiter) -> Traffic:
    return Traffic(LearnedLimits(f"{whose} messages"), [limiter.message_rate_limit])


def _data_traffic(whose: str, limiter: RateLimiter, sizes: PayloadLimits) -> DataTraffic:
    learned = LearnedLimits(f"{whose} telemetry datapoints", f"{whose} telemetry messages")
    return DataTraffic(learned, [limiter.telemetry_datapoints_rate_limit, limiter.telemetry_message_rate_limit], sizes)


def _amounts(item: WorkItem) -> Amounts:
    """Return the amounts that a message takes from each limit of its `Traffic`."""
    if item.has_datapoints:
        return item.datapoints - item.superseded, item.devices
    # A keep-alive carries several devices, and the server counts each.
    return (FIRST_CONTACT_COST if item.is_announcement else item.devices,)


def _least_filled(buckets: TokenBuckets, now: int) -> float:
    windows = zip(buckets.windows, buckets.tokens(now), strict=True)
    return min(tokens / capacity for (capacity, _), tokens in windows)
