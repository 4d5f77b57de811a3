"""``client._client``, through which programs of SDK 1.x reach the client of paho."""

import json

import pytest
from one_x_platform import FAST, SECONDS, Calls

from tb_device_mqtt import TBDeviceMqttClient

TOPIC = "v1/devices/me/attributes/response/+"
OWN = "v2/sw/response/1/chunk/0"
"""A topic that the client does not subscribe to on its own."""


def cut_the_connection(platform, token="TOKEN"):
    platform.run(platform.emulator.disconnect_device(token))


def deliver(platform, topic, content, token="TOKEN"):
    assert platform.run(platform.emulator.publish_to(token, topic, content))


def test_a_message_of_any_topic_is_published(platform_thread, device):
    claim = device._client.publish("v1/devices/me/claim", json.dumps({"secretKey": "s", "durationMs": 1000}), 1)
    claim.wait_for_publish(SECONDS)
    assert (claim.is_published(), claim.rc, claim.mid > 0) == (True, 0, True)
    assert platform_thread.emulator.device("device").claims[0].secret_key == "s"


def test_published_telemetry_and_attributes_are_counted_like_those_of_sends(platform_thread, device, gateway):
    own = device._client.publish("v1/devices/me/telemetry", json.dumps({"ts": 1, "values": {"a": 1}}))
    attributes = device._client.publish("v1/devices/me/attributes", b'{"serial": 5}')
    devices = {name: [{"ts": 1, "values": {"a": 1}}] for name in ("first", "second")}
    both = gateway._client.publish("v1/gateway/telemetry", json.dumps(devices))
    for message in (own, attributes, both):
        message.wait_for_publish(SECONDS)
        assert (message.is_published(), message.rc) == (True, 0)
    assert both.mid == 0
    assert platform_thread.stored() == platform_thread.stored("first") == platform_thread.stored("second") == [(1, "a", 1)]
    assert platform_thread.emulator.device("device").attributes == {"serial": 5}
    assert device._connection.core.statistics.acknowledged == 2
    assert gateway._connection.core.statistics.acknowledged == 2


@pytest.mark.parametrize(
    ("topic", "payload", "error", "text"),
    [
        ("v1/devices/me/telemetry", "no JSON", ValueError, "payload must be JSON on v1/devices/me/telemetry"),
        ("v1/gateway/telemetry", "[1]", ValueError, "the data of each device by its name"),
        ("a/+", b"", ValueError, "topic must be a topic without wildcards"),
        ("a", [1], TypeError, "payload must be bytes, text, a number or None"),
    ],
)
def test_what_cannot_be_published_raises(gateway, topic, payload, error, text):
    with pytest.raises(error, match=text):
        gateway._client.publish(topic, payload)


def test_a_publish_without_a_connection_has_the_code_of_paho():
    client = TBDeviceMqttClient("localhost", 1, "TOKEN")
    assert client._client.publish("topic", "text").rc == 4


def test_a_subscription_survives_a_reconnect(platform_thread, device):
    calls, others = Calls(), Calls()
    device._client.user_data_set("mine")
    device._client.message_callback_add(TOPIC, calls)
    assert device._client.subscribe((TOPIC, 1)) == (0, 1)
    # The platform has no such topic.
    assert device._client.subscribe([("own/topic", 0)]) == (12, None)
    device.set_server_side_rpc_request_handler(others)
    cut_the_connection(platform_thread)
    assert device.send_telemetry({"a": 1}).get() == 0
    deliver(platform_thread, "v1/devices/me/attributes/response/77", {"x": 1})
    client, userdata, message = calls.wait(1)
    assert (client is device._client, userdata) == (True, "mine")
    assert (message.topic, json.loads(message.payload)) == ("v1/devices/me/attributes/response/77", {"x": 1})
    # Topics of the client itself are not affected.
    deliver(platform_thread, "v1/devices/me/rpc/request/5", {"method": "m"})
    assert others.wait(1) == ("5", {"method": "m"})


def test_a_subscription_before_connect_is_made_then_and_ends_when_it_is_removed(platform_thread):
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "TOKEN")
    messages = Calls()
    client._client.message_callback_add(OWN, messages)
    assert client._client.subscribe(OWN) == (0, 1)
    for _ in range(2):
        client.connect(**FAST)
        assert OWN in client._connection.core._engine.raw_subscriptions.topics(())
        deliver(platform_thread, OWN, {"x": 1})
        client.disconnect()
    assert [arguments[2].topic for arguments in messages.wait(2)] == [OWN] * 2
    client.connect(**FAST)
    assert client._client.unsubscribe([OWN, "unknown"])[0] == 0
    assert client._connection.core._engine.raw_subscriptions.topics(()) == []
    client.disconnect()


def test_a_function_for_a_filter_is_removed(platform_thread, device):
    calls, rest = Calls(), Calls()
    device._client.on_message = rest
    device._client.message_callback_add("v1/#", calls)
    deliver(platform_thread, "v1/devices/me/attributes", {"x": 1})
    calls.wait(1)
    device._client.message_callback_remove("v1/#")
    device._client.message_callback_remove("v1/#")
    deliver(platform_thread, "v1/devices/me/attributes", {"x": 2})
    assert json.loads(rest.wait(1)[2].payload) == {"x": 2}
    assert len(calls.all) == 1


@pytest.mark.parametrize("topic", [[], "", 5, [("a", 0), 3]])
def test_a_filter_that_is_none_raises(topic):
    client = TBDeviceMqttClient("localhost", 1, "TOKEN")
    with pytest.raises(ValueError, match="topic must be a topic filter"):
        client._client.subscribe(topic)


def test_credentials_are_used_from_the_next_connection_on(platform_thread):
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "WRONG")
    client._client.username_pw_set("TOKEN")
    client.connect(**FAST)
    assert client.is_connected()
    assert client._client.disconnect() == 0
    assert not client.is_connected()


def test_what_cannot_work_says_what_to_do():
    paho = TBDeviceMqttClient("localhost", 1, "TOKEN")._client
    with pytest.raises(NotImplementedError, match=r"1883, or 8883 with TLS.*proxy_set"):
        paho.ws_set_options(path="/mqtt")
    with pytest.raises(NotImplementedError, match="inactive when its connection ends"):
        paho.will_set("topic", "payload")
    with pytest.raises(AttributeError, match="get\\(\\) and is_published\\(\\)"):
        paho.on_publish = print
    with pytest.raises(AttributeError, match="use the methods of the client itself"):
        paho.loop_forever()
    assert not hasattr(paho, "socket")


def test_options_of_the_client_are_set_through_paho():
    client = TBDeviceMqttClient("localhost", 1, "TOKEN")
    paho = client._client
    paho.max_inflight_messages_set(5)
    assert paho.max_queued_messages_set(7) is paho
    paho.reconnect_delay_set(2, 9)
    options = client._options(60)
    assert (options["max_inflight_messages"], options["max_queued_messages"]) == (5, 7)
    assert (options["reconnect_delay_min"], options["reconnect_delay_max"]) == (2, 9)
    assert paho.user_data_get() is None
