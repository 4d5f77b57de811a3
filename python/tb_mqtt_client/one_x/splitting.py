"""Cuts telemetry into messages for programs that call ``_split_message`` of SDK 1.x. The client itself packs in the core."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tb_mqtt_client.one_x.uplinks import dicts
from tb_mqtt_client.one_x.values import dumps

BRACKETS = 2
"""Bytes around the values of a record that has no time, and around the records of a message."""
WITHOUT_RECORDS = BRACKETS - 1
"""Bytes of a message without its records, each of which is counted with a comma: there is none behind the last one."""


class _Group:
    """The datapoints of one time and one metadata."""

    def __init__(self, head: dict[str, Any]) -> None:
        self.head = head
        self.values: dict[Any, Any] = {}
        # With the comma behind the record, and without one of those that are counted with its values.
        self.head_size = len(dumps(head | {"values": {}})) if head else BRACKETS

    def record(self, values: dict[Any, Any]) -> dict[Any, Any]:
        return self.head | {"values": values} if self.head else values


class _Messages:
    """Messages that are filled one after the other."""

    def __init__(self, max_datapoints: int, max_size: int) -> None:
        self._max_datapoints = max_datapoints
        self._max_size = max_size
        self.made: list[dict[str, Any]] = []
        self._size = 0

    def has_room(self, datapoints: int, size: int) -> bool:
        """Return whether the message that is being filled has room."""
        return bool(self.made) and self._fits(self.made[-1]["datapoints"] + datapoints, self._size + size)

    def _fits(self, datapoints: int, size: int) -> bool:
        return (not self._max_datapoints or datapoints <= self._max_datapoints) and size <= self._max_size

    def begin(self) -> None:
        """Begin to fill another message."""
        self.made.append({"data": [], "datapoints": 0})
        self._size = WITHOUT_RECORDS

    def add(self, record: dict[Any, Any], datapoints: int, size: int) -> None:
        """Add a record to the message that is being filled."""
        self.made[-1]["data"].append(record)
        self.made[-1]["datapoints"] += datapoints
        self._size += size

    def add_group(self, group: _Group) -> None:
        """Add datapoints in as few records as the limits allow; datapoints that fit together stay together."""
        sizes = {key: len(dumps({key: value})) - 1 for key, value in group.values.items()}
        total = group.head_size + sum(sizes.values())
        if not self.has_room(len(sizes), total) and self._fits(len(sizes), WITHOUT_RECORDS + total):
            self.begin()
        part: dict[Any, Any] = {}
        size = group.head_size
        for key, value in group.values.items():
            if not self.has_room(len(part) + 1, size + sizes[key]):
                if part:
                    self.add(group.record(part), len(part), size)
                part, size = {}, group.head_size
                # A datapoint that is larger than the limit has a message of its own.
                if not self.made or self.made[-1]["datapoints"]:
                    self.begin()
            part[key] = value
            size += sizes[key]
        self.add(group.record(part), len(part), size)


def split_message(message_pack: Any, datapoints_max_count: int, max_payload_size: int) -> list[dict[str, Any]]:
    """Cut telemetry into messages.

    Args:
        message_pack: ``{key: value}``, ``{"ts": ts, "values": {key: value}}``, or a list of these, also with ``metadata``. Anything
            else counts as no data.
        datapoints_max_count: Datapoints of a message, at most; 0 for any number.
        max_payload_size: Bytes of a message, at most. A datapoint that is larger has a message of its own.

    Returns:
        ``{"data": records, "datapoints": number}`` for each message. Datapoints with the same time and metadata share a record.
    """
    messages = _Messages(datapoints_max_count, max_payload_size)
    for group in _groups(message_pack):
        messages.add_group(group)
    return messages.made


def _groups(message_pack: Any) -> Iterator[_Group]:
    groups: dict[bytes, _Group] = {}
    for record in dicts(message_pack):
        has_time = "ts" in record and isinstance(record.get("values"), Mapping)
        values = record["values"] if has_time else record
        head = {name: record[name] for name in ("ts", "metadata") if name in record} if has_time else {}
        if values:
            group = groups.setdefault(dumps(head), _Group(head))
            group.values.update(values)
    yield from groups.values()
