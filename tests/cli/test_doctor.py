"""``tb-mqtt doctor`` finds each failure of a connection in the right step, with advice what to try next."""

import asyncio
import datetime
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme

from network_peers import HttpProxy, resolve_as, running, swallowing_address
from tb_mqtt_client.cli import checks
from tb_mqtt_client.cli.checks import STEPS, clock_finding, limits_finding
from tb_mqtt_client.cli.secrets import Redactor
from tb_mqtt_client.cli.settings import ConnectionOptions, load
from tb_mqtt_client.emulator import Emulator, RateLimits, SessionLimits, Verdict


def by_step(done):
    findings = {finding["step"]: finding for finding in done.json["findings"]}
    assert len(findings) == len(done.json["findings"])
    assert set(findings) == set(STEPS)
    return findings


async def examined(tb_mqtt, *arguments, env=None):
    done = await tb_mqtt("doctor", "--json", *arguments, env=env)
    assert "Traceback" not in done.err
    assert done.code == (0 if done.json["ok"] else 1)
    return by_step(done)


def failure(findings):
    """Return the step, the finding and the advice of the only step that failed."""
    [failed] = [finding for finding in findings.values() if finding["status"] == "bad"]
    assert failed["advice"]
    return failed["step"], failed["finding"], failed["advice"]


@pytest.fixture
def authority():
    return trustme.CA()


@asynccontextmanager
async def tls_emulator(authority, *names, **options):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*(names or ("localhost",)), **options).configure_cert(context)
    async with Emulator(ssl_context=context) as emulator:
        emulator.add_device("DEVICE-TOKEN", "device")
        yield emulator


def at(emulator, host="localhost"):
    return {"TB_HOST": host, "TB_PORT": str(emulator.port), "TB_ACCESS_TOKEN": "DEVICE-TOKEN"}


@pytest.fixture
def ca_file(authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


async def test_working_connection_has_good_findings(tb_mqtt, emulator, device):
    emulator.limits = SessionLimits(rate_limits=RateLimits("200:1", "100:1,3000:60", None))
    done = await tb_mqtt("doctor", env=device)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert (
        lines[0]
        == f"✓ settings      127.0.0.1:{emulator.port} without TLS (from the environment); access token from the environment"
    )
    assert "✓ protocol      MQTT 5" in lines
    assert "✓ credentials   accepted" in lines
    assert "✓ limits        messages 200:1, telemetryMessages 100:1,3000:60 (count:seconds, of which the client uses 80 %)" in lines
    size = "max packet 65,536 bytes (telemetry payload 65,507); a 65,280-byte test packet got through"
    assert f"✓ payload size  {size}" in lines
    assert lines[-1] == "✓ the connection works"
    # Nothing is stored on the server.
    assert emulator.counters.data_publishes == 0


async def test_gateway_is_reported_with_its_limits(tb_mqtt, emulator, gateway):
    emulator.limits = SessionLimits(gateway_rate_limits=RateLimits("50:1"))
    findings = await examined(tb_mqtt, env=gateway)
    assert findings["credentials"]["finding"] == "accepted; the device is a gateway"
    assert findings["limits"]["finding"].startswith("unlimited; its sub-devices together: messages 50:1")


async def test_mqtt_3_1_1_is_a_warning(tb_mqtt, emulator, device):
    findings = await examined(tb_mqtt, "--mqtt-version", "3.1.1", env=device)
    assert findings["protocol"]["status"] == "warning"
    assert "looks acknowledged" in findings["protocol"]["advice"]


async def test_packet_limit_of_an_intermediary_is_found(tb_mqtt, emulator, device):
    """The platform announces 64 KiB, but an intermediary ends the connection after a packet of this size."""
    emulator.on_publish = lambda publish: Verdict.close() if publish.remaining_length > 32_000 else None
    step, finding, advice = failure(await examined(tb_mqtt, env=device))
    assert (step, "a 65,280-byte test packet ended the connection" in finding) == ("payload size", True)
    assert "load balancer" in advice


async def test_server_that_announces_no_limits_is_a_warning(tb_mqtt, tmp_path):
    async with Emulator(limits=None) as emulator:
        emulator.add_device("DEVICE-TOKEN", "device")
        (tmp_path / "tb.toml").write_text("limits_timeout = 0.2")
        findings = await examined(tb_mqtt, "--config", str(tmp_path / "tb.toml"), env=at(emulator, "127.0.0.1"))
    assert (findings["limits"]["status"], findings["payload size"]["status"]) == ("warning", "skipped")
    assert "before 3.8" in findings["limits"]["advice"]


async def test_unknown_host_name_is_found(tb_mqtt):
    findings = await examined(tb_mqtt, "--host", "nowhere.invalid", "--token", "x")
    step, finding, _ = failure(findings)
    assert (step, finding.startswith("the name 'nowhere.invalid' cannot be resolved")) == ("name", True)
    assert findings["TCP"] == {
        "server": "nowhere.invalid:1883",
        "step": "TCP",
        "status": "skipped",
        "finding": "not tried",
        "advice": "",
        "topic": None,
    }


async def test_closed_port_is_found(tb_mqtt):
    step, finding, advice = failure(await examined(tb_mqtt, "--host", "127.0.0.1", "--port", "1", "--token", "x"))
    assert (step, finding) == ("TCP", "nothing listens on port 1 (127.0.0.1)")
    assert "8883 with TLS" in advice


async def test_wrong_token_is_found(tb_mqtt, emulator, device):
    for version in ("5", "3.1.1"):
        findings = await examined(tb_mqtt, "--token", "wrong", "--mqtt-version", version, env=device)
        step, finding, advice = failure(findings)
        assert step == "credentials"
        assert "the server has no device with these credentials" in finding
        assert "Manage credentials" in advice
        assert findings["protocol"]["finding"].startswith(f"MQTT {version}")


async def test_missing_credentials_are_found(tb_mqtt, emulator):
    findings = await examined(tb_mqtt, "--host", emulator.host, "--port", str(emulator.port))
    assert findings["settings"]["status"] == "warning"
    step, finding, advice = failure(findings)
    assert (step, "no user name was sent" in finding, "--token-file" in advice) == ("credentials", True, True)


async def test_session_takeover_is_found(tb_mqtt, emulator, device):
    """If two programs use the same token, the server reports the takeover to doctor."""

    async def take_over():
        await emulator.disconnect_device("DEVICE-TOKEN", 0x8E)

    tasks = []
    emulator.on_publish = lambda _publish: tasks.append(asyncio.ensure_future(take_over())) if not tasks else None
    step, finding, advice = failure(await examined(tb_mqtt, env=device))
    assert (step, finding) == ("credentials", "accepted, but another client with the same credentials took the session")
    assert "one device per program" in advice


async def test_working_tls_has_good_findings(tb_mqtt, authority, ca_file):
    async with tls_emulator(authority) as emulator:
        findings = await examined(tb_mqtt, "--ca-cert", ca_file, env=at(emulator))
    assert findings["TLS"]["status"] == "good"
    assert findings["TLS"]["finding"].startswith("TLSv1.3, ")
    assert "within the certificate's validity" in findings["clock"]["finding"]
    assert findings["credentials"]["status"] == "good"


async def test_certificate_that_expires_soon_is_a_warning(tb_mqtt, authority, ca_file):
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    async with tls_emulator(authority, not_after=soon) as emulator:
        findings = await examined(tb_mqtt, "--ca-cert", ca_file, env=at(emulator))
    assert (findings["TLS"]["status"], findings["TLS"]["advice"]) == ("warning", "it expires in 2 days: renew it")


async def test_untrusted_certificate_is_found(tb_mqtt, authority):
    async with tls_emulator(authority) as emulator:
        step, finding, advice = failure(await examined(tb_mqtt, "--tls", env=at(emulator)))
    assert (step, "signed by an untrusted authority" in finding, "--ca-cert FILE" in advice) == ("TLS", True, True)
    assert "for localhost, valid" in finding


async def test_certificate_of_another_authority_is_found(tb_mqtt, authority, ca_file):
    async with tls_emulator(trustme.CA()) as emulator:
        step, finding, advice = failure(await examined(tb_mqtt, "--ca-cert", ca_file, env=at(emulator)))
    assert (step, advice) == ("TLS", f"check that {ca_file} is the authority that signed it")
    assert "signed by an untrusted authority" in finding


@pytest.mark.parametrize(
    ("days", "finding", "advice"),
    [((-9, -2), "has expired", "clock if it is ahead"), ((2, 9), "is not valid yet", "clock, which is probably behind")],
)
async def test_certificate_outside_its_validity_is_found(tb_mqtt, authority, ca_file, days, finding, advice):
    now = datetime.datetime.now(datetime.UTC)
    first, last = (now + datetime.timedelta(days=day) for day in days)
    async with tls_emulator(authority, not_before=first, not_after=last) as emulator:
        findings = await examined(tb_mqtt, "--ca-cert", ca_file, env=at(emulator))
    step, found, advised = failure(findings)
    assert (step, finding in found, advice in advised) == ("TLS", True, True)
    assert f"valid {first:%Y-%m-%d} to {last:%Y-%m-%d}" in found
    assert findings["clock"]["finding"].startswith("this machine's clock shows ")


async def test_certificate_for_another_host_name_is_found(tb_mqtt, authority, ca_file):
    async with tls_emulator(authority, "platform.example", "10.1.2.3") as emulator:
        step, finding, advice = failure(await examined(tb_mqtt, "--ca-cert", ca_file, env=at(emulator)))
        assert (step, finding.startswith("the server's certificate is not for 'localhost'")) == ("TLS", True)
        assert "for platform.example, 10.1.2.3" in finding
        assert "--no-verify-hostname" in advice
        findings = await examined(tb_mqtt, "--ca-cert", ca_file, "--no-verify-hostname", env=at(emulator))
        assert (findings["TLS"]["status"], findings["credentials"]["status"]) == ("warning", "good")


async def test_tls_to_a_port_without_tls_is_found(tb_mqtt, emulator, device):
    step, finding, advice = failure(await examined(tb_mqtt, "--tls", env=device))
    assert step == "TLS"
    assert f"port {emulator.port} does not" in finding
    assert "turn TLS off" in advice


async def test_clear_text_to_a_port_with_tls_is_found(tb_mqtt, authority):
    async with tls_emulator(authority) as emulator:
        step, finding, advice = failure(await examined(tb_mqtt, env=at(emulator)))
    assert (step, finding) == ("protocol", f"port {emulator.port} requires TLS, but the client did not use it")
    assert "--ca-cert FILE" in advice


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", None])
async def test_port_of_another_service_is_found(tb_mqtt, other_service, greeting):
    async with other_service(greeting) as port:
        findings = await examined(tb_mqtt, "--host", "127.0.0.1", "--port", port, "--token", "x", "--connect-timeout", "1")
    step, _, advice = failure(findings)
    assert step == "protocol"
    assert "check that this is an MQTT port" in advice


async def test_general_broker_is_examined(tb_mqtt, mosquitto, tmp_path):
    """A general broker accepts every client, and announces no limits."""
    (tmp_path / "tb.toml").write_text("limits_timeout = 0.2")
    common = ("--config", str(tmp_path / "tb.toml"), "--host", mosquitto.host)
    findings = await examined(tb_mqtt, *common, "--port", str(mosquitto.port))
    assert (findings["credentials"]["status"], findings["limits"]["status"]) == ("warning", "warning")
    findings = await examined(tb_mqtt, *common, "--port", str(mosquitto.tls_port), "--ca-cert", str(mosquitto.certificates.ca))
    assert findings["TLS"]["status"] == "good"
    step, _, _ = failure(await examined(tb_mqtt, *common, "--port", str(mosquitto.port), "--tls"))
    assert step == "TLS"
    step, finding, _ = failure(await examined(tb_mqtt, *common, "--port", str(mosquitto.tls_port)))
    assert (step, "requires TLS" in finding) == ("protocol", True)


async def test_server_that_requires_a_client_certificate_is_found(tb_mqtt, mosquitto, tmp_path):
    certificates = mosquitto.certificates
    (tmp_path / "tb.toml").write_text("limits_timeout = 0.2")
    common = ("--config", str(tmp_path / "tb.toml"), "--host", mosquitto.host, "--port", str(mosquitto.mtls_port))
    common += ("--ca-cert", str(certificates.ca))
    step, finding, advice = failure(await examined(tb_mqtt, *common))
    assert (step, "rejected this client in the TLS handshake" in finding) == ("TLS", True)
    assert "--client-cert FILE" in advice
    own_certificate = ("--client-cert", str(certificates.client_cert), "--private-key", str(certificates.client_key))
    findings = await examined(tb_mqtt, *common, *own_certificate)
    assert "a certificate of this client" in findings["settings"]["finding"]
    assert findings["credentials"]["status"] == "good"


def test_impossible_clock_is_found():
    finding = clock_finding(datetime.datetime(1970, 1, 1, 0, 3, tzinfo=datetime.UTC), None)
    assert (finding.status, "which is wrong" in finding.finding) == ("bad", True)


def test_null_or_empty_limits_are_reported_as_unlimited():
    limits = {"announced": True, "device": {"messages": None, "telemetryMessages": ""}, "gateway": {}}
    assert limits_finding({"limits": limits}, 80).finding == "unlimited"


async def test_each_of_several_servers_is_examined(tb_mqtt, emulator, device):
    hosts = {"TB_HOST": f"127.0.0.1:1,127.0.0.1:{emulator.port}"}
    done = await tb_mqtt("doctor", "--json", env=device | hosts)
    assert done.code == 1
    findings = {(finding["server"], finding["step"]): finding for finding in done.json["findings"]}
    assert findings["127.0.0.1:1", "TCP"]["status"] == "bad"
    assert findings[f"127.0.0.1:{emulator.port}", "credentials"]["status"] == "good"
    done = await tb_mqtt("doctor", env=device | hosts)
    lines = done.out.splitlines()
    assert lines.index("127.0.0.1:1:") < lines.index(f"127.0.0.1:{emulator.port}:")


async def test_unresponsive_address_is_a_warning(monkeypatch, emulator):
    """doctor examines all addresses, while a client continues with the next one."""
    monkeypatch.setattr(checks, "STEP_SECONDS", 0.2)
    settings = load(ConnectionOptions(host="tb.test", port=emulator.port, token="DEVICE-TOKEN"), Redactor())
    with swallowing_address() as swallowing:
        resolve_as(monkeypatch, {"tb.test": [swallowing, (emulator.host, emulator.port)]})
        [server] = settings.config.servers()
        findings = {finding.step: finding async for finding in checks.Examination(settings, server).findings()}
    assert findings["name"].finding == "tb.test is 127.0.0.2, 127.0.0.1"
    assert findings["TCP"].status == "warning"
    assert "127.0.0.1 accepts connections on port" in findings["TCP"].finding
    assert "127.0.0.2: the server did not respond within 0.2 s" in findings["TCP"].finding
    assert findings["credentials"].status == "good"


async def test_connection_through_a_proxy_is_examined(tb_mqtt, emulator, device):
    async with running(HttpProxy("user:hunter2")) as proxy:
        findings = await examined(tb_mqtt, env=device | {"TB_PROXY": f"http://user:hunter2@127.0.0.1:{proxy.port}"})
        assert (findings["name"]["status"], findings["name"]["finding"]) == ("skipped", "the proxy resolves it")
        assert findings["TCP"]["finding"] == f"http://127.0.0.1:{proxy.port} connects to 127.0.0.1:{emulator.port}"
        assert findings["credentials"]["status"] == "good"
        assert f"through http://127.0.0.1:{proxy.port}" in findings["settings"]["finding"]
        step, finding, advice = failure(await examined(tb_mqtt, "--proxy", f"http://127.0.0.1:{proxy.port}", env=device))
        assert (step, "407 Proxy Authentication Required" in finding) == ("TCP", True)
        assert "--proxy URL is http://user:password@host:port" in advice
    step, finding, _ = failure(await examined(tb_mqtt, "--proxy", "http://127.0.0.1:1", env=device))
    assert (step, "the proxy http://127.0.0.1:1 cannot be reached" in finding) == ("TCP", True)


async def test_tls_through_a_proxy_is_examined(tb_mqtt, authority, ca_file):
    async with tls_emulator(authority) as emulator, running(HttpProxy()) as proxy:
        arguments = "--ca-cert", ca_file, "--proxy", f"http://127.0.0.1:{proxy.port}"
        findings = await examined(tb_mqtt, *arguments, env=at(emulator))
        assert findings["TLS"]["status"] == findings["credentials"]["status"] == "good"


async def test_passwords_of_proxies_and_keys_are_never_printed(tb_mqtt, emulator, device, tmp_path):
    for url in ("http://user:hunter2@127.0.0.1:1", "htp://user:hunter2@h", "http://user:hunter2@h:port"):
        for arguments, environment in (((), {"TB_PROXY": url}), (("--proxy", url), {})):
            done = await tb_mqtt("doctor", "-vv", *arguments, env=device | environment)
            assert done.code in {1, 2}
            assert "hunter2" not in done.out + done.err
    (tmp_path / "password").write_text("hunter2")
    done = await tb_mqtt("doctor", "-vv", "--private-key-password-file", str(tmp_path / "password"), env=device)
    assert "hunter2" not in done.out + done.err
