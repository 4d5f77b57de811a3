"""While a backlog is sent under a limit, live data is not delayed by it, and every datapoint arrives once."""

import asyncio

import pytest

from engine_parts import engine_of
from tb_mqtt_client import DeviceClient
from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.service.delivery.terms import backlog_terms

LIMIT = 5000
"""Datapoints a second; also the datapoints that are admitted at once after a pause."""
BACKLOG = 12_000
SEND = 10
"""Datapoints of a send of the backlog."""


def queue_backlog(client, datapoints, key="old"):
    """Queue a backlog as a store does; return the futures."""
    service, loop = engine_of(client).message_service, asyncio.get_running_loop()
    accepted = now_ms() - 3_600_000
    uplinks = []
    for first in range(0, datapoints, SEND):
        data = [{"ts": 1 + ts, "values": {key: ts}} for ts in range(first, first + SEND)]
        terms = backlog_terms(accepted + first, 0, 1, 1)
        uplinks.append((EncodedUplink.timeseries(data, 0), loop.create_future(), 0, terms))
        service.counter.accept(SEND)
    service.queue_backlog(uplinks)
    return [future for _, future, _, _ in uplinks]


class Arrivals:
    """Counts datapoints of the backlog, and notes how many of them had arrived before each live value."""

    def __init__(self, emulator):
        self.old, self.live = [], {}
        self._arrived = asyncio.Event()
        emulator.on_publish = self._note

    async def wait(self, count):
        """Wait until this many datapoints of the backlog have arrived."""
        while len(self.old) < count:
            self._arrived.clear()
            await self._arrived.wait()

    def _note(self, publish):
        self._arrived.set()
        if publish.topic.endswith("telemetry"):
            records = publish.json()
            for record in records if isinstance(records, list) else [records]:
                if "old" in record["values"]:
                    self.old.append(record["values"]["old"])
                else:
                    self.live[record["values"]["live"]] = len(self.old)


async def send_live(client, arrivals, sent, futures):
    """Send a value for each tenth of the backlog that has arrived; return how much of it had."""
    number = 0
    while len(arrivals.old) < BACKLOG * 0.9:
        sent[number] = len(arrivals.old)
        data = {"ts": 10**6 + number, "values": {"live": number}}
        futures += await client.send_timeseries([data], wait_for_publish=False)
        number += 1
        await arrivals.wait(min(len(arrivals.old) + BACKLOG // 10, BACKLOG))


@pytest.mark.parametrize("replay", ["live_first", "in_order"])
async def test_a_backlog_under_a_limit(emulator, replay):
    options = {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN", "replay": replay}
    client = DeviceClient(options | {"rate_limits": {"telemetry_datapoints": f"{LIMIT}:1"}})
    arrivals, sent, futures = Arrivals(emulator), {}, []
    await client.start()
    futures += queue_backlog(client, BACKLOG)
    assert client.health()["backlog"] | {"bytes": 0, "oldest_seconds": 0} == {
        "sends": BACKLOG // SEND, "datapoints": BACKLOG, "bytes": 0, "oldest_seconds": 0, "per_second": None, "eta_seconds": None,
        "limit": None,
    }  # fmt: skip
    await send_live(client, arrivals, sent, futures)
    assert {(await future).reason_code for future in futures} == {0}
    await client.stop()
    # In its order, and each datapoint once.
    assert arrivals.old == list(range(BACKLOG))
    assert arrivals.live.keys() == sent.keys()
    overtaken_by = [arrivals.live[number] - sent[number] for number in sent]
    if replay == "live_first":
        # A batch holds what the limit admits at once and in a quarter of a second; the first one was taken before any live data.
        assert max(overtaken_by) <= LIMIT * 1.25 + SEND
        assert min(arrivals.live.values()) < BACKLOG
    else:
        assert {arrivals.live[number] for number in sent if sent[number] < BACKLOG - LIMIT * 1.25} == {BACKLOG}
    statistics = client.statistics
    assert (statistics.accepted, statistics.acknowledged) == (BACKLOG + len(sent), BACKLOG + len(sent))
    assert client.health()["backlog"]["sends"] == 0


async def test_the_backlog_of_a_sub_device_waits_for_its_announcement(emulator, start_gateway):
    gateway = await start_gateway()
    service = engine_of(gateway).message_service
    session, _ = await gateway.connect_device("D")
    encoded = EncodedUplink.timeseries({"a": 1}, 0, session.identity)
    future = asyncio.get_running_loop().create_future()
    service.counter.accept(1)
    service.queue_backlog([(encoded, future, 0, backlog_terms(now_ms(), 0, 1, 1))])
    assert (await future).is_successful()
    assert gateway.statistics.acknowledged == 1


async def test_a_backlog_that_has_expired_is_dropped(device):
    service = engine_of(device).message_service
    encoded = EncodedUplink.timeseries({"a": 1}, 0)
    future = asyncio.get_running_loop().create_future()
    service.counter.accept(1)
    accepted = now_ms() - 10_000
    service.queue_backlog([(encoded, future, 0, backlog_terms(accepted, accepted + 5000, service._clock(), now_ms()))])
    assert (await future).reason_code == -3
    assert (device.statistics.dropped, device.statistics.queued, service.capacity.sends) == (1, 0, 0)
