"""Entries and uplinks as plain tuples of encoded text."""

from typing import NamedTuple

from reference.encoding import UnsupportedValueError, dumps, validate_key
from reference.numbers import Numbers


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
        raise UnsupportedValueError(f"Invalid ts {ts!r}")
    return Point(None if ts is None else int(ts), dumps(key).decode(), dumps(value).decode())


class TimeseriesEntry:
    def __init__(self, key, value, ts=None):
        self.given = key, value, ts
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
    """``timeseries_runs``: points that follow each other with one timestamp and different keys, those of a dict together."""

    def __init__(self, device, attribute_points, timeseries_runs, main_ts=None, conversions=(0, 0), metadata=None):
        self.device = device
        self.attribute_points = attribute_points
        self.timeseries_runs = timeseries_runs
        self.main_ts = main_ts
        self.conversions = conversions
        self.metadata = metadata

    @classmethod
    def timeseries(cls, data, now_ms, device=None, round_floats=True, metadata=None):
        if metadata is not None and device is None:
            raise ValueError("metadata without a device")
        groups = [_telemetry(item, now_ms) for item in (data if type(data) is list else [data])]
        points, conversions = _points([one for group in groups for one in group], round_floats)
        runs, entries, left = [], [], iter(points)
        for item, group in zip(data if type(data) is list else [data], groups, strict=True):
            own = [next(left) for _ in group]
            if type(item) is dict:
                runs += [*_runs(entries), own]
                entries = []
            else:
                entries += own
        return cls(device, [], [*runs, *_runs(entries)], None, conversions, metadata)

    @classmethod
    def attributes(cls, data, device=None, round_floats=True):
        if type(data) is dict:
            given = [(key, value, None) for key, value in data.items()]
        else:
            entries = data if type(data) is list else [data]
            if not all(isinstance(entry, AttributeEntry) for entry in entries):
                raise ValueError("Unsupported")
            given = [entry.given for entry in entries]
        points, conversions = _points(given, round_floats)
        return cls(device, points, [], None, conversions)

    @classmethod
    def of_entries(cls, attributes, timeseries, main_ts=None, device=None):
        return cls(device, [entry.point for entry in attributes], _runs([entry.point for entry in timeseries]), main_ts)

    @property
    def timeseries_points(self):
        return [point for run in self.timeseries_runs for point in run]

    @property
    def entries_size(self):
        sizes = []
        for ts, key, value in self.attribute_points + self.timeseries_points:
            text = f"{{{key}:{value}}}" if ts is None else f'{{"ts":{ts},"values":{{{key}:{value}}}}}'
            sizes.append(len(text.encode()))
        return sum(sizes)


def _runs(points):
    runs = []
    for one in points:
        if runs and runs[-1][0].ts == one.ts and all(known.key != one.key for known in runs[-1]):
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _points(given, round_floats):
    if not given:
        raise ValueError("no datapoint")
    numbers = Numbers(round_floats)
    return [point(key, numbers.written(value), ts) for key, value, ts in given], numbers.conversions


def _telemetry(item, now_ms):
    if isinstance(item, TimeseriesEntry) and not isinstance(item, AttributeEntry):
        key, value, ts = item.given
        return [(key, value, now_ms if ts is None else ts)]
    if type(item) is not dict:
        raise ValueError("Unsupported")
    ts, values = now_ms, item
    if "ts" in item:
        if set(item) != {"ts", "values"} or type(item["values"]) is not dict or not item["values"]:
            raise ValueError("'ts' needs 'values'")
        ts, values = item["ts"] if item["ts"] is not None else now_ms, item["values"]
    return [(key, value, ts) for key, value in values.items()]
