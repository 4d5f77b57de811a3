"""Use the extension with data of many shapes, so that the compiler learns which branches are taken (`make wheel PGO=1`).

python benches/training.py WHEEL

The data is not that of the benchmarks: other keys, other values, other lengths. Each function is about one way into the core. Rare
values are here as often as programs have them.
"""

import importlib.util
import json
import random
import sys
import tempfile
import zipfile

import pyarrow as pa

FIRST_TS = 1_735_689_600_000
ROUNDS = 60

NAMES = ["t", "rpm", "flow_rate", "energy_total_kwh", "vibration.x", "zone-3/set point"]
WORDS = ["pump", "valve", "north", "Lüfter", "ok", "line 3", "stopped", "E\u20ac", "maintenance is due", "x"]


def load(wheel):
    """Import the extension of a wheel that is not installed."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as opened:
        [name] = [name for name in opened.namelist() if name.startswith("tb_mqtt_client/_native.") and not name.endswith(".pyi")]
        spec = importlib.util.spec_from_file_location("tb_mqtt_client._native", opened.extract(name, folder))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def value(source):
    """Return one value: mostly numbers, as devices have them."""
    make, _ = source.choices(VALUES, [share for _, share in VALUES])[0]
    return make(source)


VALUES = [
    (lambda source: round(source.gauss(50, 200), source.randrange(5)), 30),
    (lambda source: source.gauss(0, 10), 10),
    (lambda source: source.randrange(10 ** source.randrange(1, 14)), 25),
    (lambda source: -source.randrange(1000), 5),
    (lambda source: source.choice(WORDS), 15),
    (lambda source: source.random() < 0.5, 10),
    (lambda _source: None, 2),
    (lambda source: " ".join(source.choices(WORDS, k=8)) + '"\\', 1),
    (lambda source: {"at": [source.random(), source.randrange(9)], "of": source.choice(WORDS)}, 2),
]
"""How values are made, and how often."""


def name(source):
    return source.choice(NAMES) + str(source.randrange(400))


def rows(source, count):
    """Return dicts with the same keys; one in four programs has keys that are new objects each time."""
    keys = list({name(source) for _ in range(source.choice([1, 2, 5, 9, 14, 30]))})
    made = [{key: value(source) for key in keys} for _ in range(count)]
    return [json.loads(json.dumps(row)) for row in made] if source.random() < 0.25 else made


def records(source, count, first=FIRST_TS):
    return [{"ts": first + 1000 * place, "values": row} for place, row in enumerate(rows(source, count))]


def sends(native, source, device=None):
    """Encode some sends of one program."""
    encode = native.EncodedUplink.timeseries
    shape = source.random()
    if shape < 0.35:
        return [encode(row, FIRST_TS + place, device) for place, row in enumerate(rows(source, 60))]
    if shape < 0.55:
        return [encode([record], FIRST_TS, device) for record in records(source, 60)]
    if shape < 0.75:
        return [encode(records(source, 1 + source.randrange(80)), FIRST_TS, device) for _ in range(3)]
    entries = [
        native.TimeseriesEntry(key, one, FIRST_TS) for row in rows(source, 20) for key, one in row.items() if one is not None
    ]
    return [encode(entries, FIRST_TS, device), *(encode(entry, FIRST_TS, device) for entry in entries[:20])]


def of_a_device(native, source):
    uplinks = [uplink for _ in range(4) for uplink in sends(native, source)]
    for size in (65_000, 65_000, 2000):
        packed = native.pack_timeseries(uplinks, gateway=False, max_size=size)
        for payload in packed.payloads:
            payload.of_sources(uplinks)
    native.split_timeseries(uplinks[:5], gateway=False, max_size=2000)


def of_a_gateway(native, source):
    devices = [native.DeviceIdentity(f"{source.choice(WORDS)} {number}") for number in range(12)]
    uplinks = [uplink for device in devices for uplink in sends(native, source, device)]
    source.shuffle(uplinks)
    for datapoints in (0, 0, 500):
        packed = native.pack_timeseries(uplinks, gateway=True, max_size=65_000, max_datapoints=datapoints, max_devices=0)
    for payload in packed.payloads[:3]:
        payload.split(1500)


def of_a_queue(native, source):
    queue = native.Gathering()
    queue.allow(10_000, 2**30)
    for row in rows(source, 300):
        queue.push(row, FIRST_TS, None)
    while len(queue):
        native.pack_timeseries(queue.take(200, 65_000 * 8, 100_000), gateway=False, max_size=65_000)


def attributes(native, source):
    uplinks = [native.EncodedUplink.attributes(row) for row in rows(source, 20)]
    native.pack_attributes(uplinks, gateway=False, max_size=65_000)
    for row in rows(source, 20):
        native.dumps({"method": "get", "params": row})


def limits(native, _source):
    first, second = (native.TokenBuckets([(100, 1.0), (4000, 60.0)], 0) for _ in range(2))
    for step in range(200):
        native.take_all([(first, 1), (second, 10)], step * 7_000_000)


def tables(native, source):
    count = 500
    columns = {
        "at": [FIRST_TS + 250 * row for row in range(count)],
        "level": [round(source.gauss(3, 1), 3) for _ in range(count)],
        "load": [source.random() if source.random() < 0.9 else None for _ in range(count)],
        "strokes": [source.randrange(10**7) for _ in range(count)],
        "phase": [source.choice(WORDS) for _ in range(count)],
        "remark": [source.choice(["", "a remark that is longer than most", 'with "quotes"']) for _ in range(count)],
        "is_open": [source.random() < 0.2 for _ in range(count)],
    }
    reader = native.TableReader(pa.table(columns), "at")
    while (parts := reader.read(1000)) is not None:
        native.pack_timeseries([uplink for _, _, uplink in parts], gateway=False, max_size=65_000)


def main():
    native = load(sys.argv[1])
    source = random.Random(2026)
    for _ in range(ROUNDS):
        for train in (of_a_device, of_a_gateway, of_a_queue, attributes, limits, tables):
            train(native, source)


if __name__ == "__main__":
    main()
