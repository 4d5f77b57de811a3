"""Sends expire at their time, whether or not there is a connection, and exactly once."""

import asyncio

import pytest

from engine_parts import engine_of
from tb_mqtt_client import Certainty, DeviceClient
from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.service.delivery.expiry import SENDS_A_TURN, SPARE_ENTRIES, Expiry
from tb_mqtt_client.service.delivery.terms import Lane, SendTerms
from tb_mqtt_client.service.delivery.work_item import TERMS


class Clock:
    def __init__(self):
        self.now = 1000

    def __call__(self):
        return self.now


def send(expires_at):
    return EncodedUplink.timeseries({"a": 1}, 0), None, 0, SendTerms(Lane.NORMAL, expires_at)


@pytest.fixture
def clock():
    return Clock()


async def test_sends_are_due_in_the_order_of_their_times(clock):
    expiry = Expiry(clock, lambda _: None)
    sends = {at: send(at) for at in (1030, 1010, 1020, 1010 + 5)}
    for one in sends.values():
        expiry.add(one)
    assert expiry.take_due() == []
    clock.now = 1015
    assert expiry.take_due() == [sends[1010], sends[1015]]
    sends[1020][TERMS].end()
    clock.now = 2000
    assert expiry.take_due() == [sends[1030]]
    assert len(expiry) == 0
    expiry.clear()


async def test_many_due_sends_are_taken_in_several_turns(clock):
    expiry = Expiry(clock, lambda _: None)
    for _ in range(SENDS_A_TURN + 1):
        expiry.add(send(1010))
    clock.now = 1010
    assert [len(expiry.take_due()) for _ in range(3)] == [SENDS_A_TURN, 1, 0]
    expiry.clear()


async def test_decided_sends_do_not_pile_up(clock):
    expiry = Expiry(clock, lambda _: None)
    expiry.add(send(10**15))
    for number in range(10 * SPARE_ENTRIES):
        expiry.add(one := send(10**15 + number))
        one[TERMS].end()
    assert len(expiry) <= SPARE_ENTRIES + 2


async def test_one_timer_reports_the_earliest_send(clock):
    """The loop's timer runs at once, since the fake clock says that the send is due."""
    reported = []
    expiry = Expiry(clock, reported.extend)
    expiry.add(late := send(10**15))
    expiry.add(early := send(900))
    handles = [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()]
    assert len(handles) == 1
    await asyncio.sleep(0.001)
    assert reported == [early]
    assert len(expiry) == 1
    late[TERMS].end()
    expiry.clear()
    assert all(handle.cancelled() for handle in asyncio.get_running_loop()._scheduled)


@pytest.fixture
async def service():
    service = engine_of(DeviceClient({"host": "localhost", "access_token": "TOKEN"})).message_service
    service.open()
    yield service
    await service.shutdown()


async def test_expired_data_is_dropped_and_never_sent_without_a_connection(service):
    encoded = EncodedUplink.timeseries({"a": 1, "b": 2}, 0)
    expires = await service.intake.accept(encoded, service.terms("normal", 0.1))
    stays = service.intake.try_accept(encoded)
    result = await expires
    assert (result.reason_code, result.reason) == (LocalReasonCode.EXPIRED, "expired")
    assert (result.certainty, result.datapoints_count) == (Certainty.NEVER_SENT, 2)
    statistics = service.counter.snapshot()
    assert (statistics.accepted, statistics.dropped, statistics.queued) == (4, 2, 2)
    assert (service.capacity.sends, service.capacity.nbytes) == (1, encoded.nbytes)
    await service.clear()
    assert (stays.result().reason_code, service.counter.snapshot().undelivered) == (LocalReasonCode.NOT_DELIVERED, 2)
    assert service.is_empty()
    assert service.capacity.sends == 0


async def test_expired_sends_leave_the_queue_when_they_are_many(service):
    encoded = EncodedUplink.timeseries({"a": 1}, 0)
    kept = [await service.intake.accept(encoded) for _ in range(10)]
    expiring = [await service.intake.accept(encoded, service.terms("high", 0.001)) for _ in range(10)]
    await asyncio.gather(*expiring)
    # They need not expire together, and fewer than a quarter of what waits is not worth a search.
    assert 4 * (len(service.device_uplink.queue) - 10) < 10
    assert not any(future.done() for future in kept)


async def test_a_send_that_is_cleared_does_not_expire_later(service):
    # A loaded machine must not reach the time before the queue is cleared.
    future = await service.intake.accept(EncodedUplink.timeseries({"a": 1}, 0), service.terms("normal", 0.5))
    await service.clear()
    await asyncio.sleep(0.6)
    statistics = service.counter.snapshot()
    assert (future.result().reason_code, statistics.undelivered, statistics.dropped) == (LocalReasonCode.NOT_DELIVERED, 1, 0)
