"""All features of a device client with a server: results of the client and data on the server."""

import asyncio
import hashlib
import time

import pytest
import trustme

from tb_mqtt_client import (
    AccessTokenProvisioningCredentials,
    AttributeEntry,
    BasicProvisioningCredentials,
    ClaimRequest,
    ConnectionRefusedByServer,
    DeviceClient,
    ProvisioningRequest,
    ProvisioningResponseStatus,
    RPCStatus,
    TimeseriesEntry,
    X509ProvisioningCredentials,
)
from thingsboard.rest import RestError
from thingsboard.tenant import until

TS = 1_700_000_000_000


# Connecting.


async def test_wrong_credentials_are_refused(address):
    with pytest.raises(ConnectionRefusedByServer):
        await DeviceClient(address | {"access_token": "no such token"}).connect()


@pytest.mark.parametrize("version", [4, 5])
async def test_both_mqtt_versions(tenant, address, device, eventually, version):
    async with DeviceClient(address | {"access_token": device.token, "mqtt_version": version}) as client:
        assert (await client.send_timeseries({"ts": TS, "values": {"a": 1}})).is_successful()
    await eventually(lambda: tenant.telemetry(device.id, ["a"]), {"a": [(TS, 1)]})


async def test_basic_credentials(tenant, address):
    user, password, client_id = (tenant.name(what) for what in ("user", "password", "id"))
    value = f'{{"clientId":"{client_id}","userName":"{user}","password":"{password}"}}'
    await tenant.device(credentials={"credentialsType": "MQTT_BASIC", "credentialsValue": value})
    async with DeviceClient(address | {"username": user, "password": password, "client_id": client_id}) as client:
        assert (await client.send_timeseries({"a": 1})).is_successful()
    with pytest.raises(ConnectionRefusedByServer):
        await DeviceClient(address | {"username": user, "password": "wrong", "client_id": client_id}).connect()


async def test_the_announced_limits_are_read(client):
    limits = client.health()["limits"]
    assert limits["announced"]
    assert limits["max_payload_size"] >= 1024


async def test_a_deleted_device_is_refused(tenant, address, device):
    async with DeviceClient(address | {"access_token": device.token}) as client:
        assert (await client.send_timeseries({"a": 1})).is_successful()
        await tenant.delete_device(device.id)

        async def is_refused():
            return not client.health()["connected"]

        await until(is_refused, "the end of the connection")


# Telemetry and attributes.


async def test_all_forms_of_telemetry(tenant, device, client, eventually):
    before = int(time.time() * 1000)
    results = [
        await client.send_timeseries({"now": 1}),
        await client.send_timeseries({"ts": TS, "values": {"a": 1, "b": 2}}),
        await client.send_timeseries([{"ts": TS + 1, "values": {"a": 3}}, {"ts": TS + 2, "values": {"a": 4}}]),
        await client.send_timeseries(TimeseriesEntry("a", 5, ts=TS + 3)),
        await client.send_timeseries([TimeseriesEntry("a", 6, ts=TS + 4), TimeseriesEntry("b", 7, ts=TS + 4)]),
    ]
    assert [result.datapoints_count for result in results] == [1, 2, 2, 1, 2]
    assert all(result.is_successful() for result in results)
    expected = {"a": [(TS, 1), (TS + 1, 3), (TS + 2, 4), (TS + 3, 5), (TS + 4, 6)], "b": [(TS, 2), (TS + 4, 7)]}
    await eventually(lambda: tenant.telemetry(device.id, ["a", "b"]), expected)
    now = await until(lambda: tenant.telemetry(device.id, ["now"]), "the datapoint without a time")
    # The server's clock may differ from the local clock.
    assert abs(now["now"][0].ts - before) < 3_600_000


async def test_a_send_larger_than_a_payload_arrives_completely(tenant, device, client, eventually):
    records = [{"ts": TS + number, "values": {"a": number, "b": "x" * 100}} for number in range(3000)]
    result = await client.send_timeseries(records)
    assert (result.is_successful(), result.datapoints_count) == (True, 6000)
    await eventually(lambda: tenant.count(device.id, ["a", "b"], start=TS, end=TS + 3000), 6000)


async def test_sends_without_waiting_arrive(tenant, device, client, eventually):
    futures = []
    for number in range(2000):
        futures += await client.send_timeseries({"ts": TS + number, "values": {"a": number}}, wait_for_publish=False)
    results = await asyncio.gather(*futures)
    assert all(result.is_successful() for result in results)
    await eventually(lambda: tenant.count(device.id, ["a"], start=TS, end=TS + 2000), 2000)


async def test_qos_0_arrives(tenant, address, device, eventually):
    async with DeviceClient(address | {"access_token": device.token, "qos": 0}) as client:
        await client.send_timeseries({"ts": TS, "values": {"a": 1}})
    await eventually(lambda: tenant.telemetry(device.id, ["a"]), {"a": [(TS, 1)]})


async def test_client_attributes(tenant, device, client, eventually):
    assert (await client.send_attributes({"serial": "TH-0042", "floor": 3})).datapoints_count == 2
    # The server may store two messages in either order.
    await eventually(lambda: tenant.attributes(device.id), {"serial": "TH-0042", "floor": 3})
    assert (await client.send_attributes([AttributeEntry("floor", 4), AttributeEntry("place", {"x": 1})])).is_successful()
    await eventually(lambda: tenant.attributes(device.id), {"serial": "TH-0042", "floor": 4, "place": {"x": 1}})


# Shared attributes.


async def test_attribute_requests(tenant, device, client, eventually):
    await client.send_attributes({"serial": "x", "floor": 3})
    await eventually(lambda: tenant.attributes(device.id), {"serial": "x", "floor": 3})
    await tenant.set_shared(device.id, {"period": 5, "mode": "on"})
    response = await client.request_attributes(shared_keys=["period", "missing"], client_keys=["serial"])
    assert (response.get_shared("period"), response.get_shared("missing"), response.get_client("serial")) == (5, None, "x")
    everything = await client.request_attributes()
    assert (everything.get_shared("mode"), everything.get_client("floor")) == ("on", 3)
    nothing = await client.request_attributes(shared_keys=["missing"], timeout=30)
    assert nothing.get_shared("missing") is None


async def test_attribute_updates_and_deletions(tenant, device, client, received):
    client.set_attribute_update_callback(received)
    await until(lambda: updates_arrive(tenant, device, received), "a first update")
    await tenant.set_shared(device.id, {"period": 10, "mode": {"x": [1]}})
    update = await received.until(lambda update: "period" in update.as_dict())
    assert update.as_dict() == {"period": 10, "mode": {"x": [1]}}
    await tenant.delete_shared(device.id, ["period"])
    assert (await received.until(lambda update: update.deleted_keys)).deleted_keys == ["period"]


async def updates_arrive(tenant, device, received):
    """Wait until attribute updates arrive, because a subscription takes effect a moment after the SUBACK."""
    await tenant.set_shared(device.id, {"updated": time.time()})
    try:
        return await received.next(within=2)
    except TimeoutError:
        return None


# RPC.


async def test_server_side_rpc_gets_a_reply(tenant, device, client):
    async def reply(request):
        if request.method == "fail":
            raise ValueError("there is no such thing")
        return {"method": request.method, "params": request.params}

    client.set_rpc_request_callback(reply)
    for params in (None, 1, "text", [1, {"a": None}], {"on": True}):
        reply = await tenant.rpc(device.id, "set", params)
        assert reply["result"] == {"method": "set", "params": params}
    assert "there is no such thing" in str((await tenant.rpc(device.id, "fail"))["error"])


async def test_a_one_way_rpc_arrives(tenant, device, client, received):
    client.set_rpc_request_callback(received)
    await tenant.rpc(device.id, "blink", {"times": 3}, oneway=True)
    request = await received.next()
    assert (request.method, request.params) == ("blink", {"times": 3})


async def test_rpc_handlers_run_concurrently(tenant, device, client):
    release = asyncio.Event()

    async def reply(request):
        if request.params == 0:
            await release.wait()
        else:
            release.set()
        return request.params

    client.set_rpc_request_callback(reply)
    first = asyncio.create_task(tenant.rpc(device.id, "wait", 0, timeout=30))
    await asyncio.sleep(0.2)
    assert (await tenant.rpc(device.id, "go", 1))["result"] == 1
    assert (await first)["result"] == 0


async def test_rpc_to_a_disconnected_device_fails(tenant, device):
    with pytest.raises(RestError) as raised:
        await tenant.rpc(device.id, "blink", timeout=5)
    assert raised.value.status in (408, 409, 504)


async def test_client_side_rpc_gets_the_reply_of_the_rule_chain(tenant, address):
    profile = await tenant.profile(rule_chain=await tenant.echo_rule_chain())
    device = await tenant.device(profile_id=profile)
    async with DeviceClient(address | {"access_token": device.token}) as client:
        response = await client.call_rpc("echo", {"zone": ["UTC", 1]}, timeout=30)
    assert response.status is RPCStatus.SUCCESS
    assert response.result == {"method": "echo", "params": {"zone": ["UTC", 1]}}


# Claiming and provisioning.


async def test_a_customer_with_the_secret_can_claim_the_device(tenant, device, client):
    customer_id, user = await tenant.customer_user()
    assert (await client.claim_device(ClaimRequest.build("printed on the device", duration=120))).is_successful()

    async def claimed(secret):
        try:
            reply = await user.post(f"/api/customer/device/{device.name}/claim", {"secretKey": secret})
        except RestError:
            return False
        return reply["response"] == "SUCCESS"

    await until(lambda: claimed("printed on the device"), "the device as the customer's")
    assert (await tenant.device_named(device.name))["customerId"]["id"] == customer_id
    assert not await claimed("printed on the device")


async def provisioned(address, credentials, name, **options):
    request = ProvisioningRequest(address["host"], credentials, address["port"], device_name=name, **options)
    response = await DeviceClient.provision(request, timeout=60)
    assert response is not None
    return response


async def connects(config):
    async with DeviceClient(config) as client:
        return (await client.send_timeseries({"a": 1})).is_successful()


@pytest.mark.parametrize("wanted", [True, False])
async def test_provisioning_of_an_access_token(tenant, address, wanted):
    profile_id, key, secret = await tenant.provisioning_profile()
    name, token = tenant.name("provisioned"), tenant.name("token") if wanted else None
    response = await provisioned(address, AccessTokenProvisioningCredentials(key, secret, token), name)
    assert response.status is ProvisioningResponseStatus.SUCCESS
    made = await tenant.until_device(name)
    assert response.result.access_token == made.token == (token or made.token)
    assert (await tenant.device_named(name))["deviceProfileId"]["id"] == profile_id
    assert await connects(response.result)


@pytest.mark.parametrize("fields", [("client_id", "username", "password"), ("client_id",), ("username", "password")])
async def test_provisioning_of_basic_credentials(tenant, address, fields):
    _, key, secret = await tenant.provisioning_profile()
    chosen = {field: tenant.name(field) for field in fields}
    response = await provisioned(address, BasicProvisioningCredentials(key, secret, **chosen), tenant.name("provisioned"))
    assert response.status is ProvisioningResponseStatus.SUCCESS
    assert await connects(response.result)


async def test_provisioning_of_a_certificate(tenant, address, tmp_path):
    """The server stores the certificate. Connecting with it needs TLS, which the server may not offer."""
    _, key, secret = await tenant.provisioning_profile()
    issued = trustme.CA().issue_cert("device.example.com")
    private, public = tmp_path / "device.key", tmp_path / "device.pem"
    issued.private_key_pem.write_to_path(private)
    issued.cert_chain_pems[0].write_to_path(public)
    name = tenant.name("provisioned")
    credentials = X509ProvisioningCredentials(key, secret, str(private), str(public), str(public))
    response = await provisioned(address, credentials, name, tls=False)
    assert response.status is ProvisioningResponseStatus.SUCCESS
    stored = await tenant.credentials((await tenant.until_device(name)).id)
    assert stored["credentialsType"] == "X509_CERTIFICATE"
    lines = public.read_text().split("\n")
    assert lines[1] in stored["credentialsValue"]


async def test_refused_provisioning(tenant, address):
    _, key, secret = await tenant.provisioning_profile()
    name = tenant.name("provisioned")
    wrong = await provisioned(address, AccessTokenProvisioningCredentials(key, "wrong"), name)
    assert (wrong.status, wrong.result) == (ProvisioningResponseStatus.NOT_FOUND, None)
    credentials = AccessTokenProvisioningCredentials(key, secret)
    assert (await provisioned(address, credentials, name)).status is ProvisioningResponseStatus.SUCCESS
    again = await provisioned(address, credentials, name)
    assert (again.status, again.result) == (ProvisioningResponseStatus.ERROR, None)


# Firmware and software.


@pytest.fixture
async def updatable(tenant):
    """Yield the id of a new profile, for which packages can be created, and a device with this profile."""
    profile_id = await tenant.profile()
    return profile_id, await tenant.device(profile_id=profile_id)


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [("fw", "SHA256"), ("fw", "CRC32"), ("fw", "MD5"), ("fw", "SHA512"), ("fw", "MURMUR3_128"), ("sw", "SHA256")],
)
async def test_an_update(tenant, address, updatable, tmp_path, eventually, kind, algorithm):
    profile_id, device = updatable
    image = bytes(hashlib.shake_256(b"image").digest(100_001))
    ota_kind = "FIRMWARE" if kind == "fw" else "SOFTWARE"
    package = await tenant.package(profile_id, "1.1", image, kind=ota_kind, algorithm=algorithm)
    installed = []
    async with DeviceClient(address | {"access_token": device.token}) as client:
        await tenant.assign_package(device.id, package, kind=ota_kind)
        await eventually(lambda: has(tenant, device, f"{kind}_checksum"), True)
        update = await client.update_firmware(
            on_package=lambda found, path: installed.append((found.version, path.read_bytes())),
            kind=kind,
            firmware_save_path=str(tmp_path),
            chunk_size=30_000,
        )
        async with asyncio.timeout(120):
            result = await update
        assert (result.state.value, result.error) == ("UPDATED", None)
    assert installed == [("1.1", image)]

    async def state():
        found = await tenant.latest(device.id)
        return tuple(found[name].value if name in found else None for name in (f"{kind}_state", f"current_{kind}_version"))

    # The version looks like a number and is stored as one.
    await eventually(state, ("UPDATED", 1.1))


async def has(tenant, device, key):
    return key in await tenant.attributes(device.id, "SHARED_SCOPE")


async def test_an_update_from_a_url(tenant, address, updatable):
    profile_id, device = updatable
    package = await tenant.package(profile_id, "v2", url="http://127.0.0.1/image")
    seen = []
    async with DeviceClient(address | {"access_token": device.token}) as client:
        await tenant.assign_package(device.id, package)
        await until(lambda: has(tenant, device, "fw_url"), "the assigned package")
        update = await client.update_firmware(on_package=lambda found, path: seen.append((found.version, found.url, path)))
        async with asyncio.timeout(60):
            result = await update
    assert result.state.value == "UPDATED"
    assert seen == [("v2", "http://127.0.0.1/image", None)]


async def test_assignments_while_watching_never_fail(tenant, address, updatable, received):
    """The server announces an assignment in several messages, in either order."""
    profile_id, device = updatable
    packages = [await tenant.package(profile_id, f"v{number}", bytes([number]) * 5000) for number in range(6)]
    async with DeviceClient(address | {"access_token": device.token}) as client:
        watching = await client.update_firmware(
            on_package=lambda found, _path: received(found.version), save_firmware=False, keep_watching=True
        )
        try:
            for number, package in enumerate(packages):
                await tenant.assign_package(device.id, package)
                assert await received.until(lambda version, number=number: version == f"v{number}") == f"v{number}"
        finally:
            watching.cancel()

    async def states():
        found = await tenant.telemetry(device.id, ["fw_state"])
        values = [point.value for point in found.get("fw_state", [])]
        return values if values.count("UPDATED") >= len(packages) - 1 else None

    assert "FAILED" not in await until(states, "the states of all updates")
