"""Greedy packing by writing every candidate payload out and measuring it. Slow, and plainly right."""

import json
from typing import NamedTuple

from reference.encoding import dumps


class Payload(NamedTuple):
    data: bytes
    datapoints: int
    devices: int
    sources: list


class PackedUplinks(NamedTuple):
    payloads: list
    oversized: list


class Stamp(NamedTuple):
    """What the points of a record share. ``owner`` keeps the records of calls with metadata, and those around them, apart."""

    ts: int | None
    metadata: tuple | None = None
    owner: int = 0


class Placed(NamedTuple):
    """A datapoint and the uplink that it came from."""

    point: object
    source: int


NO_LIMIT = float("inf")


def pack_timeseries(uplinks, *, gateway, max_size, max_datapoints=0, max_devices=1, now_ms=None):
    return _pack(uplinks, "timeseries", gateway, max_size, max_datapoints, max_devices, now_ms)


def pack_attributes(uplinks, *, gateway, max_size, max_datapoints=0, max_devices=1):
    return _pack(uplinks, "attributes", gateway, max_size, max_datapoints, max_devices, None)


def split_timeseries(uplinks, *, gateway, max_size, max_datapoints=0):
    return _split(uplinks, "timeseries", gateway, max_size, max_datapoints)


def split_attributes(uplinks, *, gateway, max_size, max_datapoints=0):
    return _split(uplinks, "attributes", gateway, max_size, max_datapoints)


def _pack(uplinks, kind, gateway, max_size, max_datapoints, max_devices, now_ms):
    packer = Packer(kind, gateway, max_size, max_datapoints, max_devices, now_ms)
    packer.run(uplinks)
    payloads = [
        Payload(packer.written(filled), _count(filled), len(filled), _sources(answered)) for filled, answered in packer.closed
    ]
    return PackedUplinks(payloads, packer.oversized)


def _split(uplinks, kind, gateway, max_size, max_datapoints):
    """Datapoints of each part, with the sources; those that fit nowhere come last, alone."""
    packer = Packer(kind, gateway, max_size, max_datapoints, 1)
    packer.run(uplinks)
    parts = [
        ([(stamp.ts, *point[1:]) for records in filled.values() for stamp, record in records.items() for point in record.values()],
         _sources(answered))
        for filled, answered in packer.closed
    ]  # fmt: skip
    return parts + [([(stamp.ts, *point[1:])], [(source, 1)]) for source, stamp, point in packer.refused]


def _count(filled):
    return sum(len(record) for records in filled.values() for record in records.values())


def _sources(answered):
    counts = {}
    for source in answered:
        counts[source] = counts.get(source, 0) + 1
    return list(counts.items())


class Packer:
    """``filled``: device -> stamp -> key -> datapoint, in the order of writing."""

    def __init__(self, kind, gateway, max_size, max_datapoints, max_devices, now_ms=None):
        self.now_ms = now_ms
        self.kind, self.gateway, self.max_size = kind, gateway, max_size
        self.max_datapoints = max_datapoints or NO_LIMIT
        self.max_devices = (max_devices or NO_LIMIT) if gateway else 1
        self.filled, self.answered = {}, []
        self.closed, self.oversized, self.refused = [], [], []

    def run(self, uplinks):
        for device, groups in self.grouped(uplinks).items():
            for stamp, placed in groups.items():
                for point, source in placed:
                    self.add(device, stamp, point, source)
        self.close()

    def grouped(self, uplinks):
        devices, generations = {}, {}
        for source, uplink in enumerate(uplinks):
            for point in uplink.timeseries_points if self.kind == "timeseries" else uplink.attribute_points:
                ts = point.ts if point.ts is not None else uplink.main_ts
                stamp = self.stamp(uplink, ts, source, generations) if self.kind == "timeseries" else Stamp(None)
                devices.setdefault(uplink.device, {}).setdefault(stamp, []).append(Placed(point, source))
        return devices

    def stamp(self, uplink, ts, source, generations):
        """A record with metadata is one call's; what comes after it with the same timestamp is in a record behind it."""
        if uplink.metadata is None:
            return Stamp(ts, None, generations.get((uplink.device, ts), 0))
        if self.now_ms is None:
            raise ValueError("now_ms is needed")
        generations[uplink.device, ts] = source + 1
        return Stamp(ts, uplink.metadata, source + 1)

    def add(self, device, stamp, point, source):
        candidate = self.with_point(device, stamp, point)
        if self.admissible(candidate):
            self.filled = candidate
            self.answered.append(source)
            return
        alone = {device: {stamp: {point.key: point}}}
        size = len(self.written(alone))
        if size > self.max_size:
            self.oversized.append((source, json.loads(point.key), size))
            self.refused.append((source, stamp, point))
            return
        self.close()
        self.filled, self.answered = alone, [source]

    def with_point(self, device, stamp, point):
        copy = {name: {known: dict(record) for known, record in records.items()} for name, records in self.filled.items()}
        copy.setdefault(device, {}).setdefault(stamp, {})[point.key] = point
        return copy

    def admissible(self, filled):
        names = [device.name for device in filled if device is not None]
        return (
            len(self.written(filled)) <= self.max_size
            and _count(filled) <= self.max_datapoints
            and len(filled) <= self.max_devices
            and len(set(names)) == len(names)
        )

    def close(self):
        if self.filled:
            self.closed.append((self.filled, self.answered))
        self.filled, self.answered = {}, []

    def written(self, filled):
        entries = []
        for device, records in filled.items():
            texts = [self.record(stamp, record) for stamp, record in records.items()]
            entry = "[" + ",".join(texts) + "]" if self.kind == "timeseries" else texts[0]
            entries.append(f"{self.name(device)}:{entry}" if self.gateway else entry)
        return ("{" + ",".join(entries) + "}" if self.gateway else entries[0]).encode()

    def name(self, device):
        return dumps(device.name).decode()

    def record(self, stamp, record):
        values = "{" + ",".join(f"{point.key}:{point.value}" for point in record.values()) + "}"
        return values if stamp.ts is None else f'{{"ts":{stamp.ts},"values":{values}{self.metadata(stamp)}}}'

    def metadata(self, stamp):
        if stamp.metadata is None:
            return ""
        connector, received = stamp.metadata
        return f',"metadata":{{"connector":{dumps(connector).decode()},"receivedTs":{received},"publishedTs":{self.now_ms}}}'
