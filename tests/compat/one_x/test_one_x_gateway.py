"""``TBGatewayMqttClient`` against the emulator: the behaviour of SDK 1.x, and where this package is better on purpose."""

import inspect
import threading

import pytest
from one_x_platform import FAST, Calls

from tb_device_mqtt import RateLimit, TBPublishInfo, TBTimeoutException
from tb_gateway_mqtt import (
    GATEWAY_ATTRIBUTES_RESPONSE_TOPIC,
    GATEWAY_ATTRIBUTES_TOPIC,
    TBDeviceMqttClient,
    TBGatewayMqttClient,
)
from tb_mqtt_client.emulator import RateLimits, SessionLimits, Verdict


def published(platform_thread, topic):
    """Keep the payloads that are published to a topic from now on."""
    calls = Calls()
    platform_thread.emulator.on_publish = lambda publish: calls(publish.json()) if publish.topic == topic else None
    return calls


def application_client(platform_thread):
    """Return a client as the IoT Gateway makes it: with its own object as the fifth argument."""
    return TBGatewayMqttClient(platform_thread.host, platform_thread.port, "GATEWAY", None, object(), quality_of_service=1)


def test_devices_are_connected_with_their_profile(platform_thread, gateway):
    assert gateway.gw_connect_device("meter", "energy").get() == 0
    assert gateway.gw_connect_device("lamp").get() == 0
    profiles = {name: platform_thread.emulator.device(name).profile for name in ("meter", "lamp")}
    assert profiles == {"meter": "energy", "lamp": "default"}
    assert gateway.gw_disconnect_device("meter").get() == 0
    assert gateway.gw_disconnect_device("unknown").get() == 0


@pytest.mark.parametrize("name", ["", " ", "a\0b", "x" * 256, "\ud800"])
def test_a_device_that_the_platform_can_never_have(gateway, caplog, name):
    """Nothing is raised, because the IoT Gateway would skip the rest of its pack."""
    for send in (gateway.gw_connect_device, lambda name: gateway.gw_send_telemetry(name, {"a": 1})):
        caplog.clear()
        assert send(name).get() == TBPublishInfo.TB_ERR_INVAL
        assert "Device name must" in caplog.text
    assert gateway.gw_send_telemetry("meter", {"a": 1}).get() == 0


def test_data_of_devices_is_delivered_also_of_unknown_ones(platform_thread, gateway):
    gateway.gw_connect_device("meter", "energy")
    infos = [
        gateway.gw_send_telemetry("meter", {"ts": 1, "values": {"kwh": 5}}),
        gateway.gw_send_telemetry("meter", [{"ts": 2, "values": {"kwh": (6,)}}, {"ts": 3, "values": {"kwh": 7}}], 1),
        gateway.gw_send_telemetry("unknown", [{"ts": 4, "values": {"a": 1}}]),
        gateway.gw_send_attributes("meter", {"serial": "x"}, quality_of_service=0),
        gateway.send_telemetry({"ts": 5, "values": {"own": 1}}),
        gateway.send_attributes({"own": 2}),
    ]
    assert [info.get() for info in infos] == [0] * 6
    assert platform_thread.stored("meter") == [(1, "kwh", 5), (2, "kwh", [6]), (3, "kwh", 7)]
    assert platform_thread.stored("unknown") == [(4, "a", 1)]
    assert platform_thread.stored("gateway") == [(5, "own", 1)]
    assert platform_thread.emulator.device("meter").attributes == {"serial": "x"}


def test_metadata_of_records_reaches_the_platform(platform_thread, gateway):
    gateway.gw_connect_device("meter").get()
    payloads = published(platform_thread, "v1/gateway/telemetry")
    metadata = {"connector": "opc", "receivedTs": 1, "publishedTs": 2}
    assert gateway.gw_send_telemetry("meter", [{"ts": 1, "values": {"a": 1}, "metadata": metadata}]).get() == 0
    [payload] = payloads.wait(1)
    [record] = payload["meter"]
    assert (record["metadata"]["connector"], record["metadata"]["receivedTs"]) == ("opc", 1)
    assert record["values"] == {"a": 1}


@pytest.mark.parametrize("data", [None, {}, [], [{}]])
def test_empty_data_is_a_success_that_sends_nothing(platform_thread, gateway, data):
    assert gateway.gw_send_telemetry("meter", data).get() == 0


def test_a_type_that_sdk_1_refused_raises_only_outside_of_the_application(platform_thread, gateway):
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        gateway.gw_send_telemetry("meter", {"a": {1}})
    assert gateway.gw_send_telemetry("", {"a": 1}).get() == TBPublishInfo.TB_ERR_INVAL
    gateway.disconnect()
    application = application_client(platform_thread)
    application.connect()
    assert application.gw_send_telemetry("meter", {"a": {1}}).get() == 0
    assert application.gw_send_attributes("meter", {"a": b"x"}).get() == 0
    application.disconnect()


def test_data_that_the_platform_never_takes_is_done_only_for_the_application(platform_thread, gateway, caplog):
    platform_thread.emulator.on_publish = lambda publish: Verdict.refuse(0x99) if b'"bad"' in publish.payload else None
    assert gateway.gw_send_telemetry("meter", {"bad": 1}).get() == TBPublishInfo.TB_ERR_INVAL
    gateway.disconnect()
    application = application_client(platform_thread)
    application.connect()
    assert application.gw_send_telemetry("meter", {"bad": 1}).get() == 0
    assert application.gw_send_telemetry("meter", {"": 1}).get() == 0
    assert "never takes data of meter" in caplog.text
    application.disconnect()


def test_devices_are_announced_again_after_a_reconnect(platform_thread):
    gateway = TBGatewayMqttClient(platform_thread.host, platform_thread.port, "GATEWAY")
    connected = Calls()
    gateway.connect(connected, **FAST)
    gateway.gw_connect_device("meter", "energy").get()
    updates = Calls()
    gateway.gw_subscribe_to_all_attributes(updates)
    announced = published(platform_thread, "v1/gateway/connect")
    platform_thread.run(platform_thread.emulator.disconnect_device("GATEWAY"))
    assert announced.wait(1) == ({"device": "meter", "type": "energy"},)
    assert gateway.gw_send_telemetry("meter", {"a": 1}).get() == 0
    platform_thread.run(platform_thread.emulator.set_shared_attributes("meter", {"limit": 1}))
    assert updates.wait(1) == ({"device": "meter", "data": {"limit": 1}},)
    gateway.disconnect()


def test_attribute_updates_go_to_their_callbacks_in_order(platform_thread, gateway):
    order = Calls()
    for device in ("meter", "lamp"):
        gateway.gw_connect_device(device).get()
    ids = [
        gateway.gw_subscribe_to_attribute("meter", "limit", lambda content: order("key", content)),
        gateway.gw_subscribe_to_all_device_attributes("meter", lambda content: order("device", content)),
        gateway.gw_subscribe_to_all_attributes(lambda content: order("all", content)),
    ]
    assert all(type(one) is int for one in ids)
    set_shared = platform_thread.emulator.set_shared_attributes
    platform_thread.run(set_shared("meter", {"limit": 1}))
    content = {"device": "meter", "data": {"limit": 1}}
    assert order.wait(3) == [("all", content), ("device", content), ("key", content)]
    platform_thread.run(set_shared("lamp", {"limit": 2}))
    assert order.wait(4)[3] == ("all", {"device": "lamp", "data": {"limit": 2}})
    gateway.gw_unsubscribe(ids[2])
    platform_thread.run(set_shared("meter", {"other": 3}))
    assert order.wait(5)[4][0] == "device"
    gateway.gw_unsubscribe("*")
    platform_thread.run(set_shared("meter", {"limit": 4}))
    gateway.gw_send_telemetry("meter", {"a": 1}).get()
    assert len(order.all) == 5


def test_a_later_callback_for_the_same_attribute_replaces_the_earlier_one(platform_thread, gateway):
    gateway.gw_connect_device("meter").get()
    first, second = Calls(), Calls()
    gateway.gw_subscribe_to_all_attributes(first)
    gateway.gw_subscribe_to_all_attributes(second)
    platform_thread.run(platform_thread.emulator.set_shared_attributes("meter", {"limit": 1}))
    second.wait(1)
    assert first.all == []


def test_attributes_of_devices_are_requested(platform_thread, gateway):
    gateway.gw_connect_device("meter").get()
    gateway.gw_send_attributes("meter", {"serial": "x"}).get()
    platform_thread.emulator.device("meter").shared_attributes.update({"limit": 7, "mode": "auto"})
    calls = Calls()
    assert gateway.gw_request_shared_attributes("meter", ["limit"], calls).get() == 0
    content, error = calls.wait(1)
    assert (content["device"], content["value"], error) == ("meter", 7, None)
    gateway.gw_request_shared_attributes("meter", ["limit", "mode"], (calls, "extra"))
    content, error, extra = calls.wait(2)[1]
    assert (content["values"], error, extra) == ({"limit": 7, "mode": "auto"}, None, "extra")
    gateway.gw_request_client_attributes("meter", ["serial"], calls)
    assert calls.wait(3)[2][0]["value"] == "x"
    gateway.gw_request_client_attributes("meter", ["missing"], calls)
    content, _ = calls.wait(4)[3]
    assert (content["device"], sorted(content)) == ("meter", ["device", "id"])


def test_a_request_without_keys_is_not_sent(platform_thread, gateway, caplog):
    info = gateway.gw_request_shared_attributes("meter", [], Calls())
    assert info.get() == TBPublishInfo.TB_ERR_INVAL
    assert "at least one key" in caplog.text


def test_a_request_without_a_response_ends_with_an_error(platform_thread, gateway, monkeypatch):
    gateway.gw_connect_device("meter").get()
    monkeypatch.setattr("tb_mqtt_client.one_x.core.REQUEST_TIMEOUT", 0.05)
    topic = "v1/gateway/attributes/request"
    platform_thread.emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic == topic else None
    calls = Calls()
    gateway.gw_request_shared_attributes("meter", ["limit"], calls)
    content, error = calls.wait(1)
    assert (content, type(error)) == (None, TBTimeoutException)


@pytest.mark.parametrize("reply", [{"a": 1}, "text", '{"a": 1}', 7, (1, 2)])
def test_a_server_side_rpc_gets_its_response(platform_thread, gateway, reply):
    gateway.gw_connect_device("meter").get()
    requests = Calls()

    def handler(client, content):
        requests(client, content)
        client.gw_send_rpc_reply(content["device"], content["data"]["id"], reply)

    gateway.gw_set_server_side_rpc_request_handler(handler)
    expected = list(reply) if isinstance(reply, tuple) else reply
    assert platform_thread.run(platform_thread.emulator.call_rpc("meter", "get", {"x": 1})) == expected
    client, content = requests.wait(1)
    assert client is gateway
    assert (content["device"], content["data"]["method"], content["data"]["params"]) == ("meter", "get", {"x": 1})


def test_rpc_requests_to_the_gateway_itself_and_notices_of_renames_go_to_the_handler(platform_thread, gateway):
    gateway.gw_connect_device("old").get()
    requests = Calls()
    gateway.set_server_side_rpc_request_handler(requests)
    platform_thread.run(platform_thread.emulator.rename_device("old", "new"))
    request_id, content = requests.wait(1)
    assert (type(request_id), content) == (str, {"method": "gateway_device_renamed", "params": {"old": "new"}})
    assert gateway.gw_send_telemetry("new", {"ts": 1, "values": {"a": 1}}).get() == 0
    platform_thread.run(platform_thread.emulator.delete_device("new"))
    assert requests.wait(2)[1][1] == {"method": "gateway_device_deleted", "params": "new"}


def test_notices_of_disconnected_devices_go_to_the_callback(platform_thread, gateway):
    gateway.gw_connect_device("meter").get()
    gateway.device_disconnect_callback = notices = Calls()
    platform_thread.run(platform_thread.emulator.send_disconnect_notice("meter", 128))
    assert notices.wait(1) == (gateway, {"device": "meter", "reason": 128})


def test_devices_are_claimed(platform_thread, gateway):
    payloads = published(platform_thread, "v1/gateway/claim")
    assert gateway.gw_claim("meter", "secret", 1500).get() == 0
    request = {"meter": {"secretKey": "other", "durationMs": 2}, "lamp": {}}
    assert gateway.gw_claim("", "", 0, claiming_request=request).get() == 0
    assert payloads.wait(2) == [({"meter": {"secretKey": "secret", "durationMs": 1500}},), (request,)]


def test_four_threads_send_and_wait_at_once(platform_thread, gateway):
    codes = []

    def send(device):
        infos = [gateway.gw_send_telemetry(device, [{"ts": number, "values": {"a": number}}]) for number in range(1, 101)]
        codes.extend(info.get() for info in infos)

    threads = [threading.Thread(target=send, args=(f"device {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 400
    assert [len(platform_thread.stored(f"device {number}")) for number in range(4)] == [100] * 4


# What the IoT Gateway needs of the client.


def test_the_signature_is_the_one_that_the_application_inspects():
    parameters = inspect.signature(TBGatewayMqttClient.__init__).parameters
    assert "messages_rate_limit" in parameters
    assert not {"rate_limit", "dp_rate_limit"} & set(parameters)
    client = TBGatewayMqttClient("host", 1883, "token", None, None, quality_of_service=1, client_id="")
    assert isinstance(client, TBDeviceMqttClient)
    assert len(inspect.signature(client._on_disconnect).parameters) == 5
    assert str(client)


@pytest.mark.parametrize(
    "platform_thread",
    [{"limits": SessionLimits(gateway_rate_limits=RateLimits(messages="100:1", telemetry_messages="200:1,3000:60"))}],
    indirect=True,
)
def test_limits_of_devices_are_shown_and_may_be_replaced(platform_thread, gateway):
    assert gateway._devices_connected_through_gateway_messages_rate_limit.__dict__["rateLimits"]["1"]["capacity"] == 80
    telemetry = gateway._devices_connected_through_gateway_telemetry_messages_rate_limit
    copy = RateLimit(telemetry.__dict__)
    assert copy.__dict__["rateLimits"].keys() == {"1", "60"}
    gateway._devices_connected_through_gateway_telemetry_messages_rate_limit = copy
    assert not RateLimit({}).__dict__["no_limit"]
    assert gateway._devices_connected_through_gateway_telemetry_datapoints_rate_limit.__dict__["no_limit"]


def test_the_application_finds_the_subscribed_topics(gateway):
    assert {GATEWAY_ATTRIBUTES_TOPIC, GATEWAY_ATTRIBUTES_RESPONSE_TOPIC} <= set(gateway._gw_subscriptions.values())
    assert not gateway.get_subscriptions_in_progress()
    assert gateway.rate_limits_received
    assert gateway.max_payload_size > 50_000
