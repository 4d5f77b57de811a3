"""Decides which telemetry without a time gets the time of the send.

SDK 1.x sent such telemetry without a time, so that the platform stored it under the time of its arrival. The platform stores one
value for a key and a millisecond: of values that arrive together, it would keep the last one, and acknowledge all. So only one send
of a device at a time leaves without a time; the ones behind it get the time of the client, and each its own millisecond.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.one_x.publish_info import TBPublishInfo

LONGEST_LEAD = 1000
"""Milliseconds by which times may be ahead of the clock, so that values of a burst have different times."""
PLAUSIBLE = 1_600_000_000_000
"""An earlier time (2020) means that the clock of the device is not set: the platform then sets all times."""


def lacks_time(data: Any) -> bool:
    """Return whether a record has no time."""
    if isinstance(data, Mapping):
        return "ts" not in data
    if isinstance(data, list | tuple):
        return any(isinstance(record, Mapping) and "ts" not in record for record in data)
    return False


def are_plain_records(data: Any) -> bool:
    """Return whether all data is in records with an integer as time and without metadata, so that it can be sent as it is."""
    if type(data) is dict:
        return type(data.get("ts")) is int and "metadata" not in data
    if type(data) is not list or not data:
        return False
    # A generator would take longer than the sends of most packs.
    for record in data:  # noqa: SIM110
        if type(record) is not dict or type(record.get("ts")) is not int or "metadata" in record:
            return False
    return True


class Times:
    """The times of the telemetry of one client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, TBPublishInfo] = {}
        self._given: dict[str, int] = {}

    def of(self, device: str, data: Any) -> int | None:
        """Return the time for records that have none.

        Args:
            device: The sub-device, or an empty text.
            data: The telemetry.

        Returns:
            Milliseconds since the epoch; ``None`` if the platform sets the time.
        """
        now = now_ms()
        if not lacks_time(data):
            return now
        last = self._last.get(device)
        if last is None or now < PLAUSIBLE or last.is_settled():
            return None
        with self._lock:
            given = min(max(now, self._given.get(device, 0) + 1), now + LONGEST_LEAD)
            self._given[device] = given
            return given

    def sent(self, device: str, time: int | None, info: TBPublishInfo) -> TBPublishInfo:
        """Note the result of a send, and return it.

        Args:
            device: The sub-device, or an empty text.
            time: What ``of`` returned.
            info: The result.
        """
        if time is None:
            self._last[device] = info
        return info
