"""The time of a send before anything is queued: encoding."""

import json
from functools import partial

import orjson
import pytest

from corpora import FIRST_TS, telemetry
from tb_mqtt_client import _native

VALUES = telemetry(1, 10, 1).calls[0][1][0]["values"]
PARSED = [json.loads(json.dumps(VALUES)) for _ in range(2000)]
"""Equal dicts, each with key objects of its own: more than the core remembers."""

CASES = {
    "a dict of 10 keys to an encoded uplink": [VALUES] * 100,
    "a dict of 10 keys that are new objects each time to an encoded uplink": PARSED,
}
ENTRIES = list(VALUES.items()) * 100


class PlainEntry:
    """An entry without encoding."""

    __slots__ = ("key", "ts", "value")

    def __init__(self, key, value, ts=None):
        self.key = key
        self.value = value
        self.ts = ts


def pair(case):
    """Return the functions that are measured in turns."""
    calls, encode, dumps = CASES[case], _native.EncodedUplink.timeseries, orjson.dumps

    def native():
        for values in calls:
            uplink = encode(values, FIRST_TS)
        return uplink

    def peer():
        for values in calls:
            data = dumps(values)
        return data

    return native, peer


@pytest.mark.parametrize("peer", ["native", "orjson.dumps"])
@pytest.mark.parametrize("case", CASES)
def test_dict_to_uplink(measure, case, peer):
    native, dumps = pair(case)
    facts = {"calls": len(CASES[case]), "datapoints": 10 * len(CASES[case])}

    def correct(uplink):
        [payload] = _native.pack_timeseries([uplink], gateway=False, max_size=10_000).payloads
        return orjson.loads(payload.data) == [{"ts": FIRST_TS, "values": VALUES}]

    if peer == "native":
        measure(case, peer, native, correct, in_turns_with=("test_encode", "orjson.dumps"), **facts)
    else:
        measure(case, peer, dumps, lambda data: orjson.loads(data) == VALUES, **facts)


@pytest.mark.parametrize("peer", ["native", "plain class"])
def test_entries(measure, peer):
    case = "key, value and ts to a TimeseriesEntry"
    entry_class = _native.TimeseriesEntry if peer == "native" else PlainEntry

    def work():
        for key, value in ENTRIES:
            entry = entry_class(key, value, FIRST_TS)
        return entry

    key, value = ENTRIES[-1]
    correct = partial(lambda entry: (entry.key, entry.value, entry.ts) == (key, value, FIRST_TS))
    measure(case, peer, work, correct, calls=len(ENTRIES), datapoints=len(ENTRIES))
