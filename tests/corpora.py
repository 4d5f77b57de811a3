"""Data of the tests and the benchmarks: the shape of real telemetry, the same at every run."""

import random
from typing import NamedTuple

KEYS = [
    "cpu_percent", "memory_used_bytes", "temperature", "humidity", "pressure_hpa",
    "status", "online", "packets_received", "battery_voltage", "signal_dbm",
]  # fmt: skip
FIRST_TS = 1_700_000_000_000


class Corpus(NamedTuple):
    """``calls``: device name and data of each call. ``grouped``: the same as one document, for the peers that write it whole."""

    calls: list
    grouped: dict


def values(source):
    """One dict of ten keys: floats of sensors and computations, counters, a word, a flag."""
    return {
        "cpu_percent": round(source.uniform(0, 100), 1),
        "memory_used_bytes": source.randrange(2**34),
        "temperature": source.uniform(-20, 40),
        "humidity": round(source.uniform(20, 90), 2),
        "pressure_hpa": round(source.uniform(980, 1040), 1),
        "status": source.choice(["idle", "running", "überlastet", 'error: "E7"']),
        "online": source.random() < 0.9,
        "packets_received": source.randrange(10**9),
        "battery_voltage": source.uniform(3, 4.2),
        "signal_dbm": -source.randrange(30, 110),
    }


def sixteen_places(values):
    """The same dict with its floats as the client sends them: the platform has no room for more places."""
    return {key: round(value, 16) if type(value) is float else value for key, value in values.items()}


def telemetry(calls, datapoints, devices):
    """``calls`` calls of ``datapoints`` datapoints each, ten keys a timestamp, ``devices`` devices in turn."""
    source = random.Random(7)
    made, grouped = [], {}
    for call in range(calls):
        name = f"device {call % devices}"
        records = [
            {"ts": FIRST_TS + call * datapoints + index, "values": values(source)} for index in range(datapoints // len(KEYS))
        ]
        made.append((name, records))
        grouped.setdefault(name, []).extend(records)
    return Corpus(made, grouped)
