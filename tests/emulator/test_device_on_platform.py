"""A device and the platform, with no more preparation than a user of the platform makes."""

import asyncio

import pytest

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.emulator import Claim, ClientRpcError, Emulator
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.rpc_response import RPCStatus


@pytest.fixture(params=[4, 5])
async def device(emulator, request):
    client = DeviceClient(
        {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN", "mqtt_version": request.param}
        | {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01}
    )
    yield client
    await client.stop()


async def test_attributes_are_sent_updated_requested_and_deleted(emulator, device):
    updates = asyncio.Queue()
    device.set_attribute_update_callback(updates.put_nowait)
    await device.connect()
    assert (await device.request_attributes()).as_dict() == {"shared": [], "client": []}
    await device.send_attributes({"serial": "x", "version": 2})
    assert await emulator.set_shared_attributes("device", {"interval": 5, "mode": {"fast": True}})
    assert (await updates.get()).as_dict() == {"interval": 5, "mode": {"fast": True}}
    everything = await device.request_attributes()
    assert everything.get_client("serial") == "x"
    assert everything.get_shared("mode") == {"fast": True}
    some = await device.request_attributes(["interval", "missing"], ["version"])
    assert ([entry.key for entry in some.shared], [entry.key for entry in some.client]) == (["interval"], ["version"])
    shared = await device.request_attributes(["interval"])
    assert (shared["interval"], shared.client) == (5, [])
    client_scope = await device.request_attributes([], ["serial"])
    assert (client_scope["serial"], client_scope.shared) == ("x", [])
    assert await emulator.delete_shared_attributes("device", ["mode", "interval"])
    deletion = await updates.get()
    assert (deletion.as_dict(), sorted(deletion.deleted_keys)) == ({}, ["interval", "mode"])
    assert (await device.request_attributes(["mode"])).shared == []


async def test_server_side_rpc_gets_its_responses(emulator, device):
    device.set_rpc_request_callback(lambda request: {"method": request.method, "params": request.params, "id": request.request_id})
    await device.connect()
    for number, params in enumerate([None, {"pin": 1}, [1, 2], "text", 0]):
        response = await emulator.call_rpc("device", "set", params)
        assert response == {"result": {"method": "set", "params": params, "id": number}}
    # Request ids start from 0 again, as after a restart of the server.
    emulator.restart_rpc_ids("device")
    assert (await emulator.call_rpc("device", "set"))["result"]["id"] == 0


async def test_the_response_to_a_one_way_rpc_does_not_disturb_the_next_one(emulator, device):
    called = asyncio.Queue()
    device.set_rpc_request_callback(called.put_nowait)
    await device.connect()
    assert await emulator.call_rpc("device", "beep", oneway=True) is None
    assert (await called.get()).method == "beep"
    # The platform ignores the response to the one-way RPC.
    assert await emulator.call_rpc("device", "next") == {}
    assert [response.id for response in emulator.rpc_responses("device")] == [0, 1]


async def test_an_rpc_that_waited_for_the_device_gets_its_response(emulator, device):
    """The platform sends the request as soon as the device subscribes, before connect() returns."""
    device.set_rpc_request_callback(lambda request: request.method)
    waiting = asyncio.create_task(emulator.call_rpc("device", "early"))
    await asyncio.sleep(0)
    await device.connect()
    assert await waiting == {"result": "early"}


async def test_defect_53_every_rpc_request_gets_a_response(emulator, device):
    await device.connect()
    assert await emulator.call_rpc("device", "m") == {"error": "The device has no callback for RPC requests"}

    def fail(_request):
        raise LookupError("no such pin")

    device.set_rpc_request_callback(fail)
    response = await emulator.call_rpc("device", "m")
    assert (response["error"]["type"], response["error"]["message"]) == ("LookupError", "no such pin")


async def test_a_pending_rpc_gets_its_response_after_a_reconnect(emulator, device):
    begun, release = asyncio.Event(), asyncio.Event()

    async def callback(_request):
        begun.set()
        await release.wait()
        return "done"

    device.set_rpc_request_callback(callback)
    await device.connect()
    call = asyncio.create_task(emulator.call_rpc("device", "slow"))
    await begun.wait()
    await emulator.disconnect_device("TOKEN")
    await device.send_attributes({"back": True}, timeout=None)
    release.set()
    # The platform sent the request again, and the callback ran once.
    assert await call == {"result": "done"}
    assert [response.id for response in emulator.rpc_responses("device")] == [0]


async def test_client_side_rpc_gets_its_responses(emulator, device):
    async def rules(_device, method, params):
        if method == "fail":
            raise ClientRpcError("no rule for this")
        return {"method": method, "params": params}

    emulator.on_client_rpc = rules
    await device.connect()
    succeeded = await device.call_rpc("getTime", {"zone": "UTC"})
    assert (succeeded.status, succeeded.result) == (RPCStatus.SUCCESS, {"method": "getTime", "params": {"zone": "UTC"}})
    failed = await device.call_rpc("fail")
    assert (failed.status, failed.error) == (RPCStatus.ERROR, "no rule for this")
    calls = await asyncio.gather(*(device.call_rpc("m", number) for number in range(50)))
    assert [call.result["params"] for call in calls] == list(range(50))


async def test_contract_9_a_timeout_of_the_platform_has_its_own_status():
    async with Emulator(client_rpc_timeout=0.02) as emulator:
        emulator.add_device("TOKEN", "device")
        device = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
        await device.connect()
        response = await device.call_rpc("m", timeout=None)
        assert (response.status, response.error, response.result) == (RPCStatus.TIMEOUT, "timeout", {"error": "timeout"})
        await device.stop()


async def test_contract_9_claims_arrive_with_their_secret_and_duration(emulator, device):
    await device.connect()
    for request in (ClaimRequest.build("secret", 60), ClaimRequest.build("", None)):
        assert (await device.claim_device(request)).is_successful()
    assert emulator.device("device").claims == [Claim("secret", 60_000), Claim()]
