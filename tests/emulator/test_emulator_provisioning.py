"""Device provisioning and certificates in the emulator (docs/platform_contract.md, sections 1 and 6)."""

import json
import ssl

import pytest
import trustme
from raw_mqtt import raw_client

from tb_mqtt_client.emulator import BasicCredentials, Emulator, X509Credentials

KEYS = {"provisionDeviceKey": "key", "provisionDeviceSecret": "secret"}
NOT_FOUND = {"errorMsg": "Provision data was not found!", "status": "NOT_FOUND"}
FAILURE = {"errorMsg": "Failed to provision device!", "status": "FAILURE"}


@pytest.fixture
async def platform():
    async with Emulator() as emulator:
        emulator.add_provision_profile("key", "secret", profile="meter")
        emulator.add_provision_profile("known", "secret", strategy="CHECK_PRE_PROVISIONED_DEVICES", profile="meter")
        emulator.add_provision_profile("off", "secret", strategy="DISABLED")
        yield emulator


async def provision(emulator, request, **options):
    async with raw_client(emulator, **options) as client:
        assert (await client.connect("provision"))[1][1] == 0
        topic, reply = await client.request("/provision/request", request)
        assert topic == "/provision/response"
        return reply


async def connects(emulator, token, **options):
    async with raw_client(emulator) as client:
        return (await client.connect(token, **options))[1][1] == 0


@pytest.mark.parametrize("options", [{"token": "provision"}, {"token": None, "client_id": "provision"}])
async def test_clients_that_may_provision(platform, options):
    async with raw_client(platform) as client:
        assert (await client.connect(**options))[1][1] == 0
        assert await client.subscribe("/provision/response") == (0x90, b"\0\x01\0\x01")
        assert (await client.request("/provision/request", KEYS))[1]["status"] == "SUCCESS"
        assert await client.silent()
        client.write(b"\xe0\x02\0\0")
        assert await client.read() == (0xE0, b"")


async def test_access_tokens(platform):
    """Token and name are random unless the request has them."""
    reply = await provision(platform, KEYS | {"deviceName": "one", "credentialsType": "ACCESS_TOKEN", "token": "mine"})
    assert reply == {"credentialsType": "ACCESS_TOKEN", "credentialsValue": "mine", "status": "SUCCESS"}
    assert await connects(platform, "mine")
    assert (platform.device("one").profile, platform.device("one").is_gateway) == ("meter", False)
    reply = await provision(platform, KEYS)
    assert reply["credentialsType"] == "ACCESS_TOKEN"
    assert len(reply["credentialsValue"]) == len(platform.device(reply["credentialsValue"]).name) == 20
    assert await connects(platform, reply["credentialsValue"])


async def test_basic_credentials(platform):
    basic = {"credentialsType": "MQTT_BASIC", "clientId": "id", "username": "user", "password": "pass"}
    reply = await provision(platform, KEYS | basic)
    value = {"clientId": "id", "userName": "user", "password": "pass"}
    assert reply == {"credentialsType": "MQTT_BASIC", "credentialsValue": value, "status": "SUCCESS"}
    assert await connects(platform, "user", client_id="id", password="pass")
    assert not await connects(platform, "user", client_id="id", password="wrong")
    reply = await provision(platform, KEYS | {"credentialsType": "MQTT_BASIC", "clientId": "other"})
    assert reply["credentialsValue"] == {"clientId": "other", "userName": None, "password": None}
    assert await connects(platform, None, client_id="other")


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        ({"provisionDeviceKey": "wrong"}, NOT_FOUND),
        ({"provisionDeviceSecret": "wrong"}, NOT_FOUND),
        ({"provisionDeviceKey": "off"}, NOT_FOUND),
        ({"deviceName": "taken"}, FAILURE),
        ({"token": "TAKEN"}, FAILURE),
        ({"credentialsType": "MQTT_BASIC"}, FAILURE),
        ({"credentialsType": "X509_CERTIFICATE", "hash": "no certificate"}, FAILURE),
        ({"provisionDeviceKey": "known"}, FAILURE),
        ({"provisionDeviceKey": "known", "deviceName": "unknown"}, FAILURE),
        # A device with another profile.
        ({"provisionDeviceKey": "known", "deviceName": "taken"}, FAILURE),
    ],
)
async def test_refusals(platform, request_, reply):
    platform.add_device("TAKEN", "taken")
    assert await provision(platform, KEYS | request_) == reply


@pytest.mark.parametrize(
    ("credentials", "kind", "value"),
    [
        ("TOKEN", "ACCESS_TOKEN", "TOKEN"),
        (BasicCredentials("id"), "MQTT_BASIC", {"clientId": "id", "userName": None, "password": None}),
    ],
)
async def test_pre_provisioned_devices(platform, credentials, kind, value):
    """The response has the existing credentials of the device, and only the first request succeeds."""
    platform.add_device(credentials, "device", profile="meter")
    request = KEYS | {"provisionDeviceKey": "known", "deviceName": "device", "credentialsType": "ACCESS_TOKEN", "token": "other"}
    assert await provision(platform, request) == {"credentialsType": kind, "credentialsValue": value, "status": "SUCCESS"}
    assert await provision(platform, request) == FAILURE


@pytest.mark.parametrize(("version", "gateway"), [("4.3", True), ("3.8", True), ("3.7", False)])
async def test_gateways(version, gateway):
    async with Emulator(version=version) as emulator:
        emulator.add_provision_profile("key", "secret")
        await provision(emulator, KEYS | {"deviceName": "device", "gateway": True})
        assert emulator.device("device").is_gateway is gateway


@pytest.mark.parametrize(
    "request_",
    [{}, [], "text", {"provisionDeviceKey": "key"}, {"provisionDeviceSecret": "secret"}, KEYS | {"provisionDeviceKey": ""}],
)
async def test_key_and_secret_are_required(platform, request_):
    async with raw_client(platform) as client:
        await client.connect("provision")
        client.publish("/provision/request", json.dumps(request_))
        assert await client.read() == (0x40, b"\0\x01\x83\0")
        assert await client.read() == (0xE0, b"\x83\0")
        assert await client.read() is None


async def test_a_request_must_be_json(platform):
    async with raw_client(platform) as client:
        await client.connect("provision")
        client.publish("/provision/request", "nonsense")
        assert await client.read() == (0x40, b"\0\x01\x99\0")


@pytest.mark.parametrize("topic", ["/provision", "v1/devices/me/telemetry"])
async def test_other_topics(platform, topic):
    async with raw_client(platform) as client:
        await client.connect("provision")
        client.publish(topic, json.dumps(KEYS))
        assert await client.read() == (0x40, b"\0\x01\x90\0")
        assert await client.read() == (0xE0, b"\x90\0")
        assert await client.read() is None


async def test_provisioning_needs_a_provisioning_session(platform):
    platform.add_device("TOKEN")
    async with raw_client(platform) as client:
        await client.connect()
        client.publish("/provision/request", json.dumps(KEYS))
        assert await client.read() == (0x40, b"\0\x01\x90\0")


async def test_the_connection_closes_after_the_response():
    async with Emulator(provision_timeout=0.01) as emulator, raw_client(emulator) as client:
        await client.connect("provision")
        await client.request("/provision/request", KEYS)
        assert await client.read() is None


@pytest.mark.parametrize(
    ("arguments", "match"),
    [(("key", "other"), "already in use"), (("", "secret"), "is empty"), (("new", "secret", "SOMETIMES"), "strategy must be")],
)
async def test_invalid_profiles(platform, arguments, match):
    key, secret, *strategy = arguments
    with pytest.raises(ValueError, match=match):
        platform.add_provision_profile(key, secret, **({"strategy": strategy[0]} if strategy else {}))


@pytest.fixture
async def tls_platform():
    """Yield an emulator with TLS that trusts one client authority, and a function that creates client contexts."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL

    def client_context(certificate=None):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        return context

    async with Emulator(ssl_context=context) as emulator:
        emulator.add_provision_profile("key", "secret")
        yield emulator, authority, client_context


async def test_certificates(tls_platform):
    """Section 1: a known certificate identifies the client independently of the user name; an unknown one is refused with 0x87."""
    emulator, authority, client_context = tls_platform
    known, unknown = authority.issue_cert("known"), authority.issue_cert("unknown")
    pem = known.cert_chain_pems[0].bytes().decode()
    emulator.add_device(X509Credentials(pem), "device")
    emulator.add_device("TOKEN", "other")
    for certificate, code, name in [(known, 0, "device"), (unknown, 0x87, None), (None, 0, "other")]:
        async with raw_client(emulator, ssl=client_context(certificate)) as client:
            assert (await client.connect())[1][1] == code
            assert [one.name for one in emulator.devices.values() if one.connected] == ([name] if name else [])
            client.write(b"\xe0\x02\0\0")
            while await client.read() is not None:
                pass
    async with raw_client(emulator, 4, ssl=client_context(unknown)) as client:
        assert (await client.connect())[1][1] == 5


async def test_provisioned_certificates(tls_platform):
    emulator, authority, client_context = tls_platform
    certificate = authority.issue_cert("new-device")
    pem = certificate.cert_chain_pems[0].bytes().decode()
    request = KEYS | {"deviceName": "new", "credentialsType": "X509_CERTIFICATE", "hash": pem}
    reply = await provision(emulator, request, ssl=client_context())
    assert reply == {"credentialsType": "X509_CERTIFICATE", "credentialsValue": pem, "status": "SUCCESS"}
    async with raw_client(emulator, ssl=client_context(certificate)) as client:
        assert (await client.connect(None))[1][1] == 0
        assert emulator.device("new").connected


def test_invalid_certificates():
    emulator = Emulator()
    with pytest.raises(ValueError, match="PEM"):
        emulator.add_device(X509Credentials("nonsense"), "device")
    pem = trustme.CA().cert_pem.bytes().decode()
    with pytest.raises(ValueError, match="needs a name"):
        emulator.add_device(X509Credentials(pem))
    emulator.add_device(X509Credentials(pem), "device")
    with pytest.raises(ValueError, match="already in use"):
        emulator.add_device(X509Credentials(pem), "device 2")
