"""Greedy packing that writes and measures every candidate payload. It is slow and evidently correct."""

import functools
import itertools
import json
from typing import NamedTuple

from reference.encoding import dumps


class Payload(NamedTuple):
    data: bytes
    datapoints: int
    devices: int
    sources: list
    packer: object
    filled: dict
    acknowledged: list

    def split(self, max_size, max_datapoints=0, max_devices=0):
        """Cut the payload: the sources of a part are places in ``self.sources``."""
        return self.packer.with_limits(max_size, max_datapoints, max_devices).split(self)


class PackedUplinks(NamedTuple):
    payloads: list
    oversized: list


class Stamp(NamedTuple):
    """The common part of the points of a record. ``owner`` separates records of uplinks with metadata from all others."""

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
    return PackedUplinks([packer.payload(filled, acknowledged) for filled, acknowledged in packer.closed], packer.oversized)


def _split(uplinks, kind, gateway, max_size, max_datapoints):
    """Return the datapoints and sources of each part; oversized datapoints are last, each alone."""
    packer = Packer(kind, gateway, max_size, max_datapoints, 1)
    packer.run(uplinks)
    parts = [
        ([(stamp.ts, *point[1:]) for records in filled.values() for stamp, record in records.items() for point in record.values()],
         _sources(acknowledged))
        for filled, acknowledged in packer.closed
    ]  # fmt: skip
    return parts + [([(stamp.ts, *point[1:])], [(source, 1)]) for source, stamp, point in packer.refused]


def _count(filled):
    return sum(len(record) for records in filled.values() for record in records.values())


def _sources(acknowledged):
    counts = {}
    for source, _ in acknowledged:
        counts[source] = counts.get(source, 0) + 1
    return list(counts.items())


def _places(filled):
    return [(device, stamp, key) for device, records in filled.items() for stamp, record in records.items() for key in record]


def _blocks(filled, writers):
    """Yield each record, cut where no uplink has a value on both sides."""
    for device, records in filled.items():
        for stamp, record in records.items():
            points, block = list(record.values()), []
            sources = [writers[device, stamp, key] for key in record]
            for number, point in enumerate(points):
                if set(sources[:number]).isdisjoint(sources[number:]) and block:
                    yield device, stamp, block
                    block = []
                block.append(point)
            yield device, stamp, block


class Packer:
    """``filled``: device -> stamp -> key -> datapoint. ``acknowledged``: each source with a datapoint's place (device, stamp, key).

    Both are in the order of writing.
    """

    def __init__(self, kind, gateway, max_size, max_datapoints, max_devices, now_ms=None):
        self.now_ms = now_ms
        self.kind, self.gateway, self.max_size = kind, gateway, max_size
        self.max_datapoints = max_datapoints or NO_LIMIT
        self.max_devices = (max_devices or NO_LIMIT) if gateway else 1
        self.filled, self.acknowledged = {}, []
        self.closed, self.oversized, self.refused = [], [], []

    def run(self, uplinks):
        for devices in self.rounds(uplinks):
            for device, groups in devices.items():
                for stamp, placed in groups.items():
                    for _, together in itertools.groupby(placed, lambda one: one.source):
                        self.add_together(device, stamp, list(together))
            self.close()

    def rounds(self, uplinks):
        """Group datapoints by device and stamp. Values of one key without a time are in different rounds, and so in no payload."""
        rounds, generations, unstamped = [], [], {}
        for source, uplink in enumerate(uplinks):
            for run in filter(None, uplink.timeseries_runs if self.kind == "timeseries" else [uplink.attribute_points]):
                ts = run[0].ts if run[0].ts is not None else uplink.main_ts
                number = 0
                if ts is None and self.kind == "timeseries":
                    number = self.round_of(run, unstamped.setdefault(uplink.device, [set()]))
                if number == len(rounds):
                    rounds.append({})
                    generations.append({})
                stamp = self.stamp(uplink, ts, source, generations[number]) if self.kind == "timeseries" else Stamp(None)
                group = rounds[number].setdefault(uplink.device, {}).setdefault(stamp, [])
                group += [Placed(point, source) for point in run]
        return rounds

    @staticmethod
    def round_of(run, keys_by_round):
        """Return the number of the round of a run without a time: the last one of its device, or a new one."""
        keys = {point.key for point in run}
        if keys & keys_by_round[-1]:
            keys_by_round.append(set())
        keys_by_round[-1].update(keys)
        return len(keys_by_round) - 1

    def stamp(self, uplink, ts, source, generations):
        """A record with metadata belongs to one uplink; later values with its timestamp are in a record after it."""
        if uplink.metadata is None:
            return Stamp(ts, None, generations.get((uplink.device, ts), 0))
        if self.now_ms is None:
            raise ValueError("now_ms is needed")
        generations[uplink.device, ts] = source + 1
        return Stamp(ts, uplink.metadata, source + 1)

    def add_together(self, device, stamp, placed):
        """Add the datapoints of one uplink and record: together if they fit in a payload, otherwise one by one."""
        alone = {device: {stamp: {point.key: point for point, _ in placed}}}
        candidate = self.with_points(device, stamp, placed)
        hopeless = any(self.too_large(device, stamp, point) for point, _ in placed)
        if self.admissible(candidate) and not hopeless:
            self.take(candidate, device, stamp, placed)
        elif self.admissible(alone) and not hopeless:
            self.close()
            self.take(alone, device, stamp, placed)
        elif len(placed) > 1:
            for one in placed:
                self.add_together(device, stamp, [one])
        else:
            [(point, source)] = placed
            self.oversized.append((source, json.loads(point.key), len(self.written(alone))))
            self.refused.append((source, stamp, point))

    def take(self, filled, device, stamp, placed):
        self.filled = filled
        self.acknowledged += [(source, (device, stamp, point.key)) for point, source in placed]

    def with_points(self, device, stamp, placed):
        copy = {name: {known: dict(record) for known, record in records.items()} for name, records in self.filled.items()}
        copy.setdefault(device, {}).setdefault(stamp, {}).update({point.key: point for point, _ in placed})
        return copy

    def admissible(self, filled):
        names = [device.name for device in filled if device is not None]
        return (
            len(self.written(filled)) <= self.max_size
            and _count(filled) <= self.max_datapoints
            and len(filled) <= self.max_devices
            and len(set(names)) == len(names)
        )

    def with_limits(self, max_size, max_datapoints, max_devices):
        return Packer(self.kind, self.gateway, max_size, max_datapoints, max_devices, self.now_ms)

    def payload(self, filled, acknowledged):
        return Payload(self.written(filled), _count(filled), len(filled), _sources(acknowledged), self, filled, acknowledged)

    def split(self, whole):
        """Pack the datapoints of a payload again. The values of one uplink in a record, and those between them, stay together."""
        writers = {place: source for source, place in whole.acknowledged}
        for device, stamp, block in _blocks(whole.filled, writers):
            for alone, points in itertools.groupby(block, functools.partial(self.too_large, device, stamp)):
                if alone:
                    self.close()
                    self.closed += [({device: {stamp: {point.key: point}}}, []) for point in points]
                else:
                    self.add_together(device, stamp, [Placed(point, None) for point in points])
        self.close()
        positions = {source: position for position, (source, _) in enumerate(whole.sources)}
        return [
            self.payload(part, [(positions[source], place) for source, place in whole.acknowledged if place in _places(part)])
            for part, _ in self.closed
        ]

    def too_large(self, device, stamp, point):
        return len(self.written({device: {stamp: {point.key: point}}})) > self.max_size

    def close(self):
        if self.filled:
            self.closed.append((self.filled, self.acknowledged))
        self.filled, self.acknowledged = {}, []

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
        if stamp.ts is None:
            return values[:-1] + self.metadata(stamp) + "}"
        return f'{{"ts":{stamp.ts},"values":{values}{self.metadata(stamp)}}}'

    def metadata(self, stamp):
        if stamp.metadata is None:
            return ""
        connector, received = stamp.metadata
        return f',"metadata":{{"connector":{dumps(connector).decode()},"receivedTs":{received},"publishedTs":{self.now_ms}}}'
