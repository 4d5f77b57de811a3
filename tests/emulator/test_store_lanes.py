"""Data that an earlier client has left in a store, and new data: each arrives once, and attributes keep their order."""

import asyncio

import pytest
from device_peer import make_client

from store_kills import all_delivered


@pytest.fixture
def options(tmp_path):
    return {"path": str(tmp_path / "queue"), "min_free": 0}


class Arrivals:
    """The keys of telemetry, and the values of attributes, in the order of their arrival."""

    def __init__(self, emulator):
        self.keys, self.values = [], []
        emulator.on_publish = self._note

    def _note(self, publish):
        topic = publish.topic
        if topic == "v1/devices/me/telemetry":
            self._note_records(publish.json())
        elif topic == "v1/gateway/telemetry":
            for records in publish.json().values():
                self._note_records(records)
        elif topic == "v1/devices/me/attributes":
            self.values += publish.json().values()
        elif topic == "v1/gateway/attributes":
            for attributes in publish.json().values():
                self.values += attributes.values()

    def _note_records(self, records):
        for record in records if isinstance(records, list) else [records]:
            self.keys += record.get("values", record)


def adds_up(client):
    now = client.statistics
    out = now.acknowledged + now.rejected + now.dropped + now.undelivered + now.queued + now.in_flight + now.kept
    return now.accepted + now.recovered == out


@pytest.mark.parametrize("replay", ["live_first", "in_order"])
async def test_a_gateway(emulator, start_gateway, options, replay):
    first = await start_gateway(store=options)
    sessions = [(await first.connect_device(f"meter {number}"))[0] for number in range(5)]
    await emulator.stop()
    for number in range(100):
        await first.send_device_timeseries(
            sessions[number % 5], {"ts": 1, "values": {f"old {number:03}": 1}}, wait_for_publish=False
        )
        await first.send_device_attributes(sessions[number % 5], {"state": number}, wait_for_publish=False)
    await first.stop()
    assert first.statistics.kept == 200
    arrivals = Arrivals(emulator)
    await emulator.start()
    second = await start_gateway(store=options, replay=replay, rate_limits={"telemetry_datapoints": "200:1"})
    again = [(await second.connect_device(f"meter {number}"))[0] for number in range(5)]
    for number in range(100, 120):
        await second.send_device_timeseries(again[number % 5], {"ts": 1, "values": {f"new {number}": 1}}, wait_for_publish=False)
        await second.send_device_attributes(again[number % 5], {"state": number}, wait_for_publish=False)
    await all_delivered(second)
    assert sorted(arrivals.keys) == sorted(
        [*(f"old {number:03}" for number in range(100)), *(f"new {number}" for number in range(100, 120))]
    )
    # The platform keeps the attribute that arrives last: of each device, the values rise.
    for device in range(5):
        own = [value for value in arrivals.values if value % 5 == device]
        assert own == sorted(own)
        assert emulator.device(f"meter {device}").attributes == {"state": 115 + device}
        keys = [key for key in arrivals.keys if int(key[4:]) % 5 == device]
        for age in ("old", "new"):
            own_keys = [key for key in keys if key.startswith(age)]
            assert own_keys == sorted(own_keys)
        if replay == "in_order":
            assert keys == sorted(keys, key=lambda key: int(key[4:]))
    now = second.statistics
    assert (now.accepted, now.recovered, now.acknowledged) == (40, 200, 240)
    assert adds_up(second)


async def test_attributes_keep_their_order_across_restarts(emulator, options):
    """Also when memory holds only some of them."""
    client = make_client(emulator, store=options, max_queued_messages=5)
    await emulator.stop()
    await client.start()
    for number in range(50):
        await client.send_attributes({"state": number}, wait_for_publish=False)
    await client.stop()
    arrivals = Arrivals(emulator)
    await emulator.start()
    later = make_client(emulator, store=options, max_queued_messages=5)
    await later.connect()
    for number in range(50, 80):
        await later.send_attributes({"state": number}, wait_for_publish=False)
        await asyncio.sleep(0)
    await all_delivered(later)
    assert arrivals.values == sorted(arrivals.values)
    assert emulator.device("device").attributes == {"state": 79}
    assert adds_up(later)
    await later.stop()
