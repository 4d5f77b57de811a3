"""A send that gives other tasks their turn before it is accepted may find the client stopped."""

import asyncio

import pytest

from engine_parts import engine_of
from tb_mqtt_client import DeviceClient, NotConnectedError
from tb_mqtt_client._native import EncodedUplink


@pytest.mark.parametrize(("end", "text"), [("shutdown", "was stopped"), ("fail", "a queue has failed")])
async def test_a_send_is_not_accepted_after_the_queues_are_closed(end, text):
    service = engine_of(DeviceClient({"host": "localhost", "access_token": "TOKEN"})).message_service
    service.open()
    accepting = asyncio.ensure_future(service.intake.accept(EncodedUplink.timeseries({"a": 1}, 0, None, True)))
    await asyncio.sleep(0)
    if end == "fail":
        service.fail("a queue has failed")
    else:
        await service.shutdown()
    with pytest.raises(NotConnectedError, match=text):
        await accepting
    assert service.is_empty()
    assert (service.capacity.sends, service.counter.snapshot().accepted) == (0, 0)
