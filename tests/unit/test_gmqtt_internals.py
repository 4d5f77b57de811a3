"""Every internal of gmqtt that ``common/gmqtt_patch.py``, ``common/gmqtt_transport.py`` and ``service/mqtt_manager.py`` lean on.

When one of these fails after a new release of gmqtt, read what changed there before the range in pyproject.toml is widened.
"""

import asyncio
import inspect
import logging

import pytest
from gmqtt import Client, Message, MQTTConnectError
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.handler import MqttPackageHandler
from gmqtt.mqtt.package import PublishPacket
from gmqtt.mqtt.protocol import MQTTProtocol
from gmqtt.storage import PersistentStorage

from tb_mqtt_client.common.gmqtt_patch import PublishPacket as OurPublishPacket


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.fixture
def client():
    return Client("client-id", clean_session=True)


def test_client_attributes(client):
    for name in ("_package_handler", "_persistent_storage", "_connack_received", "_connection_lost", "_connection_state"):
        assert hasattr(client, name), name
    assert client._connection is None
    assert isinstance(client._package_handler, MqttPackageHandler)
    assert isinstance(client._persistent_storage, PersistentStorage)


def test_client_logs_with_the_logger_that_it_is_given():
    logger = logging.getLogger("given")
    client = Client("client-id", logger=logger)
    assert client._logger is client._package_handler._logger is logger


def test_connections_look_for_silence():
    assert "self._keepalive / 2, self._keep_connection" in inspect.getsource(MQTTConnection.__init__)
    assert "self._last_data_in" in inspect.getsource(MQTTConnection._keep_connection)


def test_client_looks_up_what_is_overridden(client):
    """The overrides are instance attributes: they count only while gmqtt looks these names up on the instance."""
    assert "self._create_connection(" in inspect.getsource(Client.connect)
    assert "self._persistent_storage.push_message(" in inspect.getsource(Client.publish)
    assert "self._persistent_storage.wait_empty()" in inspect.getsource(Client._wait_qos_queue_drained)
    assert "self, handler_name" in inspect.getsource(MqttPackageHandler.__get_handler__)


def test_signatures():
    assert parameters(Client._create_connection) == ["host", "port", "ssl", "clean_session", "keepalive"]
    assert parameters(Client.connect) == ["host", "port", "ssl", "keepalive", "version", "raise_exc"]
    assert parameters(PersistentStorage.push_message) == ["mid", "raw_package"]
    assert parameters(MQTTConnection.__init__) == [
        "transport", "protocol", "clean_session", "keepalive", "package_handler", "logger",
    ]  # fmt: skip
    assert parameters(MQTTProtocol.__init__) == ["args", "connection_state", "id_generator", "kwargs"]
    for name in ("_handle_connack_packet", "_handle_disconnect_packet", "_handle_puback_packet"):
        assert parameters(getattr(MqttPackageHandler, name)) == ["cmd", "packet"]


def test_handler_attributes(client):
    handler = client._package_handler
    for name in ("_error", "_connack_received", "_connection_lost", "_resend_qos_callback", "current_connection"):
        assert hasattr(handler, name), name
    assert handler._parse_properties(b"\x00") == ({}, b"")
    assert handler.id_generator.next_id() == 1
    handler.id_generator.free_id(1)
    assert MQTTConnectError(134)._code == 134


def test_handlers_are_found_on_the_instance(client):
    handler = client._package_handler
    seen = []
    handler._handle_puback_packet = lambda cmd, packet: seen.append((cmd, packet))
    handler._handle_packet(0x40, b"\x00\x01")
    assert seen == [(0x40, b"\x00\x01")]


async def test_publish_packet_takes_a_topic_of_str(client):
    """``MqttPublishMessage`` keeps its topic as str and skips gmqtt's constructor."""
    protocol = MQTTProtocol(
        connection_state=client._connection_state,
        id_generator=client._package_handler.id_generator,
        loop=asyncio.get_running_loop(),
    )
    by_gmqtt = PublishPacket.build_package(Message("a/b", b"{}", qos=1), protocol)[1]
    client._package_handler.id_generator.free_id(1)
    client._package_handler.id_generator._last_used_id = 0
    message = Message.__new__(Message)
    message.topic, message.payload, message.payload_size = "a/b", b"{}", 2
    message.qos, message.retain, message.dup, message.properties = 1, False, False, {}
    assert PublishPacket.build_package(message, protocol)[1] == by_gmqtt


async def test_a_publish_with_a_chosen_packet_id(client):
    protocol = MQTTProtocol(connection_state=client._connection_state, id_generator=client._package_handler.id_generator)
    message = Message("a/b", b"{}", qos=1)
    packet_id, packet = OurPublishPacket.build_package(message, protocol)
    assert packet == b"\x32\x0a\x00\x03a/b\x00\x01\x00{}"
    assert OurPublishPacket.build_package(message, protocol, 0x1234) == (0x1234, packet.replace(b"\x00\x01\x00", b"\x12\x34\x00"))
    assert (packet_id, protocol.id_generator.next_id()) == (1, 2)


def test_empty_disconnect_is_made_up_by_gmqtt():
    """An empty DISCONNECT stands for the end of the transport; a real one carries a reason code or comes before it."""
    assert "Package(MQTTCommands.DISCONNECT, b'')" in inspect.getsource(MQTTProtocol.connection_lost)
