"""The workloads whose instructions `counts.py` counts. It runs below valgrind, so it imports as little as possible.

python benches/counted.py EXTENSION PACKAGES

PACKAGES is the folder in which pyarrow is installed. A call of `validate_key` marks the beginning or the end of a workload:
valgrind writes the counts up to there, and begins to count again.
"""

import importlib.util
import json
import random
import sys

FIRST_TS = 1_700_000_000_000
SENDS = 400


def load(path):
    spec = importlib.util.spec_from_file_location("tb_mqtt_client._native", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def values(source):
    """Return ten values of one device."""
    return {
        "temperature": round(source.uniform(-20, 80), 2),
        "humidity": round(source.uniform(20, 90), 1),
        "pressure": round(source.uniform(98_000, 104_000), 1),
        "voltage": source.uniform(3, 4.2),
        "packets_received": source.randrange(10**9),
        "signal_dbm": -source.randrange(30, 110),
        "uptime_ms": source.randrange(10**14),
        "state": source.choice(["idle", "running", "überlastet", 'error: "E7"']),
        "online": source.random() < 0.9,
        "firmware": "4.3.1-rc2 of the third of November",
    }


def table(packages):
    """Return a table of readings, counters, states and a flag."""
    sys.path.append(packages)
    # pyarrow does without it, and loading it takes seconds here.
    sys.modules["numpy"] = None
    arrow = importlib.import_module("pyarrow")

    source = random.Random(6)
    columns = {"time": [FIRST_TS + row for row in range(SENDS)]}
    columns |= {f"level{number}": [round(source.uniform(-20, 80), 2) for _ in range(SENDS)] for number in range(3)}
    columns |= {f"strokes{number}": [source.randrange(10**6) for _ in range(SENDS)] for number in range(3)}
    columns |= {"phase": [source.choice(["on", "off", "idle"]) for _ in range(SENDS)]}
    columns |= {"load": [source.uniform(0, 10) for _ in range(SENDS)]}
    columns |= {"is_open": [source.random() < 0.1 for _ in range(SENDS)]}
    return arrow.table(columns)


def main():
    native = load(sys.argv[1])
    source = random.Random(5)
    dicts = [values(source) for _ in range(SENDS)]
    texts = [json.dumps(one) for one in dicts]
    encode = native.EncodedUplink.timeseries
    devices = [native.DeviceIdentity(f"device {number}") for number in range(20)]
    rows = table(sys.argv[2])

    def pack(uplinks, gateway):
        return native.pack_timeseries(uplinks, gateway=gateway, max_size=65_000, max_devices=0)

    def dicts_to_uplinks():
        return [encode(one, FIRST_TS) for one in dicts]

    def dicts_with_new_keys_to_uplinks():
        return [encode(json.loads(text), FIRST_TS) for text in texts]

    def records_to_payloads_of_a_device():
        return pack([encode([{"ts": FIRST_TS + place, "values": one}], 0) for place, one in enumerate(dicts)], False)

    def records_to_payloads_of_a_gateway():
        records = enumerate(dicts)
        return pack([encode([{"ts": FIRST_TS + place, "values": one}], 0, devices[place % 20]) for place, one in records], True)

    def one_large_send_to_payloads():
        return pack([encode([{"ts": FIRST_TS + place, "values": one} for place, one in enumerate(dicts)], 0)], False)

    def plain_sends_to_payloads():
        queue = native.Gathering()
        queue.allow(SENDS, 10**9)
        for place, one in enumerate(dicts):
            queue.push(one, FIRST_TS + place, None, devices[place % 20])
        return pack(queue.take(SENDS, 10**9, 10**9), True)

    def rows_of_a_table_to_payloads():
        reader = native.TableReader(rows, "time")
        return [pack([uplink for _, _, uplink in parts], False) for parts in iter(lambda: reader.read(2000), None)]

    def entries_to_uplinks():
        return [encode([native.TimeseriesEntry(key, value, FIRST_TS) for key, value in one.items()], 0) for one in dicts]

    def tokens_of_a_limit():
        buckets = native.TokenBuckets([(1000, 1.0), (50_000, 60.0)], 0)
        return [native.take_all([(buckets, 1)], place * 10_000_000) for place in range(SENDS)]

    # Dicts with new keys come last: after them, the core encodes some thousand keys without looking whether it remembers them.
    work = [
        dicts_to_uplinks,
        records_to_payloads_of_a_device,
        records_to_payloads_of_a_gateway,
        one_large_send_to_payloads,
        plain_sends_to_payloads,
        entries_to_uplinks,
        rows_of_a_table_to_payloads,
        tokens_of_a_limit,
        dicts_with_new_keys_to_uplinks,
    ]
    for one in work:
        # Imports, type objects and the memory that is kept for the next send are no part of a workload.
        one()
        native.validate_key("begin")
        one()
        native.validate_key("end")
        print(one.__name__.replace("_", " "))


if __name__ == "__main__":
    main()
