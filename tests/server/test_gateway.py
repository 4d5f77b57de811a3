"""All features of a gateway client with a server: results of the client and data on the server."""

import asyncio
import time

import pytest

from tb_mqtt_client import (
    ClaimRequest,
    DeviceSessionState,
    GatewayClaimRequestBuilder,
    GatewayClient,
    GatewayRPCResponse,
    TelemetryMetadata,
)
from thingsboard.rest import RestError
from thingsboard.tenant import until

TS = 1_700_000_000_000


@pytest.fixture
async def meter(tenant, gateway):
    """Return the session of a connected sub-device, and the device on the server."""
    session, result = await gateway.connect_device(tenant.name("meter"), wait_for_publish=True)
    assert result.is_successful()
    return session, await tenant.until_device(session.device_info.device_name)


async def test_connecting_creates_the_device_and_its_profile(tenant, gateway):
    profile = tenant.name("profile")
    session, result = await gateway.connect_device(tenant.name("meter"), profile, wait_for_publish=True)
    assert result.is_successful()
    assert session.state is DeviceSessionState.CONNECTED
    found = await until(lambda: tenant.device_named(session.device_info.device_name), "the device")
    assert found["type"] == profile


async def test_the_server_shows_if_a_device_is_connected(tenant, gateway, meter, eventually):
    session, device = meter

    async def active():
        return (await tenant.attributes(device.id, "SERVER_SCOPE")).get("lastConnectTime", 0) > 0

    await eventually(active, True)
    _, result = await gateway.disconnect_device(session, wait_for_publish=True)
    assert result.is_successful()

    async def disconnected():
        return (await tenant.attributes(device.id, "SERVER_SCOPE")).get("lastDisconnectTime", 0) > 0

    await eventually(disconnected, True)


async def test_data_of_many_devices_arrives_completely(tenant, gateway, eventually):
    profile = tenant.name("profile")
    sessions = [(await gateway.connect_device(tenant.name("meter"), profile))[0] for _ in range(40)]
    futures = []
    for number in range(20):
        for session in sessions:
            record = {"ts": TS + number, "values": {"a": number, "b": f"text {number}"}}
            futures.append(await gateway.send_device_timeseries(session, record, wait_for_publish=False))
            futures.append(await gateway.send_device_attributes(session, {f"k{number}": number}, wait_for_publish=False))
    assert all(result.is_successful() for result in await asyncio.gather(*futures))
    for session in sessions:
        found = await tenant.device_named(session.device_info.device_name)
        assert found["type"] == profile
        device_id = found["id"]["id"]
        await eventually(lambda device_id=device_id: tenant.count(device_id, ["a", "b"], start=TS, end=TS + 20), 40)
        await eventually(lambda device_id=device_id: tenant.attributes(device_id), {f"k{number}": number for number in range(20)})


async def test_metadata_is_separate_from_the_data(tenant, gateway, meter, eventually):
    session, device = meter
    metadata = TelemetryMetadata("modbus", received_ts=int(time.time() * 1000))
    assert (await gateway.send_device_timeseries(session, {"ts": TS, "values": {"kwh": 1}}, metadata=metadata)).is_successful()
    await eventually(lambda: tenant.telemetry(device.id, ["kwh", "metadata", "ts", "values"]), {"kwh": [(TS, 1)]})


async def test_attribute_requests(tenant, gateway, meter, eventually):
    session, device = meter
    await gateway.send_device_attributes(session, {"serial": "x", "floor": 3})
    await eventually(lambda: tenant.attributes(device.id), {"serial": "x", "floor": 3})
    await tenant.set_shared(device.id, {"period": 5, "mode": "on"})
    response = await gateway.request_device_attributes(session, shared_keys=["period", "missing"], client_keys=["serial", "floor"])
    assert (response.get_shared("period"), response.get_shared("missing", "none")) == (5, "none")
    assert (response.get_client("serial"), response.get_client("floor")) == ("x", 3)
    response = await gateway.request_device_attributes(session, shared_keys=["missing"])
    assert response.get_shared("missing", "none") == "none"


async def test_attribute_updates_and_deletions(tenant, gateway, meter, received):
    session, device = meter
    session.set_attribute_update_callback(received)

    async def updates_arrive():
        await tenant.set_shared(device.id, {"updated": time.time()})
        try:
            return await received.next(within=2)
        except TimeoutError:
            return None

    await until(updates_arrive, "a first update")
    await tenant.set_shared(device.id, {"tariff": "night"})
    found, update = await received.until(lambda call: "tariff" in call[1].as_dict())
    assert (found, update.as_dict()) == (session, {"tariff": "night"})
    await tenant.delete_shared(device.id, ["tariff"])
    assert (await received.until(lambda call: call[1].deleted_keys))[1].deleted_keys == ["tariff"]


async def test_server_side_rpc_gets_a_reply(tenant, gateway, meter):
    session, device = meter

    async def reply(found, request):
        assert found is session
        if request.method == "fail":
            raise ValueError("there is no such thing")
        return GatewayRPCResponse.build(found.device_info.device_name, request.request_id, result=[request.method, request.params])

    session.set_rpc_request_callback(reply)
    for params in (None, 7, {"on": True}):
        assert (await tenant.rpc(device.id, "set", params))["result"] == ["set", params]
    assert "there is no such thing" in str(await tenant.rpc(device.id, "fail"))


async def test_a_one_way_rpc_arrives(tenant, gateway, meter, received):
    session, device = meter
    session.set_rpc_request_callback(received)
    await tenant.rpc(device.id, "blink", {"times": 3}, oneway=True)
    _, request = await received.next()
    assert (request.method, request.params) == ("blink", {"times": 3})


async def test_rpc_to_the_gateway_itself(tenant, gateway, gateway_device):
    gateway.set_rpc_request_callback(lambda request: {"own": request.params})
    assert (await tenant.rpc(gateway_device.id, "set", 1))["result"] == {"own": 1}


async def test_devices_are_reachable_after_a_reconnect_without_sending(tenant, address, gateway, gateway_device, meter):
    """A newer client takes the session over; the older one reconnects after the newer one has stopped."""
    session, device = meter
    session.set_rpc_request_callback(lambda _session, request: request.params)
    assert (await tenant.rpc(device.id, "set", 1))["result"] == 1
    async with GatewayClient(address | {"access_token": gateway_device.token}):
        pass

    async def replied():
        try:
            return (await tenant.rpc(device.id, "set", 2, timeout=3))["result"] == 2
        except RestError:
            return False

    await until(replied, "a reply from the device")


async def test_a_renamed_device_keeps_its_session(tenant, gateway, meter, eventually):
    session, device = meter
    new_name = tenant.name("renamed")
    await tenant.rename(device.id, new_name)

    async def name():
        return session.device_info.device_name

    await eventually(name, new_name)
    assert (await gateway.send_device_timeseries(session, {"ts": TS, "values": {"a": 1}})).is_successful()
    await eventually(lambda: tenant.telemetry(device.id, ["a"]), {"a": [(TS, 1)]})
    assert await tenant.device_named(session.device_info.original_name) is None


async def test_a_deleted_device_is_not_created_again(tenant, gateway, meter, eventually):
    session, device = meter
    name = session.device_info.device_name
    await tenant.delete_device(device.id)

    async def known():
        return gateway.device_manager.get_by_name(name)

    await eventually(known, None)
    with pytest.raises(ValueError, match="device"):
        await gateway.send_device_timeseries(session, {"a": 1})
    assert await tenant.device_named(name) is None


async def test_a_customer_with_the_secret_can_claim_the_device(tenant, gateway, meter):
    session, device = meter
    customer_id, user = await tenant.customer_user()
    claims = GatewayClaimRequestBuilder().add_device_request(session, ClaimRequest.build("printed on the meter", duration=120))
    assert (await gateway.send_device_claim_request(session, claims.build())).is_successful()

    async def claimed():
        try:
            reply = await user.post(f"/api/customer/device/{device.name}/claim", {"secretKey": "printed on the meter"})
        except RestError:
            return False
        return reply["response"] == "SUCCESS"

    await until(claimed, "the device as the customer's")
    assert (await tenant.device_named(device.name))["customerId"]["id"] == customer_id


async def test_a_refused_device_does_not_affect_the_others(tenant, gateway, eventually):
    """The platform always refuses this name, but only after a long time."""
    good, _ = await gateway.connect_device(tenant.name("meter"))
    bad, _ = await gateway.connect_device(f"<script>{tenant.name('bad')}")
    await gateway.send_device_timeseries(bad, {"ts": TS, "values": {"a": 1}}, wait_for_publish=False)
    async with asyncio.timeout(60):
        delivery = await gateway.send_device_timeseries(good, {"ts": TS, "values": {"a": 1}}, wait_for_publish=False)
        assert (await delivery).is_successful()
    device = await tenant.until_device(good.device_info.device_name)
    await eventually(lambda: tenant.telemetry(device.id, ["a"]), {"a": [(TS, 1)]})
