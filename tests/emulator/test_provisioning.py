"""Provisioning over real sockets: what is asked, what becomes of each answer, and that nothing is left open."""

import asyncio
import json
import ssl

import pytest
import trustme

from faulty_link import FaultyLink
from tb_mqtt_client import ConnectionLostError, ConnectionRefusedByServer, DeviceClient, TBMQTTError
from tb_mqtt_client.constants.provisioning import ProvisioningCredentialsType, ProvisioningResponseStatus
from tb_mqtt_client.emulator import BasicCredentials, ConnectVerdict, Emulator, Verdict
from tb_mqtt_client.emulator.session import Session
from tb_mqtt_client.entities.data.provisioning_request import (
    AccessTokenProvisioningCredentials,
    BasicProvisioningCredentials,
    ProvisioningRequest,
    X509ProvisioningCredentials,
)
from tb_mqtt_client.service.device.provisioning import ProvisioningClient

TOKEN = AccessTokenProvisioningCredentials("key", "secret")


class Profile:
    """A provision profile, and what is asked of it. ``answer`` replaces what the platform says, ``verdict`` what it does then."""

    def __init__(self, monkeypatch, emulator):
        emulator.add_provision_profile("key", "secret")
        self.asked = []
        self.answer = self.verdict = None
        self.was_asked = asyncio.Event()
        provision = Session._provision

        def judge(session, packet):
            subscribed = "/provision/response" in session.downlinks.subscriptions
            self.asked.append((json.loads(packet.payload), packet.topic, packet.qos, subscribed))
            self.was_asked.set()
            if self.verdict is None and self.answer is None:
                provision(session, packet)
                return
            if self.answer is not None:
                session.send("/provision/response", self.answer)
            if self.verdict is not None and self.verdict.acknowledges:
                session._acknowledge(packet, self.verdict.reason_code or 0)
            if self.verdict is not None and self.verdict.closes:
                session.close(self.verdict.disconnect_reason)

        monkeypatch.setattr(Session, "_provision", judge)


@pytest.fixture
def profile(monkeypatch, emulator):
    return Profile(monkeypatch, emulator)


@pytest.fixture(autouse=True)
async def nothing_is_left(emulator):
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await all_ended(emulator)


async def all_ended(emulator):
    """The emulator hears of the end a little later than the client that made it."""
    async with asyncio.timeout(10):
        for open_session in list(emulator._sessions):
            await open_session.ended.wait()


def request(at, credentials=TOKEN, **options):
    return ProvisioningRequest(at.host, credentials, at.port, **options)


async def test_a_token_that_connects_the_device(emulator, profile):
    response = await DeviceClient.provision(request(emulator, device_name="thermometer"))
    assert response.status is ProvisioningResponseStatus.SUCCESS
    client = DeviceClient(response.result)
    await client.connect()
    assert (await client.send_timeseries({"a": 1})).is_successful()
    await client.stop()
    expected = {
        "provisionDeviceKey": "key",
        "provisionDeviceSecret": "secret",
        "deviceName": "thermometer",
        "credentialsType": "ACCESS_TOKEN",
    }
    assert profile.asked == [(expected, "/provision/request", 1, True)]
    assert emulator.device("thermometer").counters.telemetry_datapoints == 1


@pytest.mark.parametrize("gateway", [False, True])
async def test_a_wanted_token(emulator, profile, gateway):
    credentials = AccessTokenProvisioningCredentials("key", "secret", "wanted")
    response = await DeviceClient.provision(request(emulator, credentials, device_name="named", gateway=gateway))
    assert response.result.access_token == "wanted"
    assert emulator.device("named").is_gateway is gateway


async def test_wanted_basic_credentials(emulator, profile):
    credentials = BasicProvisioningCredentials("key", "secret", "id", "user", "word")
    response = await DeviceClient.provision(request(emulator, credentials))
    config = response.result
    assert (config.client_id, config.username, config.password, config.access_token) == ("id", "user", "word", None)
    client = DeviceClient(config)
    await client.connect()
    await client.stop()


async def test_contract_9_provisioning_a_device_that_was_there_keeps_its_credentials(emulator, profile):
    """The reply tells the actual type, which is another one than was asked for."""
    emulator.add_provision_profile("check", "secret", strategy="CHECK_PRE_PROVISIONED_DEVICES", profile="meter")
    emulator.add_device(BasicCredentials(username="user"), "meter 7", profile="meter")
    credentials = AccessTokenProvisioningCredentials("check", "secret", "wanted")
    response = await DeviceClient.provision(request(emulator, credentials, device_name="meter 7"))
    assert response.credentials_type is ProvisioningCredentialsType.MQTT_BASIC
    assert (response.result.username, response.result.password, response.result.access_token) == ("user", None, None)
    client = DeviceClient(response.result)
    await client.connect()
    await client.stop()
    again = await DeviceClient.provision(request(emulator, credentials, device_name="meter 7"))
    assert (again.status, again.error) == (ProvisioningResponseStatus.ERROR, "Failed to provision device!")


async def test_no_log_has_the_credentials_that_the_platform_gives(emulator, profile, caplog):
    caplog.set_level(1)
    response = await DeviceClient.provision(request(emulator))
    assert response.result.access_token
    assert response.result.access_token not in caplog.text
    assert "RECV /provision/response" in caplog.text


async def test_the_published_client(emulator, profile):
    response = await ProvisioningClient(emulator.host, emulator.port, request(emulator)).provision()
    assert response.result.access_token
    assert len(profile.asked) == 1


async def test_contract_9_provisioning_not_found_is_no_failure(emulator, profile):
    response = await DeviceClient.provision(request(emulator, AccessTokenProvisioningCredentials("key", "wrong")))
    assert (response.status, response.error) == (ProvisioningResponseStatus.NOT_FOUND, "Provision data was not found!")
    failed = await DeviceClient.provision(request(emulator, device_name="device"))
    assert (failed.status, failed.error) == (ProvisioningResponseStatus.ERROR, "Failed to provision device!")


async def test_an_answer_that_cannot_be_read(emulator, profile):
    profile.answer = b"\x00garbage"
    response = await DeviceClient.provision(request(emulator))
    assert response.status is ProvisioningResponseStatus.ERROR
    assert "cannot be read" in response.error


async def test_defect_66_closed_after_a_timeout(emulator, profile):
    profile.verdict = Verdict.acknowledge()
    assert await DeviceClient.provision(request(emulator), timeout=0.05) is None
    assert len(profile.asked) == 1


async def test_defect_66_closed_when_cancelled(emulator, profile):
    profile.verdict = Verdict.acknowledge()
    task = asyncio.create_task(DeviceClient.provision(request(emulator), timeout=None))
    await profile.was_asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_defect_66_the_request_waits_for_the_suback(emulator, profile):
    """A server that never grants the subscription is never asked."""
    async with FaultyLink(emulator.host, emulator.port, lambda _: (None, 5)) as link:  # bytes of the CONNACK
        with pytest.raises(ConnectionLostError):
            await DeviceClient.provision(request(link), timeout=None)
    assert profile.asked == []


@pytest.mark.parametrize("secret", ["", "secret"])
async def test_defect_66_an_invalid_request_raises_at_the_call(emulator, secret):
    credentials = AccessTokenProvisioningCredentials("" if secret else "key", secret)
    with pytest.raises(ValueError, match="must have valid device key and secret"):
        await DeviceClient.provision(request(emulator, credentials), timeout=None)
    assert emulator.counters.connections == 0


@pytest.mark.parametrize("wrong", [None, {}, "request"])
async def test_something_else_than_a_request(wrong):
    with pytest.raises(TypeError, match=r"^provision_request must be a ProvisioningRequest"):
        await DeviceClient.provision(wrong)


async def test_a_publish_that_is_refused(emulator, profile):
    """As by a server that lacks the topic; no waiting for an answer that cannot come."""
    profile.verdict = Verdict.refuse(0x90)
    with pytest.raises(TBMQTTError, match="Topic Name invalid"):
        await DeviceClient.provision(request(emulator), timeout=None)


async def test_a_connection_that_ends_without_an_answer(emulator, profile):
    profile.verdict = Verdict.close(0x83)
    with pytest.raises(ConnectionLostError, match="Implementation specific error"):
        await DeviceClient.provision(request(emulator), timeout=None)


async def test_a_server_that_refuses_the_connection(emulator):
    emulator.on_connect = lambda _: ConnectVerdict.refuse(0x86)
    with pytest.raises(ConnectionRefusedByServer):
        await DeviceClient.provision(request(emulator), timeout=None)


async def test_no_server(unused_tcp_port):
    with pytest.raises(ConnectionRefusedError):
        await DeviceClient.provision(ProvisioningRequest("127.0.0.1", TOKEN, unused_tcp_port))


async def test_a_server_that_says_nothing(emulator):
    emulator.on_connect = lambda _: ConnectVerdict.ignore()
    assert await DeviceClient.provision(request(emulator), timeout=0.05) is None


async def test_mqtt_3_1_1_is_used_with_an_older_server(emulator, profile):
    """The fallback is the connection's own, as for a device."""
    versions = []

    def judge(attempt):
        versions.append(attempt.version)
        return ConnectVerdict.refuse(0x84) if attempt.version == 5 else None

    emulator.on_connect = judge
    assert (await DeviceClient.provision(request(emulator))).status is ProvisioningResponseStatus.SUCCESS
    assert versions == [5, 4]


async def test_a_wrong_environment_is_told_before_anything_is_asked(emulator, profile, monkeypatch):
    """After the answer it would be too late: a token that is made is told once."""
    monkeypatch.setenv("TB_QOS", "x")
    with pytest.raises(ValueError, match="TB_QOS"):
        await DeviceClient.provision(request(emulator))
    assert profile.asked == []


class TestTls:
    @pytest.fixture
    def files(self, tmp_path):
        authority = trustme.CA()
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(server)
        # As the platform: a certificate is welcome, and not needed.
        server.verify_mode = ssl.CERT_OPTIONAL
        authority.configure_trust(server)
        device = authority.issue_cert("device@example.org")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        device.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        device.private_key_pem.write_to_path(tmp_path / "key.pem")
        return server, tmp_path

    @pytest.fixture
    async def encrypted(self, files):
        async with Emulator(ssl_context=files[0]) as emulator:
            emulator.add_provision_profile("key", "secret")
            yield emulator
            await all_ended(emulator)

    async def test_with_an_authority(self, encrypted, files):
        response = await DeviceClient.provision(request(encrypted, ca_cert=str(files[1] / "ca.pem")))
        client = DeviceClient(response.result)
        await client.connect()
        await client.stop()
        assert response.result.use_tls()

    async def test_the_authority_of_x509_credentials(self, encrypted, files):
        """The device connects with its certificate afterwards."""
        paths = [str(files[1] / name) for name in ("key.pem", "cert.pem", "ca.pem")]
        credentials = X509ProvisioningCredentials("key", "secret", *paths)
        response = await DeviceClient.provision(request(encrypted, credentials, tls=True, device_name="certified"))
        config = response.result
        assert response.credentials_type is ProvisioningCredentialsType.X509_CERTIFICATE
        assert [config.private_key, config.client_cert, config.ca_cert] == paths
        client = DeviceClient(config)
        await client.connect()
        assert (await client.send_timeseries({"a": 1})).is_successful()
        await client.stop()
        assert encrypted.device("certified").counters.telemetry_datapoints == 1

    async def test_an_unknown_authority_is_refused(self, encrypted):
        with pytest.raises(ssl.SSLCertVerificationError):
            await DeviceClient.provision(request(encrypted, tls=True))

    async def test_a_missing_authority_is_told(self, encrypted):
        with pytest.raises(FileNotFoundError, match="ca_cert"):
            await DeviceClient.provision(request(encrypted, ca_cert="missing.pem"))
