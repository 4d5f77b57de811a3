"""Provisioning responses (docs/platform_contract.md, section 6) and firmware chunks (section 7)."""

import hashlib

import pytest
from probe import NOTHING, OK, disconnected, probe, refused

PROVISION = "/provision/request"
PROVISIONED = "/provision/response"
NOT_FOUND = {"errorMsg": "Provision data was not found!", "status": "NOT_FOUND"}
FAILURE = {"errorMsg": "Failed to provision device!", "status": "FAILURE"}


@pytest.fixture
async def keys(platform):
    return await platform.provisioning()


def keys_of(provisioning):
    return {"provisionDeviceKey": provisioning.key, "provisionDeviceSecret": provisioning.secret}


async def provision(platform, request, version=5):
    async with probe(platform, version=version) as client:
        assert await client.connect("provision") == 0
        await client.settle()
        assert await client.subscribe(PROVISIONED) == [1]
        received = await client.publish(PROVISION, request)
        if not received.messages and received.outcome == OK:
            received.messages.append(await client.message(PROVISIONED))
        return received


async def reply(platform, request, version=5):
    received = await provision(platform, request, version)
    assert received.outcome == OK
    [message] = received.messages
    assert message.topic == PROVISIONED
    return message.payload


@pytest.mark.parametrize("version", [4, 5])
async def test_a_new_device_gets_a_generated_token(platform, keys, version):
    name = platform.name("provisioned")
    response = await reply(platform, keys_of(keys) | {"deviceName": name}, version)
    token = response.pop("credentialsValue")
    assert response == {"credentialsType": "ACCESS_TOKEN", "status": "SUCCESS"}
    assert await platform.profile_of(name) == keys.profile
    async with probe(platform, token) as client:
        assert (await client.publish("v1/devices/me/telemetry", {"a": 1})).outcome == OK


async def test_a_device_may_choose_its_token(platform, keys):
    token = platform.name("token")
    request = keys_of(keys) | {"deviceName": platform.name("provisioned"), "credentialsType": "ACCESS_TOKEN", "token": token}
    response = await reply(platform, request)
    assert response == {"credentialsType": "ACCESS_TOKEN", "credentialsValue": token, "status": "SUCCESS"}


@pytest.mark.parametrize(
    "fields",
    [
        ("clientId", "username", "password"),
        pytest.param(("clientId",), marks=pytest.mark.emulator_lacks("what was left out is empty")),
        pytest.param(("username", "password"), marks=pytest.mark.emulator_lacks("what was left out is empty")),
    ],
)
async def test_basic_credentials_are_returned_as_an_object(platform, keys, fields):
    chosen = {field: platform.name(field) for field in fields}
    request = keys_of(keys) | {"deviceName": platform.name("provisioned"), "credentialsType": "MQTT_BASIC"} | chosen
    response = await reply(platform, request)
    value = response.pop("credentialsValue")
    assert response == {"credentialsType": "MQTT_BASIC", "status": "SUCCESS"}
    sent = {"userName" if field == "username" else field: text for field, text in chosen.items()}
    assert value == {"clientId": "", "userName": "", "password": ""} | sent


@pytest.mark.parametrize("wrong", ["provisionDeviceKey", "provisionDeviceSecret"])
async def test_a_wrong_key_or_secret_is_not_found(platform, keys, wrong):
    request = keys_of(keys) | {"deviceName": platform.name("provisioned"), wrong: "wrong"}
    assert await reply(platform, request) == NOT_FOUND


@pytest.mark.parametrize("missing", ["provisionDeviceKey", "provisionDeviceSecret"])
async def test_without_a_key_or_a_secret_the_connection_closes(platform, keys, missing):
    request = keys_of(keys)
    del request[missing]
    assert (await provision(platform, request)).outcome == disconnected(0x83, 0x83)


async def test_a_name_in_use_fails(platform, keys):
    request = keys_of(keys) | {"deviceName": platform.name("provisioned")}
    assert (await reply(platform, request))["status"] == "SUCCESS"
    assert await reply(platform, request) == FAILURE


async def test_a_pre_provisioned_device_succeeds_only_once(platform):
    keys = await platform.provisioning("CHECK_PRE_PROVISIONED_DEVICES")
    device = await platform.device(profile=keys.profile)
    request = keys_of(keys) | {"deviceName": device.name}
    expected = {"credentialsType": "ACCESS_TOKEN", "credentialsValue": device.token, "status": "SUCCESS"}
    assert await reply(platform, request) == expected
    assert await reply(platform, request) == FAILURE
    assert (await reply(platform, request | {"deviceName": platform.name("unknown")}))["status"] != "SUCCESS"


async def test_a_gateway_may_provision_itself(platform, keys):
    response = await reply(platform, keys_of(keys) | {"deviceName": platform.name("provisioned"), "gateway": True})
    sub_device = platform.name("sub-device")
    async with probe(platform, response["credentialsValue"]) as client:
        assert (await client.publish("v1/gateway/connect", {"device": sub_device})).outcome == OK
    assert await platform.profile_of(sub_device) == "default"


@pytest.mark.emulator_lacks("other filters are refused in a provisioning session")
async def test_a_provisioning_session_allows_only_provisioning(platform):
    async with probe(platform) as client:
        assert await client.connect("provision") == 0
        await client.settle()
        assert await client.subscribe("v1/devices/me/attributes", PROVISIONED) == [0x8F, 1]
        assert (await client.publish("v1/devices/me/telemetry", {"a": 1})).outcome == disconnected(0x90, 0x90)


# Firmware.

IMAGE = bytes(range(256)) * 8
CHUNK = "v2/fw/request/{}/chunk/{}"


@pytest.fixture
async def client(platform, device):
    async with probe(platform, device.token) as made:
        yield made


async def assigned(platform, device, client, image, keys):
    """Assign a package, and wait until the device has received all of its attributes."""
    await client.subscribe("v1/devices/me/attributes")
    await client.until_updates(platform, device.name, "v1/devices/me/attributes")
    await platform.assign_firmware(device.name, image)
    received = {}
    while not keys <= received.keys():
        payload = (await client.message("v1/devices/me/attributes")).payload
        for key in payload.get("deleted", []):
            received.pop(key, None)
        received |= {key: value for key, value in payload.items() if key != "deleted"}
    return received


WITH_IMAGE = {"fw_title", "fw_version", "fw_size", "fw_checksum", "fw_checksum_algorithm"}


async def chunk(client, request, number, size):
    received = await client.publish(CHUNK.format(request, number), str(size) if size else "")
    assert received.outcome == OK
    topic = f"v2/fw/response/{request}/chunk/{number}"
    found = [message for message in received.messages if message.topic == topic]
    data = (found[0] if found else await client.message(topic)).payload
    return data if isinstance(data, bytes) else str(data).encode()


async def test_an_assigned_package_is_announced_in_attributes(platform, device, client):
    received = await assigned(platform, device, client, IMAGE, WITH_IMAGE)
    assert (received["fw_version"], received["fw_size"]) == ("1.0", len(IMAGE))
    assert (received["fw_checksum_algorithm"], received["fw_checksum"]) == ("SHA256", hashlib.sha256(IMAGE).hexdigest())


async def test_chunk_numbers_start_at_0_and_a_chunk_past_the_end_is_empty(platform, device, client):
    await assigned(platform, device, client, IMAGE, WITH_IMAGE)
    assert [await chunk(client, 1, number, 1000) for number in range(4)] == [IMAGE[:1000], IMAGE[1000:2000], IMAGE[2000:], b""]
    # The size is remembered for the request id.
    assert await chunk(client, 1, 1, None) == IMAGE[1000:2000]
    assert await chunk(client, 2, 0, None) == IMAGE


async def chunk_error(client, size):
    """Request a chunk, and return the error that precedes the end of the connection."""
    received = await client.publish(CHUNK.format(1, 0), size)
    assert (received.disconnect, received.closed) == (0x83, True)
    # On a server the last attribute deletions may arrive in between.
    [error] = [message.payload for message in received.messages if message.topic == "v2/fw/error"]
    return error


async def test_without_a_package_a_chunk_ends_in_not_found(client):
    assert await chunk_error(client, "1000") == b"NOT_FOUND"


async def test_a_package_with_a_url_has_no_chunks(platform, device, client):
    received = await assigned(platform, device, client, None, {"fw_title", "fw_version", "fw_url"})
    assert received["fw_url"] == "http://127.0.0.1/image"
    assert await chunk_error(client, "1000") == b"FAILURE"


async def test_a_chunk_larger_than_the_largest_payload_is_too_large(platform, device, client):
    await assigned(platform, device, client, IMAGE, WITH_IMAGE)
    assert await chunk_error(client, "1000000") == b"PAYLOAD_TOO_LARGE"


async def test_an_unassigned_package_deletes_its_attributes(platform, device, client):
    await assigned(platform, device, client, IMAGE, WITH_IMAGE)
    await platform.unassign_firmware(device.name)
    deleted = set()
    while not deleted >= WITH_IMAGE:
        deleted |= set((await client.message("v1/devices/me/attributes")).payload.get("deleted", []))


@pytest.mark.parametrize("topic", ["v2/fw/request/x", "v2/fw/request/1/chunk", "v2/fw/nonsense"])
async def test_an_incomplete_topic_is_refused(client, topic):
    assert (await client.publish(topic, "1000")).outcome == refused(0x90)


async def test_a_publish_with_qos_0_gets_no_puback(client):
    assert (await client.publish("v1/devices/me/telemetry", {"a": 1}, qos=0)).outcome == NOTHING
