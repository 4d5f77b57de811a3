"""Options of clients: the precedence of their sources, errors that name the option, and TLS contexts."""

import copy
import os
import ssl
import traceback
from datetime import UTC, datetime

import pytest
import trustme

from tb_mqtt_client import ClockMode, DeviceConfig, GatewayConfig, QueuePolicy, TimestampSource


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("TB_")]:
        monkeypatch.delenv(name)


def test_defect_68_the_dict_has_precedence_over_the_environment(monkeypatch):
    assert DeviceConfig().port == 1883
    monkeypatch.setenv("TB_PORT", "1000")
    assert DeviceConfig().port == 1000
    config = DeviceConfig({"port": 2000})
    assert config.port == 2000
    config.port = 3000
    assert config.port == 3000


def test_variables_of_gateways_are_read_before_those_of_devices(monkeypatch):
    monkeypatch.setenv("TB_HOST", "device.example")
    monkeypatch.setenv("TB_GW_HOST", "gateway.example")
    monkeypatch.setenv("TB_ACCESS_TOKEN", "token")
    assert (DeviceConfig().host, GatewayConfig().host, GatewayConfig().access_token) == (
        "device.example",
        "gateway.example",
        "token",
    )


def test_the_environment_turns_rounding_off(monkeypatch):
    assert DeviceConfig().round_floats
    monkeypatch.setenv("TB_ROUND_FLOATS", "false")
    assert not DeviceConfig().round_floats
    assert DeviceConfig({"round_floats": True}).round_floats
    monkeypatch.setenv("TB_GW_ROUND_FLOATS", "true")
    assert GatewayConfig().round_floats


def test_the_environment_leaves_timestamps_to_the_server(monkeypatch):
    assert DeviceConfig().timestamps is TimestampSource.CLIENT
    monkeypatch.setenv("TB_TIMESTAMPS", "server")
    assert DeviceConfig().timestamps is GatewayConfig().timestamps is TimestampSource.SERVER
    monkeypatch.setenv("TB_GW_TIMESTAMPS", "client")
    assert GatewayConfig().timestamps is TimestampSource.CLIENT


def test_the_environment_describes_the_clock(monkeypatch):
    assert (DeviceConfig().clock, DeviceConfig().clock_synchronized) == (ClockMode.TRUST, True)
    monkeypatch.setenv("TB_CLOCK", "wait")
    monkeypatch.setenv("TB_CLOCK_VALID_FROM", "2026-01-31T12:00:00Z")
    monkeypatch.setenv("TB_CLOCK_SYNCHRONIZED", "false")
    config = DeviceConfig()
    assert (config.clock, config.clock_synchronized) == (ClockMode.WAIT, False)
    assert config.clock_valid_from == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_none_in_the_dict_leaves_the_option_to_the_environment(monkeypatch):
    monkeypatch.setenv("TB_HOST", "from.environment")
    assert DeviceConfig({"host": None}).host == "from.environment"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prot": 1}, r"Unknown option 'prot', did you mean 'port'\? Allowed are host"),
        ({"port": "x"}, "port must be a whole number from 1 to 65535, not 'x'"),
        ({"port": 0}, "port must be from 1 to 65535, not 0"),
        ({"host": 5}, "host must be a str or a list of str, not 5"),
        ({"round_floats": "sometimes"}, "round_floats must be true or false"),
        ({"use_system_ca": "maybe"}, "use_system_ca must be true or false"),
        ({"limits_timeout": 0}, "limits_timeout must be a positive number of seconds"),
        ({"limits_timeout": float("nan")}, "limits_timeout must be a positive number of seconds"),
        ({"rate_limit_percentage": 101}, "rate_limit_percentage must be from 1 to 100"),
        ({"mqtt_version": 3}, "mqtt_version must be from 4 to 5"),
        ({"port": 1883.5}, r"port must be a whole number from 1 to 65535, not 1883\.5"),
        ({"port": True}, "port must be a whole number from 1 to 65535, not True"),
        ({"max_queued_messages": float("inf")}, "max_queued_messages must be a whole number"),
        ({"host": "a..b"}, r"host must be a host name or an IP address, not 'a\.\.b'"),
        ({"host": "a" * 64}, "host must be a host name or an IP address"),
        ({"host": "a\0b"}, "host must be a host name or an IP address"),
        ({"host": "\udc80"}, "host must be a host name or an IP address"),
        ({"client_id": "a\0b"}, "client_id must be at most 65535 bytes of UTF-8 without NUL characters"),
        ({"access_token": "\udc80"}, "access_token must be at most 65535 bytes of UTF-8"),
        ({"username": "u" * 65_536}, "username must be at most 65535 bytes of UTF-8"),
        ({"timestamps": "platform"}, "timestamps must be one of client, server, not 'platform'"),
        ({"clock": "ntp"}, "clock must be one of trust, wait, correct, not 'ntp'"),
        ({"clock_valid_from": "yesterday"}, "clock_valid_from must be a datetime with a timezone, or ISO 8601 such as"),
        ({"clock_valid_from": datetime(2026, 1, 1)}, "clock_valid_from must be a datetime with a timezone"),
        ({"clock_valid_from": 5}, "clock_valid_from must be a datetime with a timezone"),
        ({"rpc_reply": "bare"}, "rpc_reply must be one of wrapped, plain, not 'bare'"),
    ],
)
def test_invalid_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DeviceConfig(options)
    config = DeviceConfig()
    [(name, value)] = options.items()
    if name in DeviceConfig.option_names():
        before = getattr(config, name)
        with pytest.raises(ValueError, match=message):
            setattr(config, name, value)
        assert getattr(config, name) == before


def test_an_assigned_value_is_converted_like_one_in_the_dict():
    config = DeviceConfig()
    config.port = "1884"
    config.limits_timeout = 2
    config.use_system_ca = "no"
    config.queue_policy = "raise"
    assert (config.port, config.limits_timeout, config.use_system_ca, config.queue_policy) == (1884, 2.0, False, QueuePolicy.RAISE)


def test_only_options_without_a_default_can_be_set_to_none():
    config = DeviceConfig({"access_token": "token"})
    config.access_token = None
    assert config.access_token is None
    with pytest.raises(ValueError, match="port must be a whole number from 1 to 65535, not None"):
        config.port = None


def test_a_subclass_can_have_its_own_attributes():
    class SiteConfig(DeviceConfig):
        def __init__(self, site):
            super().__init__()
            self.site = site

    assert copy.deepcopy(SiteConfig("hall")).site == "hall"


@pytest.mark.parametrize("name", ["access_token", "password"])
@pytest.mark.parametrize("value", [b"a secret", ["a secret"], "a secret\0", "a secret\udc80"])
def test_errors_do_not_quote_secrets(name, value):
    with pytest.raises(ValueError, match=name) as raised:
        DeviceConfig({name: value})
    assert "a secret" not in "".join(traceback.format_exception(raised.value))


def test_an_error_names_the_environment_variable(monkeypatch):
    monkeypatch.setenv("TB_PORT", "many")
    with pytest.raises(ValueError, match="TB_PORT must be a whole number"):
        DeviceConfig()


def test_qos_2_becomes_1_with_a_warning(caplog):
    assert DeviceConfig({"qos": 2}).qos == 1
    assert "qos is 2, which ThingsBoard does not support; using 1 instead" in caplog.text


def test_a_gateway_configuration_from_that_of_a_device():
    config = GatewayConfig.from_device_config(DeviceConfig({"host": "h", "port": 5, "access_token": "t"}))
    assert (config.host, config.port, config.access_token, config.combine_devices) == ("h", 5, "t", True)


def test_repr_shows_no_secret():
    text = repr(DeviceConfig({"host": "h", "access_token": "secret", "password": "secret"}))
    assert text == "DeviceConfig(host=h, port=1883, auth=token client_id=None tls=False)"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("client@example.com")
    paths = {name: folder / f"{name}.pem" for name in ("ca_cert", "client_cert", "private_key")}
    authority.cert_pem.write_to_path(paths["ca_cert"])
    certificate.cert_chain_pems[0].write_to_path(paths["client_cert"])
    certificate.private_key_pem.write_to_path(paths["private_key"])
    return paths


def test_tls_contexts_are_made_from_the_options(files):
    assert DeviceConfig().make_ssl_context() is None
    system = DeviceConfig({"use_system_ca": True})
    assert (system.use_tls(), system.use_tls_auth()) == (True, False)
    assert system.make_ssl_context().verify_mode is ssl.CERT_REQUIRED
    own = DeviceConfig({"ca_cert": files["ca_cert"]}).make_ssl_context()
    assert len(own.get_ca_certs()) == 1
    assert own.check_hostname
    mutual = DeviceConfig({**files, "verify_hostname": False})
    assert (mutual.use_tls(), mutual.use_tls_auth()) == (True, True)
    assert not mutual.make_ssl_context().check_hostname


def test_unusable_tls_files_are_refused(files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ca_cert: there is no file .*missing\.pem"):
        DeviceConfig({"ca_cert": tmp_path / "missing.pem"}).make_ssl_context()
    with pytest.raises(ValueError, match="must be set together"):
        DeviceConfig({"client_cert": files["client_cert"]}).make_ssl_context()
    (tmp_path / "no.pem").write_text("this is not a certificate")
    with pytest.raises(ssl.SSLError):
        DeviceConfig({"ca_cert": tmp_path / "no.pem"}).make_ssl_context()


@pytest.mark.parametrize(
    "value",
    [5, "100:1", ["100:1"], {"telemetry": "100:1"}, {"messages": 5}, {"messages": ""}, {"messages": "100"}, {"messages": "0:1"},
     {"messages": "1:0"}, {"messages": "-1:1"}, {"messages": "1:1,x"}, {"messages": "1e3:1"}, {"messages": f"{2**64}:1"}],
)  # fmt: skip
def test_malformed_rate_limits_are_refused(value):
    with pytest.raises(ValueError, match="rate_limits"):
        DeviceConfig({"rate_limits": value})


def test_rate_limits_of_the_user_are_read():
    texts = {"messages": "50:1", "telemetry_datapoints": "100:1,3000:60", "telemetry_messages": None}
    assert DeviceConfig({"rate_limits": texts}).rate_limits == {"messages": "50:1", "telemetry_datapoints": "100:1,3000:60"}
    assert DeviceConfig().rate_limits is None
