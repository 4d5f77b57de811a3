"""Every internal of gmqtt that this package uses.

``common/gmqtt_patch.py``, the modules of ``common/mqtt/`` and ``service/mqtt_manager.py`` use them.

If a test fails with a new release of gmqtt, read the changes of that release before you widen the range in pyproject.toml.
"""

import ast
import asyncio
import inspect
import logging
from types import SimpleNamespace

import pytest
from gmqtt import Client, Message, MQTTConnectError
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.handler import MqttPackageHandler
from gmqtt.mqtt.package import PublishPacket, SubscribePacket, UnsubscribePacket
from gmqtt.mqtt.property import PROPERTIES, Property
from gmqtt.mqtt.protocol import MQTTProtocol
from gmqtt.storage import PersistentStorage
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client.common.mqtt import gmqtt_bases
from tb_mqtt_client.common.mqtt.transport import publish_packet


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.fixture
def client():
    return Client("client-id", clean_session=True)


def test_the_client_has_the_attributes_that_are_used(client):
    for name in ("_package_handler", "_persistent_storage", "_connack_received", "_connection_lost", "_connection_state"):
        assert hasattr(client, name), name
    assert client._connection is None
    assert isinstance(client._package_handler, MqttPackageHandler)
    assert isinstance(client._persistent_storage, PersistentStorage)


def test_the_client_logs_with_the_given_logger():
    logger = logging.getLogger("given")
    client = Client("client-id", logger=logger)
    assert client._logger is client._package_handler._logger is logger


def test_the_keep_alive_timer_of_gmqtt_can_be_cancelled():
    assert "self._keep_connection_callback = " in inspect.getsource(MQTTConnection.__init__)
    assert "self._send_ping_request()" in inspect.getsource(MQTTConnection._keep_connection)
    assert "self._keepalive," in inspect.getsource(MQTTConnection.auth)


def test_the_client_looks_up_overridden_names_on_the_instance(client):
    """The patches are instance attributes, so they take effect only if gmqtt looks these names up on the instance."""
    assert "self._create_connection(" in inspect.getsource(Client.connect)
    assert "self._persistent_storage.push_message(" in inspect.getsource(Client.publish)
    assert "self._persistent_storage.wait_empty()" in inspect.getsource(Client._wait_qos_queue_drained)
    assert "self, handler_name" in inspect.getsource(MqttPackageHandler.__get_handler__)
    assert "await self._connack_received.wait()" in inspect.getsource(Client.connect)
    assert "self._package_handler.has_error" in inspect.getsource(Client.connect)


def test_packets_get_their_ids_from_the_protocol():
    for builder in (PublishPacket, SubscribePacket, UnsubscribePacket):
        assert "protocol.id_generator.next_id()" in inspect.getsource(builder.build_package)
    assert "id_generator" not in inspect.getsource(Client).replace("_package_handler.id_generator", "")


def test_acknowledgements_are_written_without_a_look_at_their_id(client):
    """``gmqtt_patch.py`` handles the packets of the server, and lets gmqtt write the acknowledgements."""
    handler, written = client._package_handler, []
    handler._send_command_with_mid_callback = lambda *args, **kwargs: written.append((*args, kwargs))
    handler._send_puback(1)
    handler._send_pubrec(2)
    handler._send_pubcomp(3, False)
    assert written == [(kind, mid, False, {"reason_code": 0}) for kind, mid in ((0x40, 1), (0x50, 2), (0x70, 3))]


def test_callbacks_get_the_client_as_first_argument(client):
    called = []
    client.on_message = client.on_subscribe = client.on_unsubscribe = lambda *args: called.append(args)
    client._package_handler.on_message("t", b"", 0, {})
    client._package_handler.on_subscribe(1, (0,), {})
    client._package_handler.on_unsubscribe(1, (0,))
    assert called == [(client, "t", b"", 0, {}), (client, 1, (0,), {}), (client, 1, (0,))]


def test_properties_have_the_forms_that_are_read():
    assert {known.bytes_struct for known in PROPERTIES} == {"!B", "!H", "!L", "u8", "u8x2", "b", "vbi"}
    assert Property.factory(id_=33).name == "receive_maximum"
    assert Property.factory(id_=127) is None


def test_methods_have_the_expected_parameters():
    assert parameters(Client._create_connection) == ["host", "port", "ssl", "clean_session", "keepalive"]
    assert parameters(Client.connect) == ["host", "port", "ssl", "keepalive", "version", "raise_exc"]
    assert parameters(PersistentStorage.push_message) == ["mid", "raw_package"]
    assert parameters(MQTTConnection.__init__) == [
        "transport", "protocol", "clean_session", "keepalive", "package_handler", "logger",
    ]  # fmt: skip
    assert parameters(MQTTProtocol.__init__) == ["args", "connection_state", "id_generator", "kwargs"]
    assert parameters(MqttPackageHandler._handle_disconnect_packet) == ["cmd", "packet"]
    assert parameters(MQTTConnection.subscribe) == ["subscription", "kwargs"]
    assert parameters(MQTTConnection.unsubscribe) == ["topic", "kwargs"]


def test_the_handler_has_the_attributes_that_are_used(client):
    handler = client._package_handler
    for name in ("_error", "_connack_received", "_connection_lost", "current_connection"):
        assert hasattr(handler, name), name
    assert handler.id_generator.next_id() == 1
    handler.id_generator.free_id(1)
    assert MQTTConnectError(134)._code == 134


def test_handlers_are_looked_up_on_the_instance(client):
    handler = client._package_handler
    seen = []
    handler._handle_disconnect_packet = lambda cmd, packet: seen.append((cmd, packet))
    handler._handle_packet(0xE0, b"")
    assert seen == [(0xE0, b"")]


async def test_a_publish_packet_accepts_a_topic_of_str(client):
    """``MqttPublishMessage`` keeps its topic as str, and does not call the constructor of gmqtt's message."""
    protocol = MQTTProtocol(
        connection_state=client._connection_state,
        id_generator=client._package_handler.id_generator,
        loop=asyncio.get_running_loop(),
    )
    written_by_gmqtt = PublishPacket.build_package(Message("a/b", b"{}", qos=1), protocol)[1]
    client._package_handler.id_generator.free_id(1)
    client._package_handler.id_generator._last_used_id = 0
    message = Message.__new__(Message)
    message.topic, message.payload, message.payload_size = "a/b", b"{}", 2
    message.qos, message.retain, message.dup, message.properties = 1, False, False, {}
    assert PublishPacket.build_package(message, protocol)[1] == written_by_gmqtt


@given(
    topic=st.text(st.characters(codec="ascii"), max_size=60),
    size=st.integers(0, 300) | st.sampled_from([16_370, 16_383, 16_384, 2_097_140, 2_097_152]),
    qos=st.sampled_from([0, 1]),
    retain=st.booleans(),
    version=st.sampled_from([4, 5]),
    last_id=st.integers(0, 65_534),
)
def test_a_publish_has_the_bytes_that_gmqtt_writes(topic, size, qos, retain, version, last_id):
    """Also at the sizes at which the remaining length gets a further byte. gmqtt counts characters, so the topics are ASCII."""
    message = Message(topic, b"x" * size, qos=qos, retain=retain)
    message.properties = {}
    ids = SimpleNamespace(next_id=lambda: last_id + 1)
    packet_id, written = PublishPacket.build_package(message, SimpleNamespace(proto_ver=version, id_generator=ids))
    assert publish_packet(topic, b"x" * size, qos, retain=retain, packet_id=packet_id, version=version) == written


def test_gmqtt_reports_the_end_of_a_transport_as_an_empty_disconnect():
    """A DISCONNECT of the server has a reason code, or comes before the end of the transport."""
    assert "Package(MQTTCommands.DISCONNECT, b'')" in inspect.getsource(MQTTProtocol.connection_lost)


def test_the_classes_with_types_declare_what_gmqtt_has():
    """A type checker believes ``gmqtt_bases.py``, so each method that it declares has to exist."""
    block = next(node for node in ast.parse(inspect.getsource(gmqtt_bases)).body if isinstance(node, ast.If))
    declared = [statement for statement in block.body if isinstance(statement, ast.ClassDef)]
    assert {one.name for one in declared} == set(gmqtt_bases.__all__)
    for one in declared:
        real = getattr(gmqtt_bases, one.name)
        for base in one.bases:
            assert ast.unparse(base).rpartition(".")[2] in {parent.__name__ for parent in real.__mro__}, one.name
        for method in one.body:
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                assert inspect.iscoroutinefunction(getattr(real, method.name)) is isinstance(method, ast.AsyncFunctionDef)
