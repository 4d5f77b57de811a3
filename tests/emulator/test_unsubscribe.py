"""After unsubscribing, no messages arrive; if the connection ends first, the caller gets an error."""

import asyncio

import pytest

from engine_parts import own_tasks
from tb_mqtt_client import ConnectionLostError
from tb_mqtt_client.common.network.route import Route
from tb_mqtt_client.entities.server_address import ServerAddress
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.requests.dispatch import InboundDispatcher, InboundReport

TOPIC = "v1/devices/me/attributes"


@pytest.fixture
async def manager(emulator):
    tasks = own_tasks()
    manager = MQTTManager("client", inbound=InboundDispatcher(InboundReport(), tasks), tasks=tasks)
    await manager.connect_by(Route(ServerAddress(emulator.host, emulator.port)), username="TOKEN")
    yield manager
    await manager.disconnect()


@pytest.mark.parametrize("subscribed", [True, False])
async def test_no_message_arrives_after_unsubscribing(emulator, manager, subscribed):
    if subscribed:
        await manager.subscribe(TOPIC)
    await manager.unsubscribe(TOPIC)
    assert not await emulator.publish_to("device", TOPIC, {"a": 1})


async def test_a_connection_lost_before_the_unsuback_raises(emulator, manager):
    session = emulator.device("device").session
    waiting = asyncio.ensure_future(manager.unsubscribe(TOPIC))
    await asyncio.sleep(0)
    session.abort()
    with pytest.raises(ConnectionLostError):
        await waiting
    with pytest.raises(ConnectionLostError, match="no connection"):
        await manager.unsubscribe(TOPIC)
    assert manager.send_unsubscribe(TOPIC) is None
