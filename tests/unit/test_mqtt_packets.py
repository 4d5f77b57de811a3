"""Reading the bodies of packets from the server; a violation of MQTT raises `NotMqttError`."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tb_mqtt_client.common.mqtt.packets import (
    NotMqttError,
    PacketType,
    read_acknowledgement,
    read_connack,
    read_properties,
    read_publish,
    read_suback,
    read_unsuback,
)

VERSIONS = st.sampled_from([4, 5])
READERS = {
    "CONNACK": read_connack,
    "PUBLISH at QoS 0": lambda body, version: read_publish(0x30, body, version),
    "PUBLISH at QoS 1": lambda body, version: read_publish(0x32, body, version),
    "PUBLISH at QoS 2": lambda body, version: read_publish(0x3D, body, version),
    "PUBACK": lambda body, version: read_acknowledgement("PUBACK", body, version),
    "SUBACK": read_suback,
    "UNSUBACK": read_unsuback,
    "properties": lambda body, _version: read_properties(body),
}
# Properties with each form of value, so that some bodies pass the first checks.
PROPERTIES = st.sampled_from([
    b"\x01\x01", b"\x02\x00\x00\x00\x05", b"\x03\x00\x01x", b"\x09\x00\x02\xff\xfe", b"\x0b\x80\x01", b"\x13\x00\x3c",
    b"\x1f\x00\x02ab", b"\x21\x00\x0a", b"\x26\x00\x01a\x00\x01b", b"\x27\x00\x00\x10\x00", b"\x7f", b"\x1f\x00\x02\xff\xff",
])  # fmt: skip
BODIES = st.binary(max_size=40) | st.tuples(st.binary(max_size=5), st.lists(PROPERTIES, max_size=4), st.binary(max_size=5)).map(
    lambda parts: parts[0] + bytes([sum(map(len, parts[1]))]) + b"".join(parts[1]) + parts[2]
)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_any_bytes_are_read_or_raise_not_mqtt_error(read):
    @given(BODIES, VERSIONS)
    @example(b"", 5)
    @example(b"\xff" * 10, 5)
    def check(body, version):
        # Any other error fails the test.
        with suppress(NotMqttError):
            read(body, version)

    check()


@pytest.mark.parametrize(
    ("body", "version", "expected"),
    [
        (b"\x00\x00\x00", 5, (False, 0, {})),
        (b"\x01\x00\x03\x21\x00\x0a", 5, (True, 0, {"receive_maximum": [10]})),
        (b"\x00\x00", 5, (False, 0, {})),
        (b"\x00\x87\xff", 5, (False, 0x87, {})),
        (b"\x00\x05", 4, (False, 5, {})),
        (b"\x00\x00\xff", 4, (False, 0, {})),
    ],
)
def test_a_connack_is_read(body, version, expected):
    assert read_connack(body, version) == expected


@pytest.mark.parametrize("twice", [b"\x21\x00\x0a", b"\x27\x00\x00\x10\x00", b"\x24\x01", b"\x13\x00\x3c", b"\x12\x00\x01x"])
def test_a_property_that_comes_twice_in_a_connack_is_refused(twice):
    """A CONNACK with two values of Receive Maximum once ended the task that reconnects."""
    with pytest.raises(NotMqttError, match="twice") as refused:
        read_connack(b"\x00\x00" + bytes([2 * len(twice)]) + 2 * twice, 5)
    assert refused.value.reason_code == 0x82


@pytest.mark.parametrize(
    ("first_byte", "body", "version", "expected"),
    [
        (0x30, b"\x00\x01t\x00x", 5, ("t", b"x", 0, 0, {})),
        (0x30, b"\x00\x01tx", 4, ("t", b"x", 0, 0, {})),
        (0x32, b"\x00\x01t\x12\x34\x00x", 5, ("t", b"x", 1, 0x1234, {})),
        (0x3B, b"\x00\x01t\x12\x34x", 4, ("t", b"x", 1, 0x1234, {})),
        (0x34, b"\x00\x01t\x00\x00\x00", 5, ("t", b"", 2, 0, {})),
        (0x30, b"\x00\x02\xc3\xa9\x07\x26\x00\x01a\x00\x01b", 5, ("\xe9", b"", 0, 0, {"user_property": [("a", "b")]})),
        (0x30, b"\x00\x01t\x05\x0b\x01\x0b\x80\x01y", 5, ("t", b"y", 0, 0, {"subscription_identifier": [1, 128]})),
    ],
)
def test_a_publish_is_read(first_byte, body, version, expected):
    assert read_publish(first_byte, body, version) == expected


@pytest.mark.parametrize(
    ("body", "version", "expected"),
    [
        (b"\x12\x34", 5, (0x1234, 0, {})),
        (b"\x12\x34\x10", 5, (0x1234, 0x10, {})),
        (b"\x12\x34\x97\x00", 5, (0x1234, 0x97, {})),
        (b"\x12\x34\x97\x04\x1f\x00\x01x", 5, (0x1234, 0x97, {"reason_string": ["x"]})),
        (b"\x12\x34", 4, (0x1234, 0, {})),
        (b"\x12\x34\x97", 4, (0x1234, 0, {})),
    ],
)
def test_a_puback_is_read(body, version, expected):
    assert read_acknowledgement("PUBACK", body, version) == expected


@pytest.mark.parametrize(
    ("read", "body", "version", "expected"),
    [
        (read_suback, b"\x12\x34\x00\x01\x8f", 5, (0x1234, (1, 0x8F), {})),
        (read_suback, b"\x12\x34\x80", 4, (0x1234, (0x80,), {})),
        (read_unsuback, b"\x12\x34\x00\x11", 5, (0x1234, (0x11,), {})),
        (read_unsuback, b"\x12\x34", 5, (0x1234, (), {})),
        (read_unsuback, b"\x12\x34", 4, (0x1234, (), {})),
    ],
)
def test_a_suback_and_an_unsuback_are_read(read, body, version, expected):
    assert read(body, version) == expected


def test_packet_types_have_the_numbers_of_mqtt():
    assert [kind.value >> 4 for kind in PacketType] == list(range(1, 16))
