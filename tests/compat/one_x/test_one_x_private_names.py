"""Names of SDK 1.x with a leading underscore that programs and the IoT Gateway use, and rarely used public ones."""

import logging

import pytest
from one_x_platform import FAST, Calls

from tb_device_mqtt import (
    ATTRIBUTES_TOPIC,
    TELEMETRY_TOPIC,
    GreedyTokenBucket,
    ProvisionClient,
    TBDeviceMqttClient,
    TBQoSException,
    TBSendMethod,
)
from tb_gateway_mqtt import GATEWAY_ATTRIBUTES_TOPIC, GATEWAY_RPC_TOPIC, GATEWAY_TELEMETRY_TOPIC
from tb_mqtt_client.emulator import RateLimits, SessionLimits


def test_published_data_is_delivered(platform_thread, device):
    assert device._publish_data({"a": 1}, TELEMETRY_TOPIC, 1).get() == 0
    assert device._publish_data({"b": 2}, ATTRIBUTES_TOPIC, None, 5).get() == 0
    request = {"topic": TELEMETRY_TOPIC, "payload": {"c": 3}, "qos": 1}
    assert device._send_request(TBSendMethod.PUBLISH, request).get() == 0
    assert sorted(platform_thread.values()) == [("a", 1), ("c", 3)]
    assert platform_thread.emulator.device("device").attributes == {"b": 2}
    with pytest.raises(TBQoSException):
        device._publish_data({"a": 1}, TELEMETRY_TOPIC, 2)


def test_data_of_sub_devices_is_published_by_their_names(platform_thread, gateway):
    assert gateway._publish_data({"A": [{"ts": 1, "values": {"a": 1}}], "B": [{"b": 2}]}, GATEWAY_TELEMETRY_TOPIC, 1).get() == 0
    assert gateway._publish_data({"A": {"c": 3}}, GATEWAY_ATTRIBUTES_TOPIC, 1).get() == 0
    assert platform_thread.stored("A") == [(1, "a", 1)]
    assert platform_thread.values("B") == [("b", 2)]
    assert platform_thread.emulator.device("A").attributes == {"c": 3}


def test_a_subscription_by_a_program_changes_nothing(platform_thread, device):
    """The client subscribes to all topics of the platform itself."""
    assert device._subscribe_to_topic(ATTRIBUTES_TOPIC, 1).get() == 0
    assert device._send_request(TBSendMethod.SUBSCRIBE, {"topic": ATTRIBUTES_TOPIC}).get() == 0
    updates = Calls()
    device.subscribe_to_all_attributes(updates)
    platform_thread.run(platform_thread.emulator.set_shared_attributes("device", {"a": 1}))
    assert updates.wait(1) == ({"a": 1}, None)


class Message:
    def __init__(self, topic, payload):
        self.topic, self.payload = topic, payload


def test_a_message_may_be_passed_to_the_client(caplog):
    client = TBDeviceMqttClient("host")
    updates = Calls()
    client.subscribe_to_attribute("a", updates)
    client._on_message(None, None, Message(ATTRIBUTES_TOPIC, b'{"a": 1, "b": 2}'))
    client._on_decoded_message({"a": 2}, Message(ATTRIBUTES_TOPIC, b""))
    assert updates.all == [({"a": 1, "b": 2}, None), ({"a": 2}, None)]
    client._on_message(None, None, Message(ATTRIBUTES_TOPIC, b"{"))
    assert "is not JSON" in caplog.text
    client.clean_device_sub_dict()
    client._on_message(None, None, Message(ATTRIBUTES_TOPIC, b'{"a": 3}'))
    assert len(updates.all) == 2


def test_the_handlers_of_a_gateway_get_messages_that_are_passed_to_it(gateway):
    requests = Calls()
    gateway.gw_set_server_side_rpc_request_handler(requests)
    content = {"device": "A", "data": {"id": 1, "method": "m", "params": None}}
    gateway._on_decoded_message(content, Message(GATEWAY_RPC_TOPIC, b""))
    assert requests.all == [(gateway, content)]


LIMITS = SessionLimits(rate_limits=RateLimits(messages="100:1"))


@pytest.mark.parametrize("platform_thread", [{"limits": LIMITS}], indirect=True)
def test_the_limits_of_the_session_are_requested_and_shown(platform_thread, device):
    configurations = Calls()
    device.request_service_configuration(configurations)
    number, configuration, error = configurations.wait(1)
    assert (number, error) == (1, None)
    assert configuration["rateLimits"]["messages"] == "100:1"
    configuration["rateLimits"]["messages"] = "10:1"
    device.on_service_configuration(0, configuration | {"maxPayloadSize": 1000})
    assert device._messages_rate_limit.__dict__["rateLimits"]["1"]["capacity"] == 8
    assert device.max_payload_size == 800
    device.rate_limits_received = False
    device.on_service_configuration(0, {"error": "timeout"})
    assert device.rate_limits_received


def test_a_program_may_replace_what_shows_the_limits(platform_thread):
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "TOKEN")
    client.service_configuration_callback = shown = Calls()
    client.connect(**FAST)
    try:
        _, configuration, _ = shown.wait(1)
        assert configuration["maxPayloadSize"] == 65536
        assert not client.rate_limits_received
    finally:
        client.disconnect()


@pytest.mark.parametrize("qos", [2, "1"])
def test_a_response_with_a_wrong_qos_is_not_sent(platform_thread, device, gateway, caplog, qos):
    assert device.send_rpc_reply("1", {}, qos) is None
    assert gateway.gw_send_rpc_reply("A", 1, {}, qos) is None
    assert caplog.text.count("RPC response is not sent") == 2


def test_the_credentials_of_a_provisioning_client_are_those_of_the_response(platform_thread):
    client = ProvisionClient(
        platform_thread.host, platform_thread.port, {"provisionDeviceKey": "KEY", "provisionDeviceSecret": "SECRET"}
    )
    assert client.get_credentials() is None
    client.provision()
    assert client.get_credentials()["status"] == "SUCCESS"


def test_a_bucket_is_refilled():
    bucket = GreedyTokenBucket(10, 5)
    assert bucket.consume(10)
    bucket.last_updated -= 2
    bucket.refill()
    assert bucket.tokens == pytest.approx(4, abs=0.1)


def test_only_a_lost_connection_is_a_warning(platform_thread, caplog):
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "TOKEN")
    with caplog.at_level(logging.INFO, "tb_connection"):
        client.connect(**FAST)
        client.disconnect()
        client._on_disconnect(client._client, None, None, 0x8E, None)
    levels = [record.levelname for record in caplog.records if record.message.startswith("Disconnected from")]
    assert levels == ["INFO", "WARNING"]
