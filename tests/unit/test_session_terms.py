"""The terms in a CONNACK: their values, values that MQTT forbids, and the sizes of packets and their bodies."""

import pytest

from tb_mqtt_client.common.mqtt.packets import NotMqttError
from tb_mqtt_client.common.mqtt.session_terms import SessionTerms
from tb_mqtt_client.service.formats.json_session_limits import SessionLimits


def test_terms_default_to_those_of_mqtt():
    terms = SessionTerms.of({})
    assert terms == SessionTerms()
    assert (terms.receive_maximum, terms.maximum_qos, terms.retain_available, terms.server_keep_alive) == (65_535, 2, True, None)
    assert terms.max_remaining_length == 268_435_455


def test_all_terms_are_read():
    terms = SessionTerms.of({
        "receive_maximum": [7], "maximum_packet_size": [1000], "max_qos": [0], "retain_available": [0], "server_keep_alive": [30],
        "topic_alias_maximum": [5], "assigned_client_identifier": ["x"],
    })  # fmt: skip
    assert terms == SessionTerms(7, 1000, 0, False, 30)


@pytest.mark.parametrize(
    ("name", "value"),
    [("receive_maximum", 0), ("maximum_packet_size", 0), ("max_qos", 2), ("max_qos", 255), ("retain_available", 2)],
)
def test_values_that_mqtt_forbids_are_refused(name, value):
    with pytest.raises(NotMqttError, match=f"{name} {value}") as refused:
        SessionTerms.of({name: [value]})
    assert refused.value.reason_code == 0x82


def test_a_maximum_packet_size_below_128_is_refused():
    assert SessionTerms.of({"maximum_packet_size": [128]}).max_remaining_length == 126
    with pytest.raises(NotMqttError, match="127 bytes at most, and a session needs 128") as refused:
        SessionTerms.of({"maximum_packet_size": [127]})
    assert refused.value.reason_code == 0x95


def packet_size(remaining_length):
    length_bytes = max(1, -(-remaining_length.bit_length() // 7))
    return 1 + length_bytes + remaining_length


@pytest.mark.parametrize("edge", [128, 129, 130, 16_386, 16_387, 16_388, 2_097_155, 2_097_156, 2_097_157, 268_435_459, 70_000])
def test_the_fixed_header_counts_for_the_packet_size(edge):
    for size in range(edge - 2, edge + 3):
        remaining = SessionTerms(maximum_packet_size=size).max_remaining_length
        assert packet_size(remaining) <= size < packet_size(remaining + 1) or remaining == 268_435_455


@pytest.mark.parametrize(("announced", "allowed", "expected"), [(65_536, 997, 997), (500, 997, 500)])
def test_the_smaller_payload_limit_applies(announced, allowed, expected):
    assert SessionLimits(announced, announced=True).within(allowed) == SessionLimits(expected, announced=True)
