"""From dicts, from entries and from uplinks that are encoded already to payload bytes."""

from functools import partial

import orjson
import pytest

import reference
from corpora import sixteen_places, telemetry
from tb_mqtt_client import _native

MAX_SIZE = 65_000
CASES = {
    "dicts to payloads: gateway, 1000 sends of 100 datapoints, 50 devices": ("dicts", 1000, 100, 50, True),
    "dicts to payloads: gateway, 10,000 sends of 10 datapoints, 50 devices": ("dicts", 10_000, 10, 50, True),
    "dicts to payloads: device, 10,000 sends of 10 datapoints": ("dicts", 10_000, 10, 1, False),
    "dicts to payloads: device, one send of 100,000 datapoints": ("dicts", 1, 100_000, 1, False),
    "entries to payloads: gateway, 1000 sends of 100 datapoints, 50 devices": ("entries", 1000, 100, 50, True),
    "entries to payloads: gateway, 10,000 sends of 10 datapoints, 50 devices": ("entries", 10_000, 10, 50, True),
    "entries to payloads: device, 10,000 sends of 10 datapoints": ("entries", 10_000, 10, 1, False),
    "entries to payloads: device, one send of 100,000 datapoints": ("entries", 1, 100_000, 1, False),
    "ready uplinks to payloads: gateway, 1000 sends of 100 datapoints, 50 devices": ("ready uplinks", 1000, 100, 50, True),
    "ready uplinks to payloads: gateway, 10,000 sends of 10 datapoints, 50 devices": ("ready uplinks", 10_000, 10, 50, True),
    "ready uplinks to payloads: device, 10,000 sends of 10 datapoints": ("ready uplinks", 10_000, 10, 1, False),
    "ready uplinks to payloads: device, one send of 100,000 datapoints": ("ready uplinks", 1, 100_000, 1, False),
}
"""The form of the data, the number of sends, the datapoints of each, the number of devices, and whether a gateway sends them."""


def entries(implementation, records):
    """Return the datapoints of records as a list of entries."""
    return [
        implementation.TimeseriesEntry(key, value, record["ts"]) for record in records for key, value in record["values"].items()
    ]


def uplinks(implementation, calls, gateway):
    """Encode the data of each send, as a client does when it accepts the send."""
    identities = {name: implementation.DeviceIdentity(name) for name, _ in calls}
    return [implementation.EncodedUplink.timeseries(data, 0, identities[name] if gateway else None) for name, data in calls]


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


def queue_and_pack(calls, gateway):
    """Put each send into a queue, which encodes it, and pack the queue, as a client does with sends that are not awaited."""
    queue = _native.Gathering()
    queue.allow(len(calls), 2**40)
    push = queue.push
    for device, data in calls:
        push(data, 0, None, device)
    return pack(_native, queue.take(len(calls), 2**40, 2**40), gateway)


def packing_work(form, calls, gateway):
    """Return the measured function of the native core: what one form of the data still needs until it is payloads."""
    if form == "dicts":
        identities = {name: _native.DeviceIdentity(name) for name, _ in calls}
        return partial(queue_and_pack, [(identities[name] if gateway else None, data) for name, data in calls], gateway)
    if form == "ready uplinks":
        return partial(pack, _native, uplinks(_native, calls, gateway), gateway)
    calls = [(name, entries(_native, records)) for name, records in calls]
    return lambda: pack(_native, uplinks(_native, calls, gateway), gateway)


def data_of(case):
    """Return the corpus of a case, and the dicts that the peer serializes."""
    _, calls, datapoints, devices, gateway = CASES[case]
    corpus = telemetry(calls, datapoints, devices)
    return corpus, corpus.grouped if gateway else corpus.grouped["device 0"]


def pair(case):
    """Return the functions that are measured in turns."""
    form, _, _, _, gateway = CASES[case]
    corpus, document = data_of(case)
    return packing_work(form, corpus.calls, gateway), partial(orjson.dumps, document)


@pytest.mark.parametrize("peer", ["native", "orjson.dumps"])
@pytest.mark.parametrize("case", CASES)
def test_packing(measure, case, peer):
    """The peer serializes the same dicts as one document, whatever the native core starts from."""
    form, calls, datapoints, _, gateway = CASES[case]
    corpus, document = data_of(case)
    facts = {"datapoints": calls * datapoints, "calls": calls}
    if peer == "native":
        work = packing_work(form, corpus.calls, gateway)
        correct = partial(same_points, corpus.grouped, gateway)
        measure(case, peer, work, correct, in_turns_with=("test_packing", "orjson.dumps"), **facts)
    else:
        work = partial(orjson.dumps, document)
        measure(case, peer, work, lambda data: orjson.loads(data) == document, **facts)


@pytest.mark.parametrize("peer", ["native", "reference"])
def test_packing_against_the_reference(measure, peer):
    """The reference is written for correctness, so it packs only 20 messages."""
    case = "ready uplinks to payloads: gateway, 20 sends of 10 datapoints"
    corpus = telemetry(20, 10, 5)
    implementation = _native if peer == "native" else reference
    work = partial(pack, implementation, uplinks(implementation, corpus.calls, True), True)
    measure(case, peer, work, partial(same_points, corpus.grouped, True), datapoints=200, calls=20)
