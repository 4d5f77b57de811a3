"""The workloads whose instructions `counts.py` counts. It runs below valgrind, so it imports as little as possible.

python -I benches/counted.py EXTENSION

A call of `validate_key` marks the end of a workload: valgrind writes the counts up to there, and begins to count again.
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


def main():
    native = load(sys.argv[1])
    source = random.Random(5)
    dicts = [values(source) for _ in range(SENDS)]
    texts = [json.dumps(one) for one in dicts]
    encode = native.EncodedUplink.timeseries
    devices = [native.DeviceIdentity(f"device {number}") for number in range(20)]

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

    def entries_to_uplinks():
        return [encode([native.TimeseriesEntry(key, value, FIRST_TS) for key, value in one.items()], 0) for one in dicts]

    def tokens_of_a_limit():
        buckets = native.TokenBuckets([(1000, 1.0), (50_000, 60.0)], 0)
        return [native.take_all([(buckets, 1)], place * 10_000_000) for place in range(SENDS)]

    work = [
        dicts_to_uplinks,
        dicts_with_new_keys_to_uplinks,
        records_to_payloads_of_a_device,
        records_to_payloads_of_a_gateway,
        one_large_send_to_payloads,
        entries_to_uplinks,
        tokens_of_a_limit,
    ]
    # Imports, type objects and the memory that is kept for the next send are no part of any workload.
    for one in work:
        one()
    native.validate_key("begin")
    for one in work:
        one()
        native.validate_key("end")
        print(one.__name__.replace("_", " "))


if __name__ == "__main__":
    main()
