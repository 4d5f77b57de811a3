"""A gmqtt connection with the patches of this package, over a transport that records the written bytes."""

from types import SimpleNamespace

from gmqtt import Client

from engine_parts import own_tasks
from tb_mqtt_client.common.gmqtt_patch import PatchUtils
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage

PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
CONNACK = b"\x20\x03\x00\x00\x00"


def packet(first_byte, body):
    """Return a packet with a body of fewer than 16,384 bytes."""
    length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 0x7F | 0x80, len(body) >> 7])
    return bytes([first_byte]) + length + body


def ack(first_byte, packet_id, rest=b"\x00\x00"):
    """Return a PUBACK, a SUBACK or another packet whose body begins with a packet id."""
    return packet(first_byte, packet_id.to_bytes(2, "big") + rest)


def puback(packet_id):
    return ack(0x40, packet_id)


def publish(packet_id, payload, topic=b"t", qos=1):
    identifier = packet_id.to_bytes(2, "big") if qos else b""
    return packet(0x30 | qos << 1, len(topic).to_bytes(2, "big") + topic + identifier + b"\x00" + payload)


class RecordingSocket:
    def __init__(self):
        self.options = []

    def setsockopt(self, *option):
        self.options.append(option)

    def fileno(self):
        return -1


class RecordingTransport:
    """The methods of a transport that a protocol uses."""

    def __init__(self):
        self.socket = RecordingSocket()
        self.writes = []
        self.aborted = False
        self.unsent = 0

    def get_extra_info(self, name, default=None):
        return self.socket if name == "socket" else default

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True

    close = abort

    def write(self, data):
        self.writes.append(bytes(data))

    def get_write_buffer_size(self):
        return self.unsent

    def set_write_buffer_limits(self, high):
        assert high > 0


class PlayedConnection:
    """A connection whose server is the test: ``say`` receives bytes of the server, and ``writes`` has those of the client.

    The lists ``acknowledged``, ``received``, ``lost`` and ``confirmed`` have the reports of the patches; ``confirmed`` is for
    SUBACK and UNSUBACK.
    """

    def __init__(self, *, version=5, keepalive=0, **options):
        self.acknowledged, self.received, self.lost, self.confirmed = [], [], [], []
        self._keepalive = keepalive
        self.client = Client("client-id", clean_session=True)
        self.client._connection_state.protocol_version = version
        self.patches = PatchUtils(
            self.client, tasks=own_tasks(), on_lost=self.lost.append, open_transport=self._open_transport, **options
        )
        self.patches.apply(lambda packet_id, reason_code, _properties: self.acknowledged.append((packet_id, reason_code)))
        self.client.on_message = lambda _client, _topic, payload, _qos, _properties: self.received.append(payload)
        self.client.on_subscribe = lambda _client, packet_id, codes, _properties: self.confirmed.append((packet_id, codes))
        self.client.on_unsubscribe = lambda _client, packet_id, codes: self.confirmed.append((packet_id, codes))
        self.transport = RecordingTransport()

    async def open(self, connack=CONNACK):
        """Connect without a socket."""
        arguments = {"host": "h", "port": 1, "ssl": None, "clean_session": True, "keepalive": self._keepalive}
        self.connection = self.client._connection = await self.client._create_connection(**arguments)
        self.protocol = self.connection._protocol
        if connack:
            self.say(connack)
        return self

    async def _open_transport(self, protocol_factory):
        protocol = protocol_factory()
        protocol.connection_made(self.transport)
        return self.transport, protocol

    @property
    def writes(self):
        return self.transport.writes

    def say(self, data):
        self.protocol.data_received(data)

    def publish(self, payload=b"{}"):
        """Publish with QoS 1 as ``MQTTManager`` does. Return the packet id."""
        packet_id, written = self.connection.publish(MqttPublishMessage("t", payload, delivery_futures=[SimpleNamespace()]))
        self.client._persistent_storage.push_message(packet_id, written)
        return packet_id
