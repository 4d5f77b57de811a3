"""What the IoT Gateway does with the client and with ``client._client``, in its own order and forms."""

import copy
import importlib.util
import inspect
import logging
import ssl
import threading

import pytest
import trustme
from one_x_platform import FAST, SECONDS, Calls

from network_peers import HttpProxy, SocksProxy, running, serving
from tb_device_mqtt import ProvisionClient, RateLimit, TBDeviceMqttClient, TBPublishInfo
from tb_gateway_mqtt import TBGatewayMqttClient
from tb_mqtt_client.emulator import ConnectVerdict, RateLimits, SendVerdict, SessionLimits
from tb_mqtt_client.entities.data.provisioning_request import ProvisioningRequest
from tb_mqtt_client.one_x import settings

LIMITS = {
    "messages_rate_limit": "10:1",
    "telemetry_rate_limit": "20:1",
    "telemetry_dp_rate_limit": "30:1",
    "device_messages_rate_limit": "40:1",
    "device_telemetry_rate_limit": "50:1",
    "device_telemetry_dp_rate_limit": "60:1",
}
SHOWN = {
    "_messages_rate_limit": 8,
    "_telemetry_rate_limit": 16,
    "_telemetry_dp_rate_limit": 24,
    "_devices_connected_through_gateway_messages_rate_limit": 32,
    "_devices_connected_through_gateway_telemetry_messages_rate_limit": 40,
    "_devices_connected_through_gateway_telemetry_datapoints_rate_limit": 48,
}
"""The attribute of each limit of ``LIMITS``, in the same order, and 80 % of its number."""


def application_client(server, token="GATEWAY"):
    return TBGatewayMqttClient(server.host, server.port, token, None, object(), quality_of_service=1)


@pytest.fixture
def clients():
    """Disconnect the clients that a test puts in, also if it fails."""
    clients = []
    yield clients
    for client in clients:
        client.disconnect()


# Limits that are carried over to a new client.


def test_limits_of_the_constructor_are_shown_and_carried_over_to_the_next_client():
    client = TBGatewayMqttClient("host", 1883, "token", None, None, quality_of_service=1, client_id="", **LIMITS)
    client.max_inflight_messages_set(7)
    client.max_payload_size = 5000
    previous = {name: copy.deepcopy(getattr(client, name).__dict__) for name in SHOWN}
    assert {name: limit["rateLimits"]["1"]["capacity"] for name, limit in previous.items()} == SHOWN
    after = TBGatewayMqttClient("host", 1883, "token")
    assert (after._client._max_inflight_messages, after._client._max_queued_messages) == (100, 0)
    for name, limit in previous.items():
        setattr(after, name, RateLimit(limit))
    after.max_inflight_messages_set(client._client._max_inflight_messages)
    after.max_payload_size = client.max_payload_size
    assert {name: getattr(after, name).get_minimal_limit() for name in SHOWN} == SHOWN
    assert (after._client._max_inflight_messages, after.max_payload_size, after.quality_of_service) == (7, 5000, 1)


@pytest.mark.parametrize(("text", "seconds"), [("10:1", 2), ("10:60,100:5", 6)])
def test_the_minimal_timeout_is_a_second_more_than_the_shortest_window(text, seconds):
    assert RateLimit(text).get_minimal_timeout() == seconds


# The object that stands for paho's client.


def test_the_client_of_paho_takes_the_logger_of_the_application(platform_thread, clients, caplog):
    """The application passes its logger if it logs debug lines. What the client logs goes to its own loggers, once."""
    logger = logging.getLogger("tb_connection")
    caplog.set_level(logging.DEBUG)
    client = application_client(platform_thread)
    clients.append(client)
    assert client._client.enable_logger(logger) is None
    assert client._client.enable_logger() is None
    client.connect(**FAST)
    lines = [record.getMessage() for record in caplog.records if record.name == logger.name]
    assert lines.count(f"Connected to {platform_thread.host}:{platform_thread.port}") == 1
    assert client._client.disable_logger() is None
    assert client.send_telemetry({"ts": 1, "values": {"a": 1}}).get() == 0


def test_the_loop_of_a_client_that_was_replaced_is_stopped(platform_thread, clients):
    """The application makes another client, and stops the loop of the first one in that one's callback for disconnects."""
    platform_thread.emulator.add_gateway("OTHER", "other")
    first, second = application_client(platform_thread), application_client(platform_thread, "OTHER")
    clients += [first, second]
    codes = Calls()

    def on_disconnect(client, *_):
        assert client != second._client
        assert str(client) != ""
        codes(client.loop_stop())

    first._client._on_disconnect = on_disconnect
    assert first._client.loop_start() == 0
    first.connect(**FAST)
    thread = first._client._thread
    assert thread.is_alive()
    second.connect(**FAST)
    first.disconnect()
    assert codes.wait(1) == (0,)
    assert first._client._thread is None
    # The thread serves the second client, too.
    assert second._client._thread is thread
    assert thread.is_alive()
    assert second.send_telemetry({"ts": 1, "values": {"a": 1}}).get() == 0


def test_after_loop_stop_the_application_connects_again(platform_thread, clients):
    """It looks for a thread that is alive, and calls ``connect`` if there is none."""
    client = application_client(platform_thread)
    clients.append(client)
    client.connect(**FAST)
    assert client._client.loop_stop() == 0
    assert client._client._thread is None
    assert client.is_connected()
    client.connect(keepalive=120, min_reconnect_delay=5)
    assert client.send_telemetry({"ts": 1, "values": {"a": 1}}).get() == 0
    assert platform_thread.emulator.counters.connections == 1


@pytest.mark.parametrize(
    ("proxy_type", "kind"),
    [
        (3, HttpProxy),
        pytest.param(
            2,
            SocksProxy,
            marks=pytest.mark.skipif(importlib.util.find_spec("python_socks") is None, reason="the extra proxy is not installed"),
        ),
    ],
    ids=["HTTP", "SOCKS 5"],
)
def test_the_client_of_paho_connects_through_a_proxy(platform_thread, clients, proxy_type, kind):
    proxy = kind("user:secret")
    context = running(proxy)
    platform_thread.run(context.__aenter__())
    try:
        client = application_client(platform_thread)
        credentials = {"proxy_username": "user", "proxy_password": "secret"}
        client._client.proxy_set(proxy_type=proxy_type, proxy_addr="127.0.0.1", proxy_port=proxy.port, **credentials)
        client.connect(**FAST)
        assert client.send_telemetry({"ts": 1, "values": {"a": 1}}).get() == 0
        client.disconnect()
    finally:
        platform_thread.run(context.__aexit__(None, None, None))
    assert proxy.asked == [f"{platform_thread.host}:{platform_thread.port}"]


# TLS.

AUTHORITY, UNKNOWN = trustme.CA(), trustme.CA()


def tls_of_server(authority, name):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


OF_ADDRESS = {"ssl_context": tls_of_server(AUTHORITY, "127.0.0.1")}
OF_OTHER_NAME = {"ssl_context": tls_of_server(AUTHORITY, "tb.example.com")}
OF_UNKNOWN = {"ssl_context": tls_of_server(UNKNOWN, "127.0.0.1")}
TABLE = [
    (OF_ADDRESS, ssl.CERT_REQUIRED, False, True),
    (OF_OTHER_NAME, ssl.CERT_REQUIRED, False, False),
    (OF_OTHER_NAME, ssl.CERT_REQUIRED, True, True),
    (OF_UNKNOWN, ssl.CERT_REQUIRED, True, False),
    # For a client, CERT_OPTIONAL is as CERT_REQUIRED.
    (OF_ADDRESS, ssl.CERT_OPTIONAL, False, True),
    (OF_OTHER_NAME, ssl.CERT_OPTIONAL, False, False),
    (OF_OTHER_NAME, ssl.CERT_OPTIONAL, True, True),
    (OF_UNKNOWN, ssl.CERT_OPTIONAL, True, False),
    (OF_UNKNOWN, ssl.CERT_NONE, False, True),
    (OF_OTHER_NAME, ssl.CERT_NONE, True, True),
]


@pytest.mark.parametrize(("platform_thread", "verification", "insecure", "is_trusted"), TABLE, indirect=["platform_thread"])
def test_how_the_certificate_of_the_server_is_verified(platform_thread, clients, tmp_path, verification, insecure, is_trusted):
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    client = application_client(platform_thread)
    clients.append(client)
    client._client.tls_set(
        ca_certs=str(tmp_path / "ca.pem"),
        certfile=None,
        keyfile=None,
        tls_version=ssl.PROTOCOL_TLSv1_2,
        cert_reqs=verification,
        ciphers=None,
    )
    if insecure:
        client._client.tls_insecure_set(True)
    assert client._client._ssl_context.minimum_version == ssl.TLSVersion.TLSv1_2
    if is_trusted:
        client.connect(**FAST)
        assert client.send_telemetry({"ts": 1, "values": {"a": 1}}).get() == 0
    else:
        with pytest.raises(ssl.SSLError, match="the server's certificate is"):
            client.connect(**FAST)
        assert not client.is_connected()


async def close_at_once(reader, writer):
    await reader.read(100)
    writer.close()


def test_a_server_without_tls_is_an_error_and_the_program_may_go_on_without_it(platform_thread, clients):
    context = serving(close_at_once)
    port = platform_thread.run(context.__aenter__())
    try:
        client = TBGatewayMqttClient("127.0.0.1", port, "GATEWAY")
        client._client.tls_set(cert_reqs=ssl.CERT_NONE)
        with pytest.raises(OSError) as raised:  # noqa: PT011  # the class is what the test is about
            client.connect(**FAST)
    finally:
        platform_thread.run(context.__aexit__(None, None, None))
    assert isinstance(raised.value, ConnectionError | ssl.SSLError)
    client = application_client(platform_thread)
    clients.append(client)
    client._client.tls_set(cert_reqs=ssl.CERT_NONE)
    client._client._ssl = False
    client.connect(**FAST)
    assert client.send_telemetry({"ts": 1, "values": {"a": 1}}).get() == 0


# The connection, as the application sees it.


@pytest.mark.parametrize("platform_thread", [{"limits": None}], indirect=True)
def test_limits_count_as_received_after_each_connection_also_from_a_server_that_announces_none(platform_thread, clients):
    """The application sends nothing until they are."""
    client = TBGatewayMqttClient(platform_thread.host, platform_thread.port, "GATEWAY")
    clients.append(client)
    connected = Calls()
    client.connect(lambda *_: connected(client.rate_limits_received), **FAST)
    assert connected.wait(1) == (True,)
    client.rate_limits_received = False
    platform_thread.run(platform_thread.emulator.disconnect_device("GATEWAY"))
    assert connected.wait(2)[1] == (True,)
    assert client.rate_limits_received


def connect_in_threads(client, number, callback=None):
    """Call ``connect`` in threads, so that a call that does not return cannot block the tests."""
    threads = [threading.Thread(target=client.connect, args=(callback,), kwargs=FAST, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(("code", "name"), [(0x97, "Quota exceeded"), (0x9F, "Connection rate exceeded"), (0x87, "Not authorized")])
def test_the_reason_of_a_refusal_is_the_object_that_the_application_reads(platform_thread, clients, code, name):
    platform_thread.emulator.on_connect = lambda _: ConnectVerdict.refuse(code)
    client = application_client(platform_thread)
    clients.append(client)
    calls = Calls()
    client._client._on_connect = lambda *arguments: (client._on_connect(*arguments), calls(*arguments))
    connect_in_threads(client, 1)
    *_, reason, _ = calls.wait(1)
    assert (reason == 0, reason.value, reason.getName()) == (False, code, name)
    assert not client.is_connected()


def test_connect_is_harmless_while_the_client_is_connecting(platform_thread, clients):
    """The application calls it every 5 s until the client is connected. It returns, although the server is busy for now."""
    platform_thread.emulator.on_connect = lambda _: ConnectVerdict.refuse(0x88)
    client = TBGatewayMqttClient(platform_thread.host, platform_thread.port, "GATEWAY")
    clients.append(client)
    accepted = Calls()
    connect_in_threads(client, 1, lambda _client, _userdata, _flags, reason: accepted() if reason == 0 else None)
    connection = client._connection
    connect_in_threads(client, 4)
    assert client._connection is connection
    assert client.is_connected() is client._TBDeviceMqttClient__is_connected is False
    platform_thread.emulator.on_connect = None
    accepted.wait(1)
    # Programs read this private name, too.
    assert client._TBDeviceMqttClient__is_connected is True
    assert client.send_telemetry({"ts": 1, "values": {"a": 1}}).get() == 0
    assert client.disconnect() == 0
    assert not client.is_connected()


def test_the_signature_of_the_callback_for_disconnects_is_what_the_application_inspects():
    client = TBGatewayMqttClient("host", 1883, "token")
    assert len(inspect.signature(client._on_disconnect).parameters) == 5
    assert client._client == client._client
    assert client._client != TBGatewayMqttClient("host", 1883, "token")._client
    assert "host:1883" in str(client._client)


# Provisioning.


def test_a_gateway_is_provisioned_as_one(platform_thread, clients):
    response = TBDeviceMqttClient.provision(
        host=platform_thread.host,
        port=platform_thread.port,
        device_name="new gateway",
        provision_device_key="KEY",
        provision_device_secret="SECRET",
        gateway=True,
        access_token="NEW",
    )
    assert response == {"status": "SUCCESS", "credentialsType": "ACCESS_TOKEN", "credentialsValue": "NEW"}
    assert platform_thread.emulator.device("new gateway").is_gateway
    client = TBGatewayMqttClient(platform_thread.host, platform_thread.port, "NEW")
    clients.append(client)
    client.connect(**FAST)
    assert client.gw_send_telemetry("meter", {"ts": 1, "values": {"a": 1}}).get() == 0


def test_provisioning_without_a_response_has_no_credentials(platform_thread):
    platform_thread.emulator.on_send = lambda sending: SendVerdict.drop() if sending.kind == "PUBLISH" else None
    request = {"provisionDeviceKey": "KEY", "provisionDeviceSecret": "SECRET"}
    client = ProvisionClient(platform_thread.host, platform_thread.port, request)
    client.provision(timeout=0.2)
    assert client.get_credentials() is None


@pytest.mark.parametrize("platform_thread", [OF_ADDRESS], indirect=True)
def test_provisioning_over_tls_verifies_the_server(platform_thread, tmp_path, monkeypatch):
    # As on port 8883, which the test cannot have.
    monkeypatch.setattr(ProvisioningRequest, "use_tls", lambda _: True)
    provision = TBDeviceMqttClient.provision
    monkeypatch.delenv("TB_CA_CERT", raising=False)
    with pytest.raises(ssl.SSLError, match="the server's certificate is"):
        provision(platform_thread.host, "KEY", "SECRET", platform_thread.port)
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("TB_CA_CERT", str(tmp_path / "ca.pem"))
    assert provision(platform_thread.host, "KEY", "SECRET", platform_thread.port)["status"] == "SUCCESS"


# Results and announced limits.


class UnsentInfo:
    """A message of paho that could not be queued: waiting for it raises."""

    rc, mid = 4, 5

    def __init__(self, error):
        self._error = error

    def wait_for_publish(self, timeout=None):
        raise self._error


@pytest.mark.parametrize("error", [RuntimeError("not queued"), ValueError("the queue is full")])
def test_the_error_of_a_single_message_of_paho_goes_through(error):
    with pytest.raises(type(error), match=str(error)):
        TBPublishInfo(UnsentInfo(error)).get()


@pytest.mark.parametrize("platform_thread", [{"limits": SessionLimits(rate_limits=RateLimits(messages="100:1"))}], indirect=True)
def test_announced_limits_are_shown_with_the_share_of_the_process(platform_thread, monkeypatch):
    monkeypatch.setattr(settings, "DEFAULT_RATE_LIMIT_PERCENTAGE", 50)
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "TOKEN")
    client.connect(**FAST)
    client.disconnect()
    assert client._messages_rate_limit.get_minimal_limit() == 50


@pytest.mark.parametrize(("text", "percentage"), [(None, 80), ("50", 50), ("100", 100), ("0", 80), ("101", 80), ("half", 80)])
def test_the_share_of_limits_is_a_variable_of_the_environment(monkeypatch, text, percentage):
    if text is None:
        monkeypatch.delenv("TB_DEFAULT_RATE_LIMIT_PERCENTAGE", raising=False)
    else:
        monkeypatch.setenv("TB_DEFAULT_RATE_LIMIT_PERCENTAGE", text)
    assert settings._percentage() == percentage
