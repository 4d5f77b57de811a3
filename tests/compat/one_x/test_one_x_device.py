"""``TBDeviceMqttClient`` against the emulator: the behaviour of SDK 1.x, and where this package is better on purpose."""

import logging
import socket
import struct
import threading

import pytest
from one_x_platform import FAST, SECONDS, Calls

import tb_device_mqtt
from network_peers import free_ports
from tb_device_mqtt import (
    RateLimit,
    TBDeviceMqttClient,
    TBFirmwareState,
    TBPublishInfo,
    TBQoSException,
    TBTimeoutException,
)
from tb_gateway_mqtt import TBGatewayMqttClient
from tb_mqtt_client.emulator import OtaPackage, RateLimits, SessionLimits, Verdict

# Sends and their results.


@pytest.mark.parametrize(
    ("telemetry", "expected"),
    [
        ({"a": 1}, [("a", 1)]),
        ({"ts": 1000, "values": {"a": 1, "b": 2.5}}, [("a", 1), ("b", 2.5)]),
        ([{"a": 1}, {"ts": 1000, "values": {"b": "x"}}], [("a", 1), ("b", "x")]),
        ({"a": (1, 2), 3: True}, [("a", [1, 2]), ("3", True)]),
    ],
)
def test_telemetry_is_delivered_when_get_returns_0(platform_thread, device, telemetry, expected):
    info = device.send_telemetry(telemetry)
    assert info.get() == TBPublishInfo.TB_ERR_SUCCESS
    assert info.rc() == 0
    assert len(info.mid()) == 1
    assert sorted(platform_thread.values()) == sorted(expected)


@pytest.mark.parametrize("empty", [None, {}, [], [1, 2]])
def test_empty_telemetry_is_a_success_that_sends_nothing(platform_thread, device, empty):
    info = device.send_telemetry(empty)
    assert (info.rc(), info.get(), info.mid()) == (0, 0, [])
    assert platform_thread.stored() == []


def test_attributes_are_delivered(platform_thread, device):
    assert device.send_attributes({"a": 1}).get() == 0
    assert device.send_attributes([{"b": 2}, {"c": {"d": [None]}}], 1, 5).get() == 0
    assert platform_thread.emulator.device("device").attributes == {"a": 1, "b": 2, "c": {"d": [None]}}


def test_the_third_argument_may_be_that_of_older_versions(platform_thread, device):
    assert device.send_telemetry({"a": 1}, 1, True).get() == 0
    assert device.send_telemetry({"b": 1}, quality_of_service=0, timeout=1).get() == 0


def test_get_is_not_0_after_a_refusal(platform_thread, device):
    platform_thread.emulator.on_publish = lambda _: Verdict.refuse(0x99)
    info = device.send_telemetry({"a": 1})
    assert info.get() == TBPublishInfo.TB_ERR_INVAL
    assert info.rc() == TBPublishInfo.TB_ERR_INVAL


def test_get_is_not_0_without_an_acknowledgement_and_0_when_it_comes(platform_thread, device, monkeypatch):
    verdicts = [Verdict.ignore()]
    platform_thread.emulator.on_publish = lambda _: verdicts.pop() if verdicts else None
    device._connection.get_timeout = 0.05
    info = device.send_telemetry({"a": 1})
    assert info.get() == TBPublishInfo.TB_ERR_AGAIN
    assert info.rc() == 0
    # The next wait would take forever, but nothing was acknowledged since the first one.
    device._connection.get_timeout = None
    assert info.get() == TBPublishInfo.TB_ERR_AGAIN
    platform_thread.run(platform_thread.emulator.disconnect_device("TOKEN"))
    assert device.send_telemetry({"b": 1}).message_info[0].wait_for_publish(SECONDS) is None
    assert info.get() == TBPublishInfo.TB_ERR_SUCCESS


def test_data_that_is_lost_with_its_connection_is_sent_again(platform_thread, device):
    verdicts = [Verdict.cut()]
    platform_thread.emulator.on_publish = lambda _: verdicts.pop() if verdicts else None
    assert device.send_telemetry({"a": 1}).get() == 0
    assert platform_thread.values() == [("a", 1)]


@pytest.mark.parametrize("value", [{1}, b"bytes", object()])
def test_a_type_that_sdk_1_refused_raises(device, value):
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        device.send_telemetry({"a": value})
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        device.send_attributes({"a": value})


def test_a_datapoint_that_the_platform_would_lose_is_reported(platform_thread, device, caplog):
    info = device.send_telemetry({"": 1, "good": 2})
    assert info.get() == TBPublishInfo.TB_ERR_INVAL
    assert platform_thread.values() == [("good", 2)]
    assert "blank" in caplog.text


@pytest.mark.parametrize("qos", [2, -1, "1"])
def test_a_wrong_qos_raises(device, qos):
    for send in (device.send_telemetry, device.send_attributes):
        with pytest.raises(TBQoSException):
            send({"a": 1}, qos)
    with pytest.raises(TBQoSException):
        TBDeviceMqttClient("host", quality_of_service=qos)
    assert device.send_rpc_reply("1", {}, qos) is None


def test_sends_of_several_threads_are_all_delivered(platform_thread, device):
    results = []

    def send(thread):
        results.extend(device.send_telemetry({"ts": number, "values": {f"t{thread}": number}}) for number in range(1, 51))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {info.get() for info in results} == {0}
    assert len(platform_thread.stored()) == 200


def test_a_callback_may_send_and_wait_for_the_result(platform_thread, device):
    codes = Calls()
    device.subscribe_to_all_attributes(lambda content, _: codes(device.send_telemetry(content).get()))
    platform_thread.run(platform_thread.emulator.set_shared_attributes("device", {"limit": 8}))
    assert codes.wait(1) == (0,)


def test_before_connect_nothing_is_sent_and_the_result_says_so(platform_thread, caplog):
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "TOKEN")
    assert client.send_telemetry({"a": 1}).get() == TBPublishInfo.TB_ERR_NO_CONN
    assert client.claim("secret").rc() == TBPublishInfo.TB_ERR_NO_CONN
    assert client.request_attributes(callback=print).rc() == TBPublishInfo.TB_ERR_NO_CONN
    assert "connect() was not called" in caplog.text
    assert client.disconnect() == 0


def test_disconnect_sends_queued_data_first(platform_thread):
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "TOKEN")
    client.connect()
    for number in range(1, 101):
        client.send_telemetry({"ts": number, "values": {"a": number}})
    client.disconnect()
    assert len(platform_thread.stored()) == 100
    assert not client.is_connected()
    assert client.send_telemetry({"a": 1}).get() == TBPublishInfo.TB_ERR_NO_CONN
    client.connect()
    assert client.send_telemetry({"a": 1}).get() == 0
    client.disconnect()


# The result's own interface.


class PahoInfo:
    def __init__(self, rc, mid):
        self.rc, self.mid, self.waits = rc, mid, []

    def wait_for_publish(self, timeout=None):
        self.waits.append(timeout)


def test_a_result_accepts_messages_of_paho():
    messages = [PahoInfo(0, 3), PahoInfo(4, 5), PahoInfo(7, 6)]
    info = TBPublishInfo(messages)
    assert (info.rc(), info.mid(), info.get()) == (4, [3, 5, 6], 4)
    assert messages[0].waits == [5]
    assert (TBPublishInfo(messages[0]).mid(), TBPublishInfo([]).rc(), TBPublishInfo([]).get()) == (3, 0, 0)
    assert TBPublishInfo.ERRORS_DESCRIPTION[TBPublishInfo.TB_ERR_PAYLOAD_SIZE] == "Payload size is too large."


def test_a_message_is_like_that_of_paho(device):
    [message] = device.send_telemetry({"a": 1}).message_info
    message.wait_for_publish()
    assert (message.is_published(), message.rc) == (True, 0)
    assert message.mid > 0


# The connection.


@pytest.mark.parametrize(
    ("kind", "token", "name"), [(TBDeviceMqttClient, "TOKEN", "device"), (TBGatewayMqttClient, "GATEWAY", "gateway")]
)
def test_the_credentials_of_the_program_win_over_the_environment(platform_thread, monkeypatch, kind, token, name):
    """Other clients of the process may be configured by the environment."""
    platform_thread.emulator.add_device("OTHER", "other")
    for variable, value in {"ACCESS_TOKEN": "OTHER", "PASSWORD": "word", "CLIENT_ID": "id", "CA_CERT": "none.pem"}.items():
        for prefix in ("TB_", "TB_GW_"):
            monkeypatch.setenv(f"{prefix}{variable}", value)
    client = kind(platform_thread.host, platform_thread.port, token)
    client.connect(**FAST)
    try:
        assert client.send_telemetry({"a": 1}).get() == 0
    finally:
        client.disconnect()
    assert platform_thread.values(name) == [("a", 1)]


def test_connect_raises_if_the_server_is_not_reachable():
    [port] = free_ports(1)
    client = TBDeviceMqttClient("127.0.0.1", port, "TOKEN")
    with pytest.raises(ConnectionRefusedError):
        client.connect()
    assert not client.is_connected()
    client.disconnect()
    with pytest.raises(socket.gaierror):
        TBDeviceMqttClient("name.invalid", 1883, "TOKEN").connect()


def test_a_refusal_goes_to_the_callback_and_the_client_continues(platform_thread):
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "WRONG")
    calls = Calls()
    client.connect(callback=calls, **FAST)
    first, second = calls.wait(2)
    _, _, flags, reason = first
    assert (reason == 0, reason.value, reason.getName()) == (False, 0x86, "Bad User Name or Password")
    assert second[3] == 0x86
    assert not flags.session_present
    assert not client.is_connected()
    client.disconnect()


def test_the_callback_is_called_at_each_connection(platform_thread):
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "TOKEN")
    calls = Calls()
    client.connect(calls, **FAST)
    client_argument, userdata, _, reason = calls.wait(1)
    assert client_argument is client._client
    assert userdata is None
    assert reason == 0
    assert client.is_connected()
    platform_thread.run(platform_thread.emulator.disconnect_device("TOKEN"))
    calls.wait(2)
    client.disconnect()


def test_the_callback_gets_the_client_if_it_has_a_parameter_for_it(platform_thread):
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "TOKEN")
    calls = Calls()

    def on_connect(client, userdata, flags, rc, properties, *extra, tb_client=None):
        calls(tb_client, rc, properties, extra)

    client.connect(on_connect)
    assert calls.wait(1) == (client, 0, None, ())
    client.disconnect()


def test_connect_of_a_connected_client_changes_nothing(platform_thread, device):
    device.connect()
    device.connect()
    assert device.send_telemetry({"a": 1}).get() == 0
    assert platform_thread.emulator.counters.connections == 1


def test_functions_of_paho_may_be_replaced(platform_thread):
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "TOKEN")
    connected, disconnected = Calls(), Calls()
    client._client._on_connect = lambda *arguments: (client._on_connect(*arguments), connected(*arguments))
    client._client._on_disconnect = lambda *arguments: (client._on_disconnect(*arguments), disconnected(*arguments))
    client.connect(**FAST)
    assert connected.wait(1)[3] == 0
    assert client._client.is_connected()
    assert client._client._thread.is_alive()
    platform_thread.run(platform_thread.emulator.disconnect_device("TOKEN", 0x8B))
    _, _, flags, reason, properties = disconnected.wait(1)
    assert (flags.is_disconnect_packet_from_server, reason.value, properties) == (True, 0x8B, None)
    connected.wait(2)
    client.disconnect()
    assert disconnected.wait(2)[1][3] == 0
    assert not client._client.is_connected()
    assert client._client._thread is None


def test_stop_lets_get_wait_no_longer(platform_thread, device):
    platform_thread.emulator.on_publish = lambda _: Verdict.ignore()
    info = device.send_telemetry({"a": 1})
    device.stop()
    assert device.stopped
    assert info.get() == TBPublishInfo.TB_ERR_AGAIN
    platform_thread.emulator.on_publish = None
    platform_thread.run(platform_thread.emulator.disconnect_device("TOKEN"))


# Attributes, RPC, claiming.


def test_attributes_are_requested(platform_thread, device):
    platform_thread.emulator.device("device").shared_attributes.update({"limit": 7})
    device.send_attributes({"serial": "x"}).get()
    calls = Calls()
    assert device.request_attributes(["serial"], ["limit", "missing"], callback=calls).get() == 0
    assert calls.wait(1) == ({"client": {"serial": "x"}, "shared": {"limit": 7}}, None)
    device.request_attributes(shared_keys=["limit"], callback=(calls, "extra"))
    assert calls.wait(2)[1] == ({"shared": {"limit": 7}}, None, "extra")
    device.request_attributes(callback=calls)
    assert calls.wait(3)[2] == ({"client": {"serial": "x"}, "shared": {"limit": 7}}, None)


def test_a_request_without_a_response_ends_with_an_error(platform_thread, device, monkeypatch):
    monkeypatch.setattr("tb_mqtt_client.one_x.core.REQUEST_TIMEOUT", 0.05)
    platform_thread.emulator.on_publish = lambda _: Verdict.refuse(0x83)
    calls = Calls()
    info = device.request_attributes(["a"], callback=(calls, "extra"))
    content, error, extra = calls.wait(1)
    assert (content, type(error), extra) == (None, TBTimeoutException, "extra")
    assert info.get() != 0


def test_attribute_updates_go_to_their_callbacks(platform_thread, device):
    everything, limit, other = Calls(), Calls(), Calls()
    limit_id = device.subscribe_to_attribute("limit", limit)
    device.subscribe_to_attribute("other", other)
    assert isinstance(device.subscribe_to_all_attributes(everything), int)
    set_shared = platform_thread.emulator.set_shared_attributes
    platform_thread.run(set_shared("device", {"limit": 1, "x": 2}))
    assert everything.wait(1) == limit.wait(1) == ({"limit": 1, "x": 2}, None)
    device.unsubscribe_from_attribute(limit_id)
    platform_thread.run(set_shared("device", {"limit": 2}))
    everything.wait(2)
    device.unsubscribe_from_attribute("*")
    platform_thread.run(set_shared("device", {"limit": 3}))
    device.send_telemetry({"a": 1}).get()
    assert (len(everything.all), len(limit.all), other.all) == (2, 1, [])


def test_subscriptions_survive_a_reconnect_and_are_not_doubled(platform_thread):
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "TOKEN")
    kept, again, connected = Calls(), Calls(), Calls()
    client.subscribe_to_attribute("limit", kept)

    def on_connect(*arguments):
        client.subscribe_to_all_attributes(lambda content, _: again(content))
        connected(*arguments)

    client.connect(on_connect, **FAST)
    connected.wait(1)
    platform_thread.run(platform_thread.emulator.disconnect_device("TOKEN"))
    connected.wait(2)
    client.send_telemetry({"a": 1}).get()
    platform_thread.run(platform_thread.emulator.set_shared_attributes("device", {"limit": 1}))
    assert kept.wait(1) == ({"limit": 1}, None)
    platform_thread.run(platform_thread.emulator.set_shared_attributes("device", {"limit": 2}))
    kept.wait(2)
    assert again.all == [({"limit": 1},), ({"limit": 2},)]
    client.disconnect()


@pytest.mark.parametrize(
    ("reply", "expected"), [({"a": 1}, {"a": 1}), ('{"a": [1]}', {"a": [1]}), (7, 7), ("text", "text"), ((1, 2), [1, 2])]
)
def test_a_server_side_rpc_gets_its_response(platform_thread, device, reply, expected):
    requests = Calls()

    def handler(request_id, content):
        requests(request_id, content)
        device.send_rpc_reply(request_id, reply, wait_for_publish=True)

    device.set_server_side_rpc_request_handler(handler)
    assert platform_thread.run(platform_thread.emulator.call_rpc("device", "get", {"x": 1})) == expected
    request_id, content = requests.wait(1)
    assert (type(request_id), content) == (str, {"method": "get", "params": {"x": 1}})


def test_a_response_may_be_sent_later_by_another_thread(platform_thread, device):
    requests = Calls()
    device.set_server_side_rpc_request_handler(requests)

    def respond():
        request_id, _ = requests.wait(1)
        device.send_rpc_reply(request_id, {"late": True})

    thread = threading.Thread(target=respond)
    thread.start()
    assert platform_thread.run(platform_thread.emulator.call_rpc("device", "get")) == {"late": True}
    thread.join()
    assert len(platform_thread.emulator.rpc_responses("device")) == 1


def test_client_side_rpc_calls_the_callback_with_the_response(platform_thread, device):
    platform_thread.emulator.on_client_rpc = lambda _device, method, params: {"method": method, "params": params}
    calls = Calls()
    device.send_rpc_call("time", {"zone": "UTC"}, calls)
    device.send_rpc_call("date", None, calls)
    first, second = calls.wait(2)
    assert first == (1, {"method": "time", "params": {"zone": "UTC"}}, None)
    assert second[0] == 2


def test_a_device_is_claimed_for_milliseconds(platform_thread, device):
    published = Calls()
    platform_thread.emulator.on_publish = published
    assert device.claim("secret", 1500).get() == 0
    [publish] = published.wait(1)
    assert (publish.topic, publish.json()) == ("v1/devices/me/claim", {"secretKey": "secret", "durationMs": 1500})


def test_an_exception_of_a_callback_does_not_end_the_thread(platform_thread, device, caplog):
    calls = Calls()

    def callback(content, _):
        calls(content)
        raise RuntimeError("a defect")

    device.subscribe_to_all_attributes(callback)
    platform_thread.run(platform_thread.emulator.set_shared_attributes("device", {"limit": 1}))
    platform_thread.run(platform_thread.emulator.set_shared_attributes("device", {"limit": 2}))
    calls.wait(2)


# Provisioning, firmware, limits, settings.


def test_provisioning_returns_the_response_of_the_platform(platform_thread):
    provision = TBDeviceMqttClient.provision
    response = provision(platform_thread.host, "KEY", "SECRET", platform_thread.port, "new", access_token="NEW TOKEN")
    assert response == {"status": "SUCCESS", "credentialsType": "ACCESS_TOKEN", "credentialsValue": "NEW TOKEN"}
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, response["credentialsValue"])
    client.connect()
    assert client.send_telemetry({"a": 1}).get() == 0
    client.disconnect()
    assert platform_thread.values("new") == [("a", 1)]
    refused = provision(platform_thread.host, "KEY", "OTHER", platform_thread.port)
    assert refused["status"] == "NOT_FOUND"
    basic = provision(
        platform_thread.host, "KEY", "SECRET", platform_thread.port, "basic", username="u", password="p", client_id="c"
    )
    assert basic["credentialsValue"] == {"clientId": "c", "userName": "u", "password": "p"}


def test_firmware_goes_to_the_callback(platform_thread, device):
    image = bytes(range(256)) * 20
    platform_thread.run(platform_thread.emulator.assign_package("device", OtaPackage("app", "2", image)))
    calls = Calls()
    device.set_on_firmware_received_callback(calls)
    device.get_firmware_update()
    client, data, version = calls.wait(1)
    assert (client, data, version) == (device, image, "2")
    assert (device.firmware_data, device.firmware_received) == (image, True)
    device.update_firmware_info("app", "2", TBFirmwareState.UPDATED)
    assert device.send_telemetry({"done": 1}).get() == 0
    assert device.current_firmware_info["current_fw_version"] == "2"


def test_firmware_is_written_to_a_file_when_it_is_assigned(platform_thread, device, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    platform_thread.run(platform_thread.emulator.assign_package("device", OtaPackage("../app.bin", "2", b"image")))
    states = Calls()
    platform_thread.emulator.on_publish = lambda publish: states() if b'"UPDATED"' in publish.payload else None
    states.wait(1)
    assert (tmp_path / "app.bin").read_bytes() == b"image"


@pytest.mark.parametrize(
    "platform_thread",
    [{"limits": SessionLimits(rate_limits=RateLimits(messages="200:1,6000:60", telemetry_messages="100:1"))}],
    indirect=True,
)
def test_announced_limits_are_shown(platform_thread):
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "TOKEN")
    configured = Calls()
    on_configuration = client.service_configuration_callback
    client.service_configuration_callback = lambda *arguments: (configured(*arguments), on_configuration(*arguments))
    client.connect()
    assert configured.wait(1)[1]["rateLimits"]["messages"] == "200:1,6000:60"
    assert client.max_payload_size == 52428
    assert set(client._messages_rate_limit.__dict__["rateLimits"]) == {"1", "60"}
    assert client._telemetry_rate_limit.__dict__["rateLimits"]["1"]["capacity"] == 80
    assert client.rate_limits_received
    client.disconnect()


@pytest.mark.parametrize(
    "arguments",
    [
        {"messages_rate_limit": "10:1", "telemetry_rate_limit": "20:1", "telemetry_dp_rate_limit": "30:1;40:2"},
        {"rate_limit": "20:1", "dp_rate_limit": "30:1,40:2"},
    ],
)
def test_limits_of_the_program_are_those_of_the_client(arguments):
    client = TBDeviceMqttClient("host", **arguments)
    options = client._options(120)
    messages = "8:1" if "messages_rate_limit" in arguments else "16:1"
    assert options["rate_limits"] == {"messages": messages, "telemetry_messages": "16:1", "telemetry_datapoints": "24:1,32:2"}
    assert client._telemetry_dp_rate_limit.get_minimal_limit() == 24
    assert "rate_limits" not in TBDeviceMqttClient("thingsboard.cloud")._options(120)


def test_options_of_the_connection(caplog):
    client = TBDeviceMqttClient("host", 1884, "user", "password", 0, "id")
    client.max_inflight_messages_set(50)
    client.max_inflight_messages_set(-1)
    client.max_queued_messages_set(500)
    with pytest.raises(ValueError, match="negative"):
        client.max_queued_messages_set(-1)
    client.reconnect_delay_set(2, 60)
    options = client._options(30)
    assert options["max_inflight_messages"] == 50
    assert options["max_queued_messages"] == 500
    assert (options["reconnect_delay_min"], options["reconnect_delay_max"]) == (2, 60)
    assert (options["host"], options["port"], options["username"], options["password"]) == ("host", 1884, "user", "password")
    assert (options["client_id"], options["qos"], options["keepalive"]) == ("id", 0, 30)
    assert "negative" in caplog.text


def test_proxies_and_tls_are_options_of_the_connection():
    client = TBDeviceMqttClient("host", 8883, "TOKEN")
    client._client.proxy_set(proxy_type=3, proxy_addr="proxy", proxy_port=3128)
    assert client._options(1)["proxy"] == "http://proxy:3128"
    client._client.proxy_set(proxy_type=2, proxy_addr="proxy", proxy_username="u@x", proxy_password="p")
    assert client._options(1)["proxy"] == "socks5://u%40x:p@proxy:1080"
    with pytest.raises(ValueError, match="proxy_type"):
        client._client.proxy_set(proxy_type=9, proxy_addr="proxy")
    with pytest.raises(ValueError, match="tls_set"):
        client._client.tls_insecure_set(True)
    client._client.tls_set()
    context = client._options(1)["ssl_context"]
    assert context.check_hostname
    client._client.tls_insecure_set(True)
    assert not context.check_hostname
    other = TBDeviceMqttClient("host")
    other._client._ssl_context = client._client._ssl_context
    assert other._options(1)["ssl_context"] is context
    other._client._ssl = False
    assert "ssl_context" not in other._options(1)
    with pytest.raises(FileNotFoundError):
        client._client.tls_set(ca_certs="missing.pem")


def test_the_logger_and_the_timeout_may_be_assigned(caplog):
    tb_device_mqtt.log = logging.getLogger("my gateway")
    TBDeviceMqttClient("host").send_telemetry({"a": 1})
    assert [record.name for record in caplog.records] == ["my gateway"]
    assert RateLimit("").get_minimal_timeout() == 5
    tb_device_mqtt.DEFAULT_TIMEOUT = 3
    assert RateLimit("").get_minimal_timeout() == tb_device_mqtt.DEFAULT_TIMEOUT == 3
    tb_device_mqtt.DEFAULT_TIMEOUT = 5


def test_data_that_is_acknowledged_before_a_reset_is_not_sent_again(platform_thread, device):
    """The client writes before it has read the acknowledgement, and that write fails."""
    arrived, processed = threading.Event(), threading.Event()

    def hold(publish):
        if b'"once"' in publish.payload:
            arrived.set()
            processed.wait(SECONDS)

    async def reset():
        session = platform_thread.emulator.device("device").session
        no_linger = struct.pack("ii", 1, 0)
        session._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        session.abort()

    async def write_after_the_reset():
        processed.set()
        platform_thread.run(reset())
        device._connection.core._engine.mqtt_manager._client._connection._protocol.send_ping_request()

    platform_thread.emulator.on_publish = hold
    info = device.send_telemetry({"ts": 1, "values": {"once": 1}})
    assert arrived.wait(SECONDS)
    device._connection.run(write_after_the_reset)
    assert info.get() == 0
    assert device.send_telemetry({"ts": 2, "values": {"again": 2}}).get() == 0
    assert platform_thread.stored() == [(1, "once", 1), (2, "again", 2)]
