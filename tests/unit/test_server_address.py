"""Addresses of servers: every common form is read, or refused with a hint."""

import pytest

from tb_mqtt_client import DeviceClient, DeviceConfig, GatewayClient, GatewayConfig
from tb_mqtt_client.entities.data.provisioning_request import AccessTokenProvisioningCredentials, ProvisioningRequest

CREDENTIALS = AccessTokenProvisioningCredentials("KEY", "SECRET")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch):
    for prefix in ("TB_", "TB_GW_"):
        for name in ("HOST", "PORT", "TLS", "CA_CERT", "CLIENT_CERT", "PRIVATE_KEY", "PROXY"):
            monkeypatch.delenv(prefix + name, raising=False)


def servers(config):
    return [str(server) for server in config.servers()]


FORMS = [
    ("tb.example.com", "tb.example.com:1883", False),
    (" tb.example.com ", "tb.example.com:1883", False),
    ("tb.example.com:1884", "tb.example.com:1884", False),
    ("10.0.0.1:1884", "10.0.0.1:1884", False),
    ("::1", "[::1]:1883", False),
    ("[::1]", "[::1]:1883", False),
    ("[::1]:1884", "[::1]:1884", False),
    ("fe80::1%eth0", "[fe80::1%eth0]:1883", False),
    ("mqtt://tb.example.com", "tb.example.com:1883", False),
    ("mqtt://tb.example.com/", "tb.example.com:1883", False),
    ("tcp://tb.example.com:1884", "tb.example.com:1884", False),
    ("mqtts://tb.example.com", "tb.example.com:8883", True),
    ("MQTTS://tb.example.com:8884", "tb.example.com:8884", True),
    ("ssl://[2001:db8::1]", "[2001:db8::1]:8883", True),
]


@pytest.mark.parametrize(("host", "server", "tls"), FORMS)
def test_forms_of_a_host(host, server, tls, monkeypatch):
    given, assigned = DeviceConfig({"host": host}), DeviceConfig()
    assigned.host = host
    monkeypatch.setenv("TB_HOST", host)
    for config in (given, assigned, DeviceConfig(), GatewayConfig(), GatewayConfig.from_device_config(given)):
        assert (servers(config), config.use_tls()) == ([server], tls)
        assert f"{config.host}:{config.port}" == server.replace("[", "").replace("]", "")


@pytest.mark.parametrize(("host", "server", "tls"), FORMS)
def test_forms_of_a_host_for_provisioning(host, server, tls):
    request = ProvisioningRequest(host, CREDENTIALS)
    assert f"{request.host}:{request.port}" == server.replace("[", "").replace("]", "")
    assert request.use_tls() == tls


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("https://tb.example.com", r"not of a web page \(https://\): try 'tb.example.com', or 'mqtts://tb.example.com'"),
        ("http://localhost:8080/login", r"not of a web page \(http://\): try 'localhost'"),
        ("ws://tb.example.com", "must not be a WebSocket"),
        ("amqp://tb.example.com", "not a URL with the scheme 'amqp'"),
        ("mqtt://tb.example.com/path", "must not have a path"),
        ("tb.example.com:", "must have a port from 1 to 65535 after the colon, not 'tb.example.com:'"),
        ("tb.example.com:mqtt", "must have a port"),
        ("tb.example.com:0", "must have a port"),
        ("tb.example.com:65536", "must have a port"),
        ("1:2:3", "host, host:port or an IPv6 address"),
        ("[::1", "IPv6 address in brackets"),
        ("[host]:1883", "IPv6 address in brackets"),
        ("mqtt://", "must be a host name or an IP address"),
        ("a b", "must be a host name or an IP address"),
        ("a/b", "must be a host name or an IP address"),
        ("a,,b", "must be a host name or an IP address"),
        (["a", 5], "must be a str or a list of str, not 5"),
        ([], "must name at least one server"),
        (b"a", "must be a str or a list of str"),
        (["mqtts://a", "mqtt://b"], "must not mix URLs with and without TLS"),
    ],
)
def test_an_invalid_host_is_refused_with_a_hint(host, message):
    with pytest.raises(ValueError, match=message):
        DeviceConfig({"host": host})
    config = DeviceConfig({"host": "before"})
    with pytest.raises(ValueError, match=message):
        config.host = host
    assert servers(config) == ["before:1883"]


@pytest.mark.parametrize("host", ["mqtt://user:hunter2@tb.example.com", "user:hunter2@tb.example.com:1883"])
def test_credentials_in_a_host_are_refused_and_not_quoted(host):
    with pytest.raises(ValueError, match="must not contain credentials: set access_token") as raised:
        DeviceConfig({"host": host})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "tb.example.com:1884", "port": 1885}, "host names port 1884, but port is 1885"),
        ({"host": ["a:1884", "b:1886"], "port": 1885}, "host names port 1884, but port is 1885"),
        (
            {"host": "mqtts://tb.example.com", "use_system_ca": False},
            "host says mqtts://, which is TLS, but use_system_ca is false",
        ),
        ({"host": "mqtt://tb.example.com", "use_system_ca": True}, "host says mqtt://, which is without TLS"),
        ({"host": "mqtt://tb.example.com", "ca_cert": "ca.pem"}, "host says mqtt://, which is without TLS"),
    ],
)
def test_a_host_that_contradicts_another_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DeviceConfig(options)


def test_a_port_in_a_host_has_the_precedence_of_that_host(monkeypatch):
    monkeypatch.setenv("TB_HOST", "environment:1884")
    assert servers(DeviceConfig({"port": 1885})) == ["environment:1885"]
    monkeypatch.setenv("TB_PORT", "1886")
    assert servers(DeviceConfig({"host": "given:1887"})) == ["given:1887"]
    assert servers(DeviceConfig({"host": "mqtts://given"})) == ["given:1886"]
    with pytest.raises(ValueError, match="host names port 1884, but port is 1886"):
        DeviceConfig()
    config = DeviceConfig({"host": "given:1887"})
    config.port = 1888
    assert servers(config) == ["given:1888"]
    config.host = "assigned:1889"
    assert servers(config) == ["assigned:1889"]
    # Variables for gateways have precedence over those for all clients.
    monkeypatch.setenv("TB_GW_HOST", "gateway:1890")
    assert servers(GatewayConfig()) == ["gateway:1890"]


@pytest.mark.parametrize("host", [["a", "b:8884", "[::1]"], ("a", "b:8884", "[::1]"), "a,b:8884, [::1]"])
def test_several_hosts_are_read(host, monkeypatch):
    expected = ["a:1885", "b:8884", "[::1]:1885"]
    config = DeviceConfig({"host": host, "port": 1885})
    assert servers(config) == servers(GatewayConfig.from_device_config(config)) == expected
    assert config.host == "a"
    assert repr(config).startswith("DeviceConfig(host=a,b:8884,[::1], port=1885")
    if isinstance(host, str):
        monkeypatch.setenv("TB_HOST", host)
        monkeypatch.setenv("TB_PORT", "1885")
        assert servers(DeviceConfig()) == expected


def test_several_hosts_with_tls_are_read():
    config = DeviceConfig({"host": "mqtts://a,mqtts://b:8884"})
    assert (servers(config), config.use_tls()) == (["a:8883", "b:8884"], True)
    assert servers(GatewayConfig.from_device_config(config)) == ["a:8883", "b:8884"]


def test_a_blank_host_is_not_set():
    assert DeviceConfig({"host": " "}).host is None
    assert DeviceConfig({"host": ""}).servers() == ()


@pytest.mark.parametrize("make", [DeviceConfig, DeviceClient, GatewayConfig, GatewayClient])
@pytest.mark.parametrize("config", ["127.0.0.1", b"127.0.0.1", ["127.0.0.1"], 5])
def test_an_argument_that_is_not_a_configuration_is_refused_with_an_example(make, config):
    with pytest.raises(TypeError, match=r'must be a .*Config or a dict such as {"host": "tb\.example\.com"') as raised:
        make(config)
    # The argument may be an access token.
    assert "127.0.0.1" not in str(raised.value)


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("prot", "port"),
        ("hots", "host"),
        ("token", "access_token"),
        ("ssl", "use_system_ca"),
        ("keep_alive", "keepalive"),
        ("tokn", "access_token"),
    ],
)
def test_an_unknown_option_suggests_a_similar_one(option, meant):
    with pytest.raises(ValueError, match=f"Unknown option '{option}', did you mean '{meant}'\\? Allowed are host"):
        DeviceConfig({option: 1})


def test_an_unknown_option_without_a_similar_one_lists_the_options():
    with pytest.raises(ValueError, match=r"Unknown option 'zzzz'\. Allowed are host"):
        DeviceConfig({"zzzz": 1})
    with pytest.raises(ValueError, match=r"Unknown option 5\. Allowed are host"):
        DeviceConfig({5: 1})
