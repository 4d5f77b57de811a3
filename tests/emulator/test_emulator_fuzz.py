"""The emulator handles arbitrary packets and payloads without an internal error."""

import asyncio
import json
import string
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_mqtt import packet, text

from tb_mqtt_client.emulator import VERSIONS, Emulator, RateLimits, SessionLimits

TOPICS = (
    "v1/devices/me/telemetry", "v1/devices/me/attributes", "v1/devices/me/attributes/request/1", "v1/devices/me/rpc/request/1",
    "v1/devices/me/rpc/response/1", "v1/devices/me/claim", "v2/fw/request/1/chunk/0", "v2/sw/request/1/chunk/1", "v2/t",
    "v2/a/req/1", "v2/r/req/x", "v1/gateway/connect", "v1/gateway/disconnect", "v1/gateway/telemetry", "v1/gateway/attributes",
    "v1/gateway/attributes/request", "v1/gateway/rpc", "v1/gateway/claim", "v1/gateway/x", "/provision/request",
)  # fmt: skip
# Keys that the platform reads, so that documents pass the first checks.
NAMES = st.sampled_from([
    "ts", "values", "metadata", "connector", "receivedTs", "publishedTs", "device", "type", "id", "data", "client", "key", "keys",
    "method", "params", "clientKeys", "sharedKeys", "secretKey", "durationMs", "provisionDeviceKey", "provisionDeviceSecret",
    "deviceName", "credentialsType", "token", "hash", "", "A",
])  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["key", "secret", "A", "m", "MQTT_BASIC", "X509_CERTIFICATE", "getSessionLimits", "12", 1e400])
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=5),
    max_leaves=20,
)
PAYLOADS = (
    DOCUMENTS.map(lambda document: json.dumps(document).encode())
    | st.binary(max_size=40)
    | st.text(string.printable, max_size=40).map(str.encode)
    | st.sampled_from([b"100", b"", b"0", b"-1"])
)
PUBLISHES = st.lists(st.tuples(st.sampled_from(TOPICS), PAYLOADS, st.integers(0, 2)), min_size=1, max_size=4)


class Transport(asyncio.Transport):
    """Collects the bytes that the emulator writes."""

    def __init__(self):
        super().__init__()
        self.written = b""

    def write(self, data):
        self.written += bytes(data)

    def close(self):
        pass

    def abort(self):
        pass


async def send(sent, level, version, token, limits):
    """Send packets to a new session and return the bytes that it wrote."""
    emulator = Emulator(version=version, limits=limits)
    emulator.add_gateway("GATEWAY")
    emulator.add_provision_profile("key", "secret")
    session = emulator.protocol()
    transport = Transport()
    session.connection_made(transport)
    properties = b"\0" if level == 5 else b""
    session.data_received(packet(0x10, text("MQTT") + bytes([level, 0x82, 0, 60]) + properties + text("id") + text(token)))
    for one in sent:
        session.data_received(one)
    await asyncio.sleep(0)
    session.connection_lost(None)
    # Raises the internal errors of the emulator.
    await emulator.__aexit__(None, None, None)
    return transport.written


def as_packet(topic, payload, qos, level):
    return packet(0x30 | qos << 1, text(topic) + (struct.pack("!H", 7) if qos else b"") + (b"\0" if level == 5 else b"") + payload)


LIMITS = st.sampled_from([None, SessionLimits(), SessionLimits(RateLimits("4:60"), RateLimits("5:60", "2:60"))])


@given(PUBLISHES, st.sampled_from([3, 4, 5]), st.sampled_from(VERSIONS), st.sampled_from(["GATEWAY", "provision"]), LIMITS)
def test_arbitrary_payloads(publishes, level, version, token, limits):
    sent = [as_packet(topic, payload, qos, level) for topic, payload, qos in publishes]
    assert asyncio.run(send(sent, level, version, token, limits)).startswith(b"\x20")


@given(st.lists(st.binary(max_size=60), max_size=5), st.sampled_from([4, 5]))
def test_arbitrary_bytes(pieces, level):
    asyncio.run(send(pieces, level, "4.3", "GATEWAY", SessionLimits()))


@settings(max_examples=300)
@given(st.integers(0, 255), st.binary(max_size=40), st.sampled_from([4, 5]))
def test_arbitrary_packets(first_byte, body, level):
    asyncio.run(send([packet(first_byte, body)], level, "4.3", "GATEWAY", SessionLimits()))


def test_an_internal_error_is_detected(monkeypatch):
    monkeypatch.setattr("tb_mqtt_client.emulator.attributes.response", lambda *_: 1 / 0)
    with pytest.raises(ExceptionGroup):
        asyncio.run(send([as_packet(TOPICS[2], b"{}", 1, 5)], 5, "4.3", "GATEWAY", SessionLimits()))
