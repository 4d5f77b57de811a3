"""The results of test_sizes.py, test_latency.py and test_growth.py as numbers for pictures and tables."""

import json
from collections import defaultdict

THROUGHPUT = {"throughput, device": "size", "throughput, gateway": "size"}
LATENCY = {"latency, one send at a time": None, "latency at a rate": "rate"}
"""Groups of benchmarks, and the fact of each benchmark by which they are drawn."""
GROWTH = {
    "linear in the datapoints of a send, 100 to 100,000": "datapoints of a send",
    "flat in the number of devices, 1 to 100,000": "devices of a gateway",
    "flat in the number of keys, 10 to 10,000": "keys of a device",
    "flat in the length of the queue, from 1000 datapoints": "queued datapoints",
    "flat in the limit of a payload, 1 kB to 1 MB": "bytes of a payload",
}
"""Cases of test_growth.py, and what grows in each."""
PEERS = {"native": "tb_mqtt_client", "by hand": "by hand: orjson and gmqtt"}


class Curves:
    """The JSON of pytest-benchmark by group."""

    def __init__(self, path):
        self._groups = defaultdict(list)
        for one in json.loads(path.read_text())["benchmarks"]:
            self._groups[one["group"]].append(one)

    def of(self, group, x=None):
        """Return ``{peer: {x: benchmark}}`` by rising x, the name of a fact; without it, there is one benchmark per peer."""
        found = self._found(group, x)
        return {peer: {position: found[peer, position] for position in _positions(found)} for peer in PEERS}

    def points(self, case):
        """Return ``[(size, seconds), ...]`` of a case of ``GROWTH``; empty if it was not measured."""
        return [tuple(point) for one in self._groups.get(case, ()) for point in one["extra_info"]["points"]]

    def missing(self, groups):
        """Return a line for each benchmark that tables and pictures of these groups need and that is not in the results."""
        lines = []
        for group, x in groups.items():
            found = self._found(group, x)
            lines += [
                f"{group} ({peer}{'' if position is None else f', {x} {position}'})"
                for peer in PEERS
                for position in _positions(found)
                if (peer, position) not in found
            ]
        return lines

    def _found(self, group, x):
        return {
            (one["extra_info"]["peer"], one["extra_info"].get(x)): one
            for one in self._groups.get(group, ())
            if one["extra_info"].get("correct")
        }


def _positions(found):
    return sorted({position for _, position in found if position is not None}) or [None]


def datapoints_per_second(one):
    return one["extra_info"]["datapoints"] / one["stats"]["median"]


def percentiles_of(one):
    return [float(percentile) for percentile in one["extra_info"]["percentiles"]]


def milliseconds(one, percentile):
    return 1000 * one["extra_info"]["percentiles"][f"{percentile:g}"]


def amount(value):
    """Return a number with three digits: ``0.2``, ``20 k``, ``1.5 M``."""
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"
