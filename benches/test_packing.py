"""From encoded uplinks to payload bytes."""

from functools import partial

import orjson
import pytest

import reference
from corpora import sixteen_places, telemetry
from tb_mqtt_client import _native

MAX_SIZE = 65_000
CASES = {
    "gateway, 1000 messages of 100 datapoints, 50 devices": (1000, 100, 50, True),
    "gateway, 10,000 messages of 10 datapoints, 50 devices": (10_000, 10, 50, True),
    "device, one message of 100,000 datapoints": (1, 100_000, 1, False),
}


def uplinks(implementation, corpus, gateway):
    identities = {name: implementation.DeviceIdentity(name) for name in corpus.grouped}
    return [implementation.EncodedUplink.timeseries(data, 0, identities[name] if gateway else None) for name, data in corpus.calls]


def pack(implementation, ready, gateway):
    packed = implementation.pack_timeseries(ready, gateway=gateway, max_size=MAX_SIZE, max_devices=0)
    return [payload.data for payload in packed.payloads]


def same_points(grouped, gateway, payloads):
    """Whether the payloads together contain exactly the corpus."""
    found = {}
    for payload in payloads:
        document = orjson.loads(payload)
        for name, records in (document if gateway else {"device 0": document}).items():
            for record in records:
                found.setdefault(name, {}).setdefault(record["ts"], {}).update(record["values"])
    expected = {name: {record["ts"]: sixteen_places(record["values"]) for record in records} for name, records in grouped.items()}
    return found == expected and all(len(payload) <= MAX_SIZE for payload in payloads)


@pytest.mark.parametrize("peer", ["native", "orjson.dumps"])
@pytest.mark.parametrize("case", CASES)
def test_packing(measure, case, peer):
    calls, datapoints, devices, gateway = CASES[case]
    corpus = telemetry(calls, datapoints, devices)
    document = corpus.grouped if gateway else corpus.grouped["device 0"]
    if peer == "native":
        work = partial(pack, _native, uplinks(_native, corpus, gateway), gateway)
        measure(case, peer, work, partial(same_points, corpus.grouped, gateway), datapoints=calls * datapoints)
    else:
        work = partial(orjson.dumps, document)
        measure(case, peer, work, lambda data: orjson.loads(data) == document, datapoints=calls * datapoints)


@pytest.mark.parametrize("peer", ["native", "reference"])
def test_packing_against_the_reference(measure, peer):
    """The reference is written for correctness, so it packs only 20 messages."""
    case = "gateway, 20 messages of 10 datapoints"
    corpus = telemetry(20, 10, 5)
    implementation = _native if peer == "native" else reference
    work = partial(pack, implementation, uplinks(implementation, corpus, True), True)
    measure(case, peer, work, partial(same_points, corpus.grouped, True), datapoints=200)
