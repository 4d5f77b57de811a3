"""Entries and uplinks as plain tuples of encoded text."""

from typing import NamedTuple

from reference.encoding import dumps, validate_key


class Point(NamedTuple):
    """One datapoint; ``key`` and ``value`` are JSON."""

    ts: int | None
    key: str
    value: str


class DeviceIdentity(NamedTuple):
    name: str
    profile: str = "default"


def point(key, value, ts=None):
    validate_key(key)
    if ts is not None and (isinstance(ts, bool) or not isinstance(ts, int | float)):
        raise ValueError(f"Invalid ts {ts!r}")
    return Point(None if ts is None else int(ts), dumps(key).decode(), dumps(value).decode())


class TimeseriesEntry:
    def __init__(self, key, value, ts=None):
        self.point = point(key, value, ts)

    @property
    def size(self):
        ts, key, value = self.point
        text = f"{{{key}:{value}}}" if ts is None else f'{{"ts":{ts},"values":{{{key}:{value}}}}}'
        return len(text.encode())


class AttributeEntry(TimeseriesEntry):
    def __init__(self, key, value):
        super().__init__(key, value)


class EncodedUplink:
    def __init__(self, device, attribute_points, timeseries_points, main_ts=None):
        self.device = device
        self.attribute_points = attribute_points
        self.timeseries_points = timeseries_points
        self.main_ts = main_ts

    @classmethod
    def timeseries(cls, data, now_ms, device=None):
        points = []
        for item in data if type(data) is list else [data]:
            points += _telemetry_points(item, now_ms)
        if not points:
            raise ValueError("no datapoint")
        return cls(device, [], points)

    @classmethod
    def attributes(cls, data, device=None):
        if type(data) is dict:
            points = [point(key, value) for key, value in data.items()]
        else:
            entries = data if type(data) is list else [data]
            if not all(isinstance(entry, AttributeEntry) for entry in entries):
                raise ValueError("Unsupported")
            points = [entry.point for entry in entries]
        if not points:
            raise ValueError("no datapoint")
        return cls(device, points, [])

    @classmethod
    def of_entries(cls, attributes, timeseries, main_ts=None, device=None):
        return cls(device, [entry.point for entry in attributes], [entry.point for entry in timeseries], main_ts)

    @property
    def entries_size(self):
        sizes = []
        for ts, key, value in self.attribute_points + self.timeseries_points:
            text = f"{{{key}:{value}}}" if ts is None else f'{{"ts":{ts},"values":{{{key}:{value}}}}}'
            sizes.append(len(text.encode()))
        return sum(sizes)


def _telemetry_points(item, now_ms):
    if isinstance(item, TimeseriesEntry) and not isinstance(item, AttributeEntry):
        return [item.point if item.point.ts is not None else item.point._replace(ts=now_ms)]
    if type(item) is not dict:
        raise ValueError("Unsupported")
    ts, values = now_ms, item
    if "ts" in item:
        if set(item) != {"ts", "values"} or type(item["values"]) is not dict or not item["values"]:
            raise ValueError("'ts' needs 'values'")
        ts, values = item["ts"] if item["ts"] is not None else now_ms, item["values"]
    return [point(key, value, ts) for key, value in values.items()]
