"""The peers that people come from, and the MQTT libraries: the cases of this package with the same data."""

import pytest

from corpora import FIRST_TS, telemetry
from peers import LIBRARIES, SDKS, measure_peer

ROUNDS = 5


@pytest.mark.parametrize("peer", SDKS)
@pytest.mark.parametrize(
    ("case", "calls", "datapoints", "devices"),
    [
        ("dicts to payloads: gateway, 1000 sends of 100 datapoints, 50 devices", 1000, 100, 50),
        ("dicts to payloads: device, 10,000 sends of 10 datapoints", 10_000, 10, 0),
    ],
)
def test_splitting(benchmark, case, calls, datapoints, devices, peer):
    """From dicts to payloads. The splitter of SDK 1.13 works on one send, so it makes at least one payload of each."""
    sends = telemetry(calls, datapoints, devices or 1).calls
    measure_peer(benchmark, case, peer, "split", sends if devices else [(None, data) for _, data in sends], rounds=ROUNDS)


@pytest.mark.parametrize("peer", [*SDKS, *LIBRARIES])
def test_device_one_datapoint_per_send(benchmark, broker, peer):
    case = "device, one datapoint per send, not awaited"
    sends = [(None, {"ts": FIRST_TS + index, "values": {"temperature": index / 8}}) for index in range(20_000)]
    measure_peer(benchmark, case, peer, "send", sends, rounds=ROUNDS, broker=broker)


@pytest.mark.parametrize("peer", [*SDKS, *LIBRARIES])
def test_gateway_a_dict_per_send(benchmark, broker, peer):
    case = "gateway, 200 devices, a dict of 10 keys per send, not awaited"
    sends = [(name, records[0]) for name, records in telemetry(10_000, 10, 200).calls]
    measure_peer(benchmark, case, peer, "send", sends, rounds=ROUNDS, broker=broker)
