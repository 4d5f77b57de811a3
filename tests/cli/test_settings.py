"""Settings come from the command line, then from the file that it names, then from the environment."""

import os

import pytest
import trustme

from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.secrets import Redactor
from tb_mqtt_client.cli.settings import ConnectionOptions, load
from tb_mqtt_client.common.config_loader import GatewayConfig


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in os.environ:
        if name.startswith("TB_"):
            monkeypatch.delenv(name)


def settings(config_class=GatewayConfig, **options):
    return load(ConnectionOptions(**options), Redactor(), config_class)


def write(path, text):
    path.write_text(text)
    return str(path)


def test_command_line_precedes_file_and_file_precedes_environment(tmp_path, monkeypatch):
    file = write(tmp_path / "tb.toml", 'host = "file"\nport = 2\nkeepalive = 7\n')
    monkeypatch.setenv("TB_HOST", "environment")
    monkeypatch.setenv("TB_PORT", "3")
    monkeypatch.setenv("TB_CLIENT_ID", "id")
    found = settings(host="option", config=file)
    assert (found.config.host, found.config.port, found.config.client_id, found.config.keepalive) == ("option", 2, "id", 7)
    assert (found.origin_of_host, settings(config=file).origin_of_host) == ("the command line", file)
    assert settings().origin_of_host == "the environment"
    assert settings().config.host == "environment"


def test_command_line_precedes_a_port_in_a_host(tmp_path, monkeypatch):
    def servers(**options):
        return [str(server) for server in settings(**options).config.servers()]

    file = write(tmp_path / "tb.toml", 'host = "file:2"\n')
    with_port = write(tmp_path / "port.toml", 'host = "file"\nport = 2\n')
    assert servers(config=file, port=3) == servers(config=with_port, port=3) == ["file:3"]
    assert servers(config=with_port, host="option:3") == ["option:3"]
    assert servers(config=with_port, host="option,other:3") == ["option:1883", "other:3"]
    assert servers(config=with_port, host="option") == ["option:2"]
    monkeypatch.setenv("TB_HOST", "environment:4")
    assert servers(port=3) == ["environment:3"]
    assert servers(config=file) == ["file:2"]
    with pytest.raises(CommandError, match="host names port 3, but port is 5"):
        settings(host="option:3", port=5)


def test_connection_options_are_passed_to_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("TB_PROXY", "http://environment")
    password = write(tmp_path / "password", "of the key\n")
    options = {"tls_strict": False, "proxy": "http://option", "private_key_password_file": password}
    config = settings(host="mqtts://h", **options, connect_timeout=50).config
    assert (config.tls_strict, config.proxy, config.private_key_password) == (False, "http://option", "of the key")
    # The option of the command line limits all attempts together, not one attempt.
    assert config.connect_timeout == 10
    assert settings(host="h").config.proxy == "http://environment"
    file = write(tmp_path / "tb.toml", 'host = ["a", "b:2"]\nprivate_key_password_file = "password"\n')
    config = settings(config=file).config
    assert ([str(server) for server in config.servers()], config.private_key_password) == (["a:1883", "b:2"], "of the key")


def test_credentials_come_from_one_place(tmp_path, monkeypatch):
    """A token from the environment is never sent to the server of a file with its own credentials."""
    monkeypatch.setenv("TB_HOST", "h")
    monkeypatch.setenv("TB_ACCESS_TOKEN", "token of the environment")
    file = write(tmp_path / "tb.toml", 'username = "file"\npassword = "secret of the file"\n')
    assert settings().config.access_token == "token of the environment"
    from_file = settings(config=file).config
    assert (from_file.access_token, from_file.username, from_file.password) == (None, "file", "secret of the file")
    from_option = settings(config=file, username="option").config
    assert (from_option.access_token, from_option.username, from_option.password) == (None, "option", None)
    from_token = settings(config=file, token="token of the option")
    assert (from_token.config.access_token, from_token.config.username) == ("token of the option", None)
    assert from_token.origin_of_credentials == "the command line"


def test_profile_is_a_table_of_the_file(tmp_path):
    text = 'host = "plain"\n[test]\nhost = "test"\naccess_token = "t"\n[production]\nhost = "production"\n'
    file = write(tmp_path / "tb.toml", text)
    assert settings(config=file).config.host == "plain"
    assert settings(config=file, profile="test").config.host == "test"
    production = settings(config=file, profile="production")
    assert (production.config.host, production.config.access_token, production.origin_of_credentials) == ("production", None, "")
    assert production.origin_of_host == f"[production] of {file}"


def test_paths_in_a_file_are_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / "secrets").mkdir()
    write(tmp_path / "secrets" / "token", "the token\n\n")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "secrets" / "ca.pem")
    file = write(tmp_path / "tb.toml", 'host = "h"\ntoken_file = "secrets/token"\nca_cert = "secrets/ca.pem"\n')
    monkeypatch.chdir("/")
    config = settings(config=file).config
    assert config.access_token == "the token"
    assert config.ca_cert == str(tmp_path / "secrets" / "ca.pem")


def test_secrets_are_read_from_files(tmp_path):
    token, password = write(tmp_path / "token", " the token \r\n"), write(tmp_path / "password", "word")
    assert settings(host="h", token_file=token).config.access_token == "the token"
    config = settings(host="h", username="u", password_file=password).config
    assert (config.username, config.password) == ("u", "word")


def test_byte_order_mark_is_ignored(tmp_path):
    """Some editors on Windows write a byte order mark."""
    token = write(tmp_path / "token", "\ufeffthe token\r\n")
    file = write(tmp_path / "tb.toml", '\ufeffhost = "h"\r\n')
    assert settings(config=file, token_file=token).config.access_token == "the token"


def test_no_tls_precedes_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TB_HOST", "h")
    monkeypatch.setenv("TB_TLS", "1")
    assert settings().config.use_tls()
    assert not settings(tls=False).config.use_tls()
    assert settings(mqtt_version="3.1.1").config.mqtt_version == 4


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "No host given"),
        ("host = ", {}, "is not valid TOML"),
        ('hots = "h"', {}, "unknown key 'hots', did you mean 'host'?"),
        ('host = "h"\nport = "x"', {}, "port must be a whole number"),
        ('host = "h"\nport = 0', {}, "port must be from 1"),
        ('[test]\nhost = "h"', {}, "has profiles only"),
        ('[test]\nhost = "h"', {"profile": "tset"}, "has no [tset]"),
        ('host = "h"\ntoken_file = "none"', {}, "token_file: "),
        ('host = "h"\ntoken_file = 5', {}, "token_file must be a path, not of type int"),
        ('host = "h"\nca_cert = ["a"]', {}, "ca_cert must be a path, not of type list"),
        ('host = "a..b"', {}, "host must be a host name or an IP address"),
        ('host = "h"\ntoken_file = "empty"', {}, "is empty"),
        ('host = "h"\ntoken_file = "binary"', {}, "is not a text file"),
        ('host = "h"\ntoken_file = "binary"\naccess_token = "x"', {}, "give only one of them"),
        ('host = "h"\nca_cert = "none"', {}, "ca_cert: there is no file"),
        ('host = "h"\nca_cert = "empty"', {}, "ca_cert: "),
        ('host = "h"\nclient_cert = "empty"', {}, "client_cert and private_key must be set together"),
        ('host = "h"\nclient_cert = "empty"\nprivate_key = "empty"', {}, "must be a certificate and its key in PEM form"),
        ('host = "h"\naccess_token = 1234567', {}, "access_token must be a str"),
        ('host = "h"', {"token": "a", "token_file": "b"}, "--token and --token-file"),
    ],
)
def test_unusable_settings_are_reported(tmp_path, text, options, message):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    redactor = Redactor()
    with pytest.raises(CommandError) as raised:
        load(ConnectionOptions(config=write(tmp_path / "tb.toml", text), **options), redactor)
    assert message in str(raised.value)
    assert raised.value.exit_code == ExitCode.USAGE
    assert "1234567" not in redactor.clean(str(raised.value))


def test_missing_config_file_is_reported():
    with pytest.raises(CommandError, match=r"--config: missing\.toml cannot be read: No such file"):
        settings(config="missing.toml")
    with pytest.raises(CommandError, match="give --config FILE too"):
        settings(profile="test", host="h")


def test_redactor_replaces_the_longest_secret_first():
    redactor = Redactor()
    for secret in ("abcd", "abcdefgh", "abc", None):
        redactor.add(secret)
    assert redactor.clean("abcdefgh, abcd and abc") == "***, *** and abc"
