"""What the IoT Gateway needs beyond SDK 1.x, because it sends a pack of its storage again until all results of the pack are 0.

It does so also after a disconnect, without looking at the results, while the client still delivers the data. Telemetry that the
client has, and that the platform has without the application knowing it, is therefore not sent a second time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tb_mqtt_client.constants.reason_codes import reason_name
from tb_mqtt_client.one_x import settings
from tb_mqtt_client.one_x.publish_info import RecordInfo, RefusedMessage, SentMessage, TBPublishInfo, Waiting

GET_TIMEOUT = 2.0
"""Seconds that ``get`` waits. The application waits for it before it disconnects, and has to end within 5 s of Ctrl-C: the sum of
``GET_TIMEOUT``, ``MORE_WITH_PROGRESS`` and ``STOP_TIMEOUT`` has to leave time for its other work, and for a callback that runs."""
MORE_WITH_PROGRESS = 0.5
"""Seconds that it waits in addition while the platform acknowledges data: each send of a pack that is large takes longer."""
STOP_TIMEOUT = 1.0
"""Seconds for which ``disconnect`` sends queued data, which is at most the pack that the application sent last."""
GRACE = 30.0
"""Seconds without a connection after which the application is notified. Earlier, it would send packs again for nothing."""
MOST_SETTLED = 8
"""How many sends of a device are kept whose results are there, but were never read."""
MOST_REPORTED = 10_000
"""How many devices and keys are remembered as reported."""
NAMED_KEYS = 5
"""How many keys a line of the log names."""

Point = tuple[Any, Any]
"""Time and key of a datapoint."""


class Refusals:
    """Logs each device and key once whose data the platform never takes, and counts the datapoints."""

    def __init__(self) -> None:
        self.datapoints: int = 0
        """How many datapoints were refused."""
        self._lock = threading.Lock()
        self._reported: set[tuple[str, str]] = set()

    def report(self, device: str, datapoints: int, texts: list[str], reason: str = "") -> None:
        """Count refused datapoints, and log what was not reported before.

        Args:
            device: The sub-device, or an empty text.
            datapoints: How many were refused.
            texts: Their keys, perhaps with reasons.
            reason: The reason of all of them.
        """
        with self._lock:
            self.datapoints += datapoints
            new = [text for text in texts if (device, text) not in self._reported]
            if len(self._reported) < MOST_REPORTED:
                self._reported.update((device, text) for text in new)
            total = self.datapoints
        if new:
            more = f" and {len(new) - NAMED_KEYS} more" if len(new) > NAMED_KEYS else ""
            settings.log.error(
                "The platform never takes data of %s: %s%s%s; it leaves the storage (%d datapoints up to now)",
                device or "the gateway",
                "; ".join(new[:NAMED_KEYS]),
                more,
                f": {reason}" if reason else "",
                total,
            )


class ApplicationResult(TBPublishInfo):
    """The result of a send of the application."""

    __slots__ = ()
    device: str
    """The sub-device, or an empty text."""
    data: Any
    """The data of the send."""
    is_read: bool
    """Whether the application has read the result as 0."""
    is_late: bool
    """Whether the application has read another result: it sends its pack again."""
    _sends: ApplicationSends

    def get(self) -> int:
        """Return what ``TBPublishInfo.get`` returns; with 0, the application is done with the data."""
        code = super().get()
        if code == 0:
            self._sends.read(self)
        else:
            self.is_late = True  # type: ignore[misc]  # a slot of the subclasses
        return code

    def is_done(self) -> bool:
        """Return whether ``get`` returns 0 whenever it is called."""
        return self.is_settled() and super().get() == 0

    def refusals(self) -> list[tuple[int, str]]:
        """Return datapoints and reason of each message that the platform refused."""
        results = [one.result for one in self.message_info if isinstance(one, SentMessage)]
        return [(one.datapoints_count, reason_name(one.reason_code)) for one in results if one is not None and one.reason_code > 0]

    def is_taken(self) -> bool:
        """Return whether the data needs no other send: it is in flight, acknowledged, or refused forever."""
        for one in self.message_info:
            if isinstance(one, SentMessage):
                if one.result is not None and one.result.reason_code < 0:
                    return False
            elif not isinstance(one, RefusedMessage) or one.rc != 0:
                return False
        return True

    def is_delivered(self) -> bool:
        """Return whether all of the data is in flight, or acknowledged."""
        return all(
            isinstance(one, SentMessage) and (one.result is None or one.result.reason_code == 0) for one in self.message_info
        )


class ApplicationInfo(ApplicationResult):
    """The result of a send of any form."""

    __slots__ = ("_sends", "data", "device", "is_late", "is_read")

    def __init__(self, messages: list[Any], device: str, data: Any, sends: ApplicationSends) -> None:
        """Keep the messages, their device and data, and the sends that are notified when ``get`` has returned 0."""
        self.message_info = messages
        self.device: str = device
        self.data: Any = data
        self.is_read: bool = False
        self.is_late: bool = False
        self._sends = sends


class ApplicationRecord(ApplicationResult, RecordInfo):
    """The result of telemetry that is sent as it is, which is most of what the application sends."""

    __slots__ = ("_sends", "data", "device", "is_late", "is_read")

    def __init__(self, waiting: Waiting, device: str, data: Any, sends: ApplicationSends) -> None:
        """Wait for the result of a send."""
        super().__init__(waiting)
        self.device: str = device
        self.data: Any = data
        self.is_read: bool = False
        self.is_late: bool = False
        self._sends = sends

    def refusals(self) -> list[tuple[int, str]]:
        """Return datapoints and reason if the platform refused the message."""
        result = self._result
        return [] if result is None or result.reason_code <= 0 else super().refusals()


class ApplicationSends:
    """The sends of the application, until it has read that all of them are done: it sends a pack again if one result is not 0."""

    def __init__(self) -> None:
        self.refusals: Refusals = Refusals()
        self._lock = threading.Lock()
        self._sent: dict[str, list[ApplicationResult]] = {}
        self._unread: set[ApplicationResult] = set()
        """Telemetry of sub-devices whose result was not read as 0."""
        self._others: set[ApplicationResult] = set()
        """Attributes, and telemetry of the gateway itself: the application may never read their results, but sends a pack with them
        again if one of them is not 0."""
        self._attributes: dict[str, ApplicationResult] = {}
        """The last attributes of each device."""

    def may_have_sent(self, device: str) -> bool:
        """Return whether earlier telemetry of a device may be the same as telemetry that is to be sent."""
        return device in self._sent

    def telemetry(self, device: str, data: Any, send: Callable[[Any], TBPublishInfo]) -> ApplicationResult:
        """Send the part of telemetry that is neither in flight nor acknowledged without the application knowing it.

        Args:
            device: The sub-device, or an empty text.
            data: The telemetry.
            send: Sends telemetry.

        Returns:
            The result of all of the data.
        """
        rest = data
        earlier: list[ApplicationResult] = []
        if self.may_have_sent(device):
            with self._lock:
                rest, earlier = self._without_taken(device, data)
        messages = [] if rest == [] else _messages(send(rest))
        messages += [message for info in earlier for message in info.message_info]
        info = ApplicationInfo(messages, device, data, self)
        self.note(info)
        return info

    def note(self, info: ApplicationResult) -> None:
        """Keep the result of telemetry until the application has read it."""
        device = info.device
        with self._lock:
            sent = self._sent.setdefault(device, [])
            sent.append(info)
            (self._unread if device else self._others).add(info)
            if len(sent) > MOST_SETTLED:
                settled = [one for one in sent if one.is_settled()]
                for one in settled[:-MOST_SETTLED]:
                    sent.remove(one)
                    self._unread.discard(one)

    def attributes(self, device: str, data: Any, send: Callable[[Any], TBPublishInfo]) -> ApplicationResult:
        """Send attributes, unless they are the same as the last ones of the device, and some of the results were not read as 0.

        They have no time, so that a second send of the same values changes nothing on the platform. But where limits are tight, a
        second send with each attempt of the application would delay its last result, which it waits for, again and again.
        """
        earlier = self._attributes.get(device)
        if earlier is not None and _is_same(earlier.data, data) and earlier.is_delivered():
            messages = _messages(earlier)
        else:
            messages = _messages(send(data))
        info = ApplicationInfo(messages, device, data, self)
        with self._lock:
            earlier = self._attributes.pop(device, None)
            if earlier is not None:
                # The application sends a pack again without reading its results, and the later result stands for both.
                self._others.discard(earlier)
            self._attributes[device] = info
            self._others.add(info)
        return info

    def _without_taken(self, device: str, data: Any) -> tuple[Any, list[ApplicationResult]]:
        """Return the data without what an earlier send has taken, and the earlier sends that have some of it."""
        taken: dict[Point, tuple[Any, ApplicationResult]] = {}
        for info in self._sent.get(device, ()):
            for point, value in _points(info.data):
                taken[point] = (value, info)
        given = dict(_points(data))
        known: dict[Point, ApplicationResult] = {}
        for point, value in given.items():
            if point in taken and _is_same(taken[point][0], value) and taken[point][1].is_taken():
                known[point] = taken[point][1]
        # The new result stands for the earlier sends that have nothing else.
        kept = [info for info in self._sent.get(device, ()) if any(point not in given for point, _ in _points(info.data))]
        waiting = self._unread if device else self._others
        waiting.difference_update(self._sent.get(device, ()))
        waiting.update(info for info in kept if not info.is_read)
        self._sent[device] = kept
        if not known:
            return data, []
        rest: list[Mapping[Any, Any]] = []
        for record in _dicts(data):
            if _has_time(record):
                values = {key: value for key, value in record["values"].items() if (record["ts"], key) not in known}
                if values:
                    rest.append({**record, "values": values})
            else:
                rest.append(record)
        return rest, list(dict.fromkeys(known.values()))

    def read(self, info: ApplicationResult) -> None:
        """Note that the application has read a result as 0."""
        with self._lock:
            is_first, info.is_read = not info.is_read, True  # type: ignore[misc]  # a slot of the subclasses
            self._unread.discard(info)
            self._others.discard(info)
            if not self._unread and not self._waits_for_others():
                self._sent.clear()
                self._attributes.clear()
        if is_first and (refusals := info.refusals()):
            keys = _keys(info.data)
            for datapoints, reason in refusals:
                self.refusals.report(info.device, datapoints, keys, reason)

    def _waits_for_others(self) -> bool:
        """Return whether a result was or may be read as another one than 0, apart from those of telemetry of sub-devices."""
        self._others = {info for info in self._others if info.is_late or not info.is_done()}
        return bool(self._others)


def _messages(info: TBPublishInfo) -> list[Any]:
    return list(info.message_info)


def _dicts(data: Any) -> Iterator[Mapping[Any, Any]]:
    for one in data if isinstance(data, list | tuple) else [data]:
        if isinstance(one, Mapping):
            yield one


def _has_time(record: Mapping[Any, Any]) -> bool:
    return isinstance(record.get("ts"), int | float | str) and isinstance(record.get("values"), Mapping)


def _points(data: Any) -> Iterator[tuple[Point, Any]]:
    """Yield time, key and value of the datapoints that have a time. The platform sets the others, which are never the same."""
    for record in _dicts(data):
        if _has_time(record):
            for key, value in record["values"].items():
                yield (record["ts"], key), value


def _keys(data: Any) -> list[str]:
    found = [repr(key) for record in _dicts(data) for key in (record["values"] if _has_time(record) else record)]
    return list(dict.fromkeys(found))


def _is_same(one: Any, other: Any) -> bool:
    # 1, 1.0 and True are equal, but not the same on the platform.
    return type(one) is type(other) and repr(one) == repr(other)
