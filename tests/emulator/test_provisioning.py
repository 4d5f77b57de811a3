"""Provisioning over real sockets: requests, the result of each response, and no task or connection left behind."""

import asyncio
import json
import ssl

import pytest
import trustme

from faulty_link import FaultyLink
from network_peers import free_ports
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
    """A provision profile that records requests. ``response`` replaces the response; ``verdict`` is applied after it."""

    def __init__(self, monkeypatch, emulator):
        emulator.add_provision_profile("key", "secret")
        self.requested = []
        self.response = self.verdict = None
        self.was_requested = asyncio.Event()
        provision = Session._provision

        def judge(session, packet):
            subscribed = "/provision/response" in session.downlinks.subscriptions
            self.requested.append((json.loads(packet.payload), packet.topic, packet.qos, subscribed))
            self.was_requested.set()
            if self.verdict is None and self.response is None:
                provision(session, packet)
                return
            if self.response is not None:
                session.send("/provision/response", self.response)
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
    """Wait until the emulator has noticed the end of all connections."""
    async with asyncio.timeout(10):
        for open_session in list(emulator._sessions):
            await open_session.ended.wait()


def request(at, credentials=TOKEN, **options):
    return ProvisioningRequest(at.host, credentials, at.port, **options)


async def test_the_provisioned_token_connects_the_device(emulator, profile):
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
    assert profile.requested == [(expected, "/provision/request", 1, True)]
    assert emulator.device("thermometer").counters.telemetry_datapoints == 1


@pytest.mark.parametrize("gateway", [False, True])
async def test_the_token_of_the_request_is_used(emulator, profile, gateway):
    credentials = AccessTokenProvisioningCredentials("key", "secret", "wanted")
    response = await DeviceClient.provision(request(emulator, credentials, device_name="named", gateway=gateway))
    assert response.result.access_token == "wanted"
    assert emulator.device("named").is_gateway is gateway


async def test_the_basic_credentials_of_the_request_are_used(emulator, profile):
    credentials = BasicProvisioningCredentials("key", "secret", "id", "user", "word")
    response = await DeviceClient.provision(request(emulator, credentials))
    config = response.result
    assert (config.client_id, config.username, config.password, config.access_token) == ("id", "user", "word", None)
    client = DeviceClient(config)
    await client.connect()
    await client.stop()


async def test_contract_9_provisioning_an_existing_device_keeps_its_credentials(emulator, profile):
    """The response has the type of these credentials, which is not the requested one."""
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


async def test_provisioned_credentials_are_not_logged(emulator, profile, caplog):
    caplog.set_level(1)
    response = await DeviceClient.provision(request(emulator))
    assert response.result.access_token
    assert response.result.access_token not in caplog.text
    assert "RECV /provision/response" in caplog.text


async def test_the_provisioning_client_of_sdk_2_works(emulator, profile):
    response = await ProvisioningClient(emulator.host, emulator.port, request(emulator)).provision()
    assert response.result.access_token
    assert len(profile.requested) == 1


async def test_contract_9_provisioning_not_found_is_not_reported_as_a_failure(emulator, profile):
    response = await DeviceClient.provision(request(emulator, AccessTokenProvisioningCredentials("key", "wrong")))
    assert (response.status, response.error) == (ProvisioningResponseStatus.NOT_FOUND, "Provision data was not found!")
    failed = await DeviceClient.provision(request(emulator, device_name="device"))
    assert (failed.status, failed.error) == (ProvisioningResponseStatus.ERROR, "Failed to provision device!")


async def test_an_unreadable_response_is_an_error(emulator, profile):
    profile.response = b"\x00garbage"
    response = await DeviceClient.provision(request(emulator))
    assert response.status is ProvisioningResponseStatus.ERROR
    assert "cannot be read" in response.error


async def test_defect_66_the_connection_is_closed_after_a_timeout(emulator, profile):
    profile.verdict = Verdict.acknowledge()
    assert await DeviceClient.provision(request(emulator), timeout=1) is None
    assert len(profile.requested) == 1


async def test_defect_66_the_connection_is_closed_after_a_cancellation(emulator, profile):
    profile.verdict = Verdict.acknowledge()
    task = asyncio.create_task(DeviceClient.provision(request(emulator), timeout=None))
    await profile.was_requested.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_defect_66_the_request_waits_for_the_suback(emulator, profile):
    """Nothing is requested from a server that does not acknowledge the subscription."""
    async with FaultyLink(emulator.host, emulator.port, lambda _: (None, 5)) as link:  # the size of the CONNACK
        with pytest.raises(ConnectionLostError):
            await DeviceClient.provision(request(link), timeout=None)
    assert profile.requested == []


@pytest.mark.parametrize("secret", ["", "secret"])
async def test_defect_66_an_invalid_request_raises_at_the_call(emulator, secret):
    credentials = AccessTokenProvisioningCredentials("" if secret else "key", secret)
    with pytest.raises(ValueError, match="must have valid device key and secret"):
        await DeviceClient.provision(request(emulator, credentials), timeout=None)
    assert emulator.counters.connections == 0


@pytest.mark.parametrize("wrong", [None, {}, "request"])
async def test_an_argument_that_is_not_a_request_is_refused(wrong):
    with pytest.raises(TypeError, match=r"^provision_request must be a ProvisioningRequest"):
        await DeviceClient.provision(wrong)


async def test_a_refused_request_raises_at_once(emulator, profile):
    """Servers without provisioning refuse the topic, and would not respond."""
    profile.verdict = Verdict.refuse(0x90)
    with pytest.raises(TBMQTTError, match="Topic Name invalid"):
        await DeviceClient.provision(request(emulator), timeout=None)


async def test_a_connection_that_ends_without_a_response_is_lost(emulator, profile):
    profile.verdict = Verdict.close(0x83)
    with pytest.raises(ConnectionLostError, match="Implementation specific error"):
        await DeviceClient.provision(request(emulator), timeout=None)


async def test_a_refused_connection_raises(emulator):
    emulator.on_connect = lambda _: ConnectVerdict.refuse(0x86)
    with pytest.raises(ConnectionRefusedByServer):
        await DeviceClient.provision(request(emulator), timeout=None)


async def test_a_closed_port_raises():
    [port] = free_ports(1)
    with pytest.raises(ConnectionRefusedError):
        await DeviceClient.provision(ProvisioningRequest("127.0.0.1", TOKEN, port))


async def test_a_silent_server_leads_to_a_timeout(emulator):
    emulator.on_connect = lambda _: ConnectVerdict.ignore()
    assert await DeviceClient.provision(request(emulator), timeout=0.05) is None


async def test_mqtt_3_1_1_is_used_if_the_server_refuses_mqtt_5(emulator, profile):
    """The connection does this, as for a device."""
    versions = []

    def judge(attempt):
        versions.append(attempt.version)
        return ConnectVerdict.refuse(0x84) if attempt.version == 5 else None

    emulator.on_connect = judge
    assert (await DeviceClient.provision(request(emulator))).status is ProvisioningResponseStatus.SUCCESS
    assert versions == [5, 4]


async def test_an_invalid_environment_variable_is_reported_before_the_request(emulator, profile, monkeypatch):
    """After the response it would be too late: the platform sends a created token only once."""
    monkeypatch.setenv("TB_QOS", "x")
    with pytest.raises(ValueError, match="TB_QOS"):
        await DeviceClient.provision(request(emulator))
    assert profile.requested == []


class TestTls:
    @pytest.fixture
    def files(self, tmp_path):
        authority = trustme.CA()
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(server)
        # Like the platform, the server accepts clients with and without a certificate.
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

    async def test_the_authority_of_the_request_is_used(self, encrypted, files):
        response = await DeviceClient.provision(request(encrypted, ca_cert=str(files[1] / "ca.pem")))
        client = DeviceClient(response.result)
        await client.connect()
        await client.stop()
        assert response.result.use_tls()

    async def test_the_authority_of_x509_credentials_is_used(self, encrypted, files):
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

    async def test_a_missing_authority_file_is_named(self, encrypted):
        with pytest.raises(FileNotFoundError, match="ca_cert"):
            await DeviceClient.provision(request(encrypted, ca_cert="missing.pem"))
