"""Programs for SDK 2.0, with its module paths and forms, run against the emulator."""

import asyncio
import logging

import pytest

from tb_mqtt_client.common.config_loader import DeviceConfig, GatewayConfig
from tb_mqtt_client.common.logging_utils import configure_logging, get_logger
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.provisioning_request import AccessTokenProvisioningCredentials, ProvisioningRequest
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.data.timeseries_entry import TimeseriesEntry
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequestBuilder
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse
from tb_mqtt_client.service.device.client import DeviceClient
from tb_mqtt_client.service.gateway.client import GatewayClient
from tb_mqtt_client.service.gateway.device_session import DeviceSession


def filled_in(config, emulator, token):
    config.host = emulator.host
    config.port = emulator.port
    config.access_token = token
    return config


@pytest.fixture
def device_config(emulator):
    return filled_in(DeviceConfig(), emulator, "TOKEN")


@pytest.fixture
def gateway_config(emulator):
    return filled_in(GatewayConfig(), emulator, "GATEWAY")


async def test_a_device_program_sends_data(emulator, device_config):
    configure_logging(logging.INFO)
    get_logger(__name__).info("a device")
    client = DeviceClient(device_config)
    await client.connect()

    result = await client.send_timeseries({"temperature": 22.5, "on": True})
    assert isinstance(result, PublishResult)
    assert result.is_successful()
    assert (result.topic, result.qos, result.datapoints_count) == ("v1/devices/me/telemetry", 1, 2)

    entries = [TimeseriesEntry("a", 1, ts=1000), {"ts": 2000, "values": {"b": 2}}, {"c": "three"}]
    results = await client.send_timeseries(entries, wait_for_publish=False)
    assert isinstance(results, list)
    assert (await results[0]).is_successful()
    assert (await client.send_attributes({"firmware": "1.0"})).is_successful()
    [future] = await client.send_attributes([AttributeEntry("x", [1]), AttributeEntry("y", None)], wait_for_publish=False)
    assert (await asyncio.wait_for(future, 5)).reason_code == 0
    await client.disconnect()

    stored = {(point.key, point.value) for point in emulator.device("device").telemetry}
    assert stored == {("temperature", 22.5), ("on", True), ("a", 1), ("b", 2), ("c", "three")}


async def test_a_device_program_uses_rpc_and_attribute_requests(emulator, device_config):
    emulator.device("device").shared_attributes.update({"limit": 7})
    emulator.on_client_rpc = lambda _device, method, params: {"method": method, "params": params}
    updates, responses = asyncio.Queue(), asyncio.Queue()

    async def attribute_update_callback(update: AttributeUpdate):
        await updates.put(update.as_dict())

    async def rpc_request_callback(request: RPCRequest) -> RPCResponse:
        if request.method != "sum":
            return RPCResponse.build(request.request_id, error=ValueError(f"no method {request.method}"))
        return RPCResponse.build(request.request_id, result={"sum": sum(request.params)})

    async def attribute_response_callback(response: RequestedAttributeResponse):
        await responses.put((response["limit"], response.get_client("absent", "default")))

    client = DeviceClient(device_config)
    client.set_attribute_update_callback(attribute_update_callback)
    client.set_rpc_request_callback(rpc_request_callback)
    await client.connect()

    await emulator.set_shared_attributes("device", {"limit": 8})
    assert await updates.get() == {"limit": 8}
    assert await emulator.call_rpc("device", "sum", [1, 2]) == {"result": {"sum": 3}}
    error = (await emulator.call_rpc("device", "other"))["error"]
    assert (error["message"], error["type"]) == ("no method other", "ValueError")

    await client.send_attribute_request(await AttributeRequest.build(shared_keys=["limit"]), attribute_response_callback)
    assert await responses.get() == (8, "default")
    response = await client.send_rpc_request(await RPCRequest.build("echo", {"x": 1}))
    assert (response.result, response.error) == ({"method": "echo", "params": {"x": 1}}, None)

    assert (await client.claim_device(ClaimRequest.build(secret_key="secret", duration=30))).is_successful()
    await client.stop()


async def test_a_device_program_is_provisioned(emulator):
    emulator.add_provision_profile("KEY", "SECRET")
    credentials = AccessTokenProvisioningCredentials(provision_device_key="KEY", provision_device_secret="SECRET")
    request = ProvisioningRequest(emulator.host, credentials, port=emulator.port, device_name="new device")
    response = await DeviceClient.provision(request)
    assert str(response.status) == "SUCCESS"
    client = DeviceClient(response.result)
    await client.connect()
    assert (await client.send_timeseries({"a": 1})).is_successful()
    await client.stop()


async def test_a_gateway_program_serves_a_sub_device(emulator, gateway_config):
    emulator.device("gateway").shared_attributes.update({"own": 1})
    seen = asyncio.Queue()

    async def on_update(session: DeviceSession, update: AttributeUpdate):
        await seen.put((session.device_info.device_name, update.as_dict()))

    def on_rpc(session: DeviceSession, request: GatewayRPCRequest) -> GatewayRPCResponse:
        return GatewayRPCResponse.build(session.device_info.device_name, request.request_id, result=request.params)

    async def on_response(session: DeviceSession, response):
        await seen.put((session.device_info.device_name, response.get_shared("s"), response["c"]))

    client = GatewayClient(gateway_config)
    await client.connect()
    session, connected = await client.connect_device("D1", "thermostat", wait_for_publish=True)
    assert connected.is_successful()
    device_id = session.device_info.device_id
    assert client.device_manager.get_by_name("D1") is session
    client.device_manager.set_attribute_update_callback(device_id, on_update)
    client.device_manager.set_rpc_request_callback(device_id, on_rpc)
    client.device_manager.set_attribute_response_callback(device_id, on_response)

    sent = await client.send_device_timeseries(session, TimeseriesEntry("t", 1, ts=5), wait_for_publish=True)
    assert (sent.topic, sent.is_successful()) == ("v1/gateway/telemetry", True)
    future = await client.send_device_timeseries(session, {"ts": 6, "values": {"t": 2}}, wait_for_publish=False)
    assert (await future).is_successful()
    assert (await client.send_device_attributes(session, {"c": 3}, wait_for_publish=True)).is_successful()
    assert [(point.ts, point.value) for point in emulator.device("D1").telemetry] == [(5, 1), (6, 2)]

    await emulator.set_shared_attributes("D1", {"s": 4})
    assert await seen.get() == ("D1", {"s": 4})
    assert await emulator.call_rpc("D1", "echo", {"x": 1}) == {"result": {"x": 1}}
    request = await GatewayAttributeRequest.build(session, shared_keys=["s"], client_keys=["c"])
    assert (await client.send_device_attributes_request(session, request, wait_for_publish=True)).is_successful()
    assert await seen.get() == ("D1", 4, 3)

    claim = GatewayClaimRequestBuilder().add_device_request(session, ClaimRequest.build("secret", 30)).build()
    assert (await client.send_device_claim_request(session, claim, wait_for_publish=True)).is_successful()

    assert (await client.send_timeseries({"own": 1})).is_successful()
    session, disconnected = await client.disconnect_device(session, wait_for_publish=True)
    assert disconnected.is_successful()
    assert client.device_manager.get_by_id(device_id) is None
    await client.disconnect()
    await client.stop()
