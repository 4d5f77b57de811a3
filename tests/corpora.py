"""Data for tests and benchmarks: it has the shape of real telemetry and is equal in every run."""

import random
from typing import NamedTuple

KEYS = [
    "cpu_percent", "memory_used_bytes", "temperature", "humidity", "pressure_hpa",
    "status", "online", "packets_received", "battery_voltage", "signal_dbm",
]  # fmt: skip
FIRST_TS = 1_700_000_000_000


class Corpus(NamedTuple):
    """The data as ``calls``, a device name and records for each send, and ``grouped`` by device into one document."""

    calls: list
    grouped: dict


def values(source):
    """Return a dict of ten keys: measured and computed floats, counters, a text and a boolean."""
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
    """Return ``values`` with floats rounded as the client sends them: the platform cannot store more places."""
    return {key: round(value, 16) if type(value) is float else value for key, value in values.items()}


def telemetry(calls, datapoints, devices):
    """Return ``calls`` sends of ``datapoints`` datapoints each, ten keys for each timestamp, for ``devices`` devices in turn."""
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
