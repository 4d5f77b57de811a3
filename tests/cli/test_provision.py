"""``tb-mqtt provision`` registers a device, and saves its credentials only in a file that can be used to connect."""

import ssl
import stat
import tomllib

import pytest
import trustme

from network_peers import HttpProxy, running
from tb_mqtt_client.emulator import Emulator

SECRET = "secret-of-the-profile"
ENVIRONMENT = {"TB_PROVISION_KEY": "key-of-the-profile", "TB_PROVISION_SECRET": SECRET}


@pytest.fixture
def place(emulator):
    emulator.add_provision_profile("key-of-the-profile", SECRET, profile="meter")
    return ENVIRONMENT | {"TB_HOST": emulator.host, "TB_PORT": str(emulator.port)}


async def test_provision_saves_a_token(tb_mqtt, emulator, place, tmp_path):
    done = await tb_mqtt("provision", "--name", "meter 7", "--save", "meter.toml", env=place, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out == "✓ registered; ACCESS_TOKEN is in meter.toml, for --config meter.toml\n"
    saved = tomllib.loads((tmp_path / "meter.toml").read_text())
    assert (saved["host"], saved["port"]) == (emulator.host, emulator.port)
    assert saved["access_token"] not in done.out
    assert stat.S_IMODE((tmp_path / "meter.toml").stat().st_mode) == 0o600
    assert emulator.device("meter 7").profile == "meter"
    # The token in the environment belongs to another device.
    sent = await tb_mqtt("send", "a=1", "--config", "meter.toml", env={"TB_ACCESS_TOKEN": "other"}, cwd=tmp_path)
    assert sent.code == 0
    assert emulator.device("meter 7").counters.telemetry_datapoints == 1


async def test_provision_saves_basic_credentials(tb_mqtt, emulator, place, tmp_path):
    (tmp_path / "password").write_text('p"\\ä😀\x7fw')
    wanted = ("--credentials", "basic", "--username", "user 7", "--password-file", "password")
    done = await tb_mqtt("provision", *wanted, "--name", "m", "--save", "m.toml", "--json", env=place, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.json == {"status": "SUCCESS", "credentials_type": "MQTT_BASIC", "file": "m.toml"}
    assert tomllib.loads((tmp_path / "m.toml").read_text())["password"] == 'p"\\ä😀\x7fw'
    assert (await tb_mqtt("send", "a=1", "--config", "m.toml", cwd=tmp_path)).code == 0


async def test_provision_saves_how_the_server_is_reached(tb_mqtt, emulator, place, tmp_path):
    async with running(HttpProxy("user:hunter2")) as proxy:
        url = f"http://user:hunter2@127.0.0.1:{proxy.port}"
        options = ("--no-verify-hostname", "--no-tls-strict", "--proxy", url)
        done = await tb_mqtt("provision", *options, "--save", "m.toml", env=place, cwd=tmp_path)
        assert (done.code, "hunter2" in done.out + done.err) == (0, False)
        saved = tomllib.loads((tmp_path / "m.toml").read_text())
        assert (saved["verify_hostname"], saved["tls_strict"], saved["proxy"]) == (False, False, url)
        assert (await tb_mqtt("send", "a=1", "--config", "m.toml", cwd=tmp_path)).code == 0
    assert len(proxy.asked) == 2


async def test_provision_registers_a_gateway(tb_mqtt, emulator, place, tmp_path):
    done = await tb_mqtt("provision", "--as-gateway", "--name", "g", "--save", "g.toml", env=place, cwd=tmp_path)
    assert done.code == 0
    assert emulator.device("g").is_gateway


async def test_provision_saves_the_paths_of_a_certificate(tb_mqtt, tmp_path):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_OPTIONAL
    authority.configure_trust(context)
    authority.issue_cert("localhost").configure_cert(context)
    certificate = authority.issue_cert("meter")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "tls.toml").write_text('ca_cert = "ca.pem"\nclient_cert = "cert.pem"\nprivate_key = "key.pem"\n')
    async with Emulator(ssl_context=context) as emulator:
        emulator.add_provision_profile("key-of-the-profile", SECRET)
        env = ENVIRONMENT | {"TB_HOST": "localhost", "TB_PORT": str(emulator.port)}
        wanted = ("--credentials", "x509", "--config", "tls.toml", "--name", "m", "--save", "m.toml")
        done = await tb_mqtt("provision", *wanted, env=env, cwd=tmp_path)
        assert (done.code, done.err) == (0, "")
        assert "X509_CERTIFICATE is in m.toml" in done.out
        (tmp_path / "elsewhere").mkdir()
        sent = await tb_mqtt("send", "a=1", "--config", str(tmp_path / "m.toml"), cwd=tmp_path / "elsewhere")
        assert (sent.code, sent.err) == (0, "")
        assert emulator.device("m").counters.telemetry_datapoints == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--credentials", "x509"], "--credentials x509 needs --client-cert, --private-key and --ca-cert"),
        (["--credentials", "basic"], "--credentials basic needs --username or --client-id"),
    ],
)
async def test_provision_reports_options_that_the_credentials_need(tb_mqtt, place, tmp_path, arguments, message):
    done = await tb_mqtt("provision", *arguments, "--save", "m.toml", env=place, cwd=tmp_path)
    assert (done.code, message in done.err) == (2, True)
    assert not (tmp_path / "m.toml").exists()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TB_PROVISION_SECRET": "another-secret"}, "(NOT_FOUND)"),
        ({"TB_PROVISION_KEY": "another-key"}, "Provision data was not found!"),
    ],
)
async def test_provision_reports_an_unknown_profile(tb_mqtt, place, tmp_path, environment, message):
    done = await tb_mqtt("provision", "--save", "m.toml", "-vv", env=place | environment, cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert not (tmp_path / "m.toml").exists()
    for secret in (SECRET, "another-secret", "another-key"):
        assert secret not in done.err


async def test_provision_reports_a_name_that_is_in_use(tb_mqtt, emulator, place, tmp_path):
    done = await tb_mqtt("provision", "--name", "device", "--save", "m.toml", env=place, cwd=tmp_path)
    assert (done.code, "The platform refused: " in done.err) == (1, True)


async def test_provision_does_not_overwrite_a_file(tb_mqtt, emulator, place, tmp_path):
    (tmp_path / "m.toml").write_text("precious")
    done = await tb_mqtt("provision", "--save", "m.toml", env=place, cwd=tmp_path)
    assert (done.code, "m.toml already exists" in done.err) == (2, True)
    assert (tmp_path / "m.toml").read_text() == "precious"
    assert (await tb_mqtt("provision", "--save", "no/m.toml", env=place, cwd=tmp_path)).code == 2
    # The platform received no request.
    assert len(emulator.devices) == 2


async def test_provision_gives_up_without_a_response(tb_mqtt, place, tmp_path, silent_server):
    address = ("--host", "127.0.0.1", "--port", silent_server)
    done = await tb_mqtt("provision", *address, "--save", "m.toml", "--timeout", "0.3", env=place, cwd=tmp_path)
    assert (done.code, "No response within 0.3 s" in done.err) == (4, True)
    assert not (tmp_path / "m.toml").exists()


async def test_provision_reports_why_it_cannot_connect(tb_mqtt, place, tmp_path):
    done = await tb_mqtt("provision", "--save", "m.toml", "--port", "1", env=place, cwd=tmp_path)
    assert (done.code, "nothing listens on port 1" in done.err) == (3, True)


@pytest.mark.parametrize("missing", ["TB_PROVISION_KEY", "TB_PROVISION_SECRET"])
async def test_provision_needs_key_and_secret(tb_mqtt, place, tmp_path, missing):
    del place[missing]
    done = await tb_mqtt("provision", "--save", "m.toml", env=place, cwd=tmp_path)
    assert (done.code, "are needed" in done.err) == (2, True)
