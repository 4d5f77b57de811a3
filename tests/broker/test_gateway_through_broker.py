"""Sub-devices of a gateway, through a real broker on which another client plays the platform."""

import asyncio

import pytest
from played_platform import PlayedPlatform

from tb_mqtt_client import GatewayClient
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequestBuilder


class Platform(PlayedPlatform):
    """Responds to the attribute requests of sub-devices."""

    prefix = "v1/gateway/"

    def respond(self, kind, document):
        if kind == "attributes/request":
            keys = document.get("keys") or [document["key"]]
            values = {key: f"{key} of {'client' if document['client'] else 'shared'}" for key in keys}
            found = {"values": values} if len(keys) > 1 else {"value": values[keys[0]]}
            self.send("attributes/response", {"id": document["id"], "device": document["device"]} | found)


def make_client(broker, **options):
    return GatewayClient({"host": broker.host, "port": broker.port, "access_token": "token", "limits_timeout": 0.1} | options)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1])
async def test_everything_a_gateway_does_works_with_every_version_and_qos(mosquitto, version, qos):
    gateway, updates = make_client(mosquitto, mqtt_version=version, qos=qos), asyncio.Queue()
    async with Platform(mosquitto) as platform:
        await gateway.connect()
        session, connected = await gateway.connect_device("D1", "p", wait_for_publish=True)
        assert connected.is_successful()
        assert await platform.wait_for("connect") == {"device": "D1", "type": "p"}
        session.set_attribute_update_callback(lambda _, update: updates.put_nowait((update.as_dict(), update.deleted_keys)))
        session.set_rpc_request_callback(lambda _, request: RPCResponse.build(request.request_id, request.params))
        assert (await gateway.send_device_timeseries(session, {"ts": 5, "values": {"é": 1}})).is_successful()
        assert await platform.wait_for("telemetry") == {"D1": [{"ts": 5, "values": {"é": 1}}]}
        response = await gateway.request_device_attributes(session, ["a", "b"], ["c"])
        assert (response["a"], response["b"], response["c"]) == ("a of shared", "b of shared", "c of client")
        platform.send("rpc", {"device": "D1", "data": {"id": 0, "method": "m", "params": [1]}})
        assert await platform.wait_for("rpc") == {"device": "D1", "id": 0, "data": {"result": [1]}}
        platform.send("attributes", {"device": "D1", "data": {"a": 1}})
        platform.send("attributes", {"device": "D1", "data": {"deleted": ["a"]}})
        assert [await updates.get(), await updates.get()] == [({"a": 1}, []), ({}, ["a"])]
        claim = GatewayClaimRequestBuilder().add_device_request(session, ClaimRequest.build("s", 10)).build()
        assert (await gateway.send_device_claim_request(session, claim)).is_successful()
        assert await platform.wait_for("claim") == {"D1": {"secretKey": "s", "durationMs": 10_000}}
        _, disconnected = await gateway.disconnect_device(session, wait_for_publish=True)
        assert disconnected.is_successful()
        assert await platform.wait_for("disconnect") == {"device": "D1"}
        await gateway.stop()


@pytest.mark.parametrize("version", [4, 5])
async def test_a_gateway_ignores_its_own_messages_from_a_broker_that_routes(mosquitto, version):
    """A gateway publishes to topics that it is subscribed to, and MQTT 3.1.1 cannot ask a broker not to send them back."""
    gateway = make_client(mosquitto, mqtt_version=version)
    await gateway.connect()
    session, _ = await gateway.connect_device("D1")
    session.set_attribute_update_callback(lambda *_: pytest.fail("the gateway took its own attribute for an update"))
    async with Platform(mosquitto) as platform:
        assert (await gateway.send_device_attributes(session, {"a": 1})).is_successful()
        platform.send("rpc", {"device": "D1", "data": {"id": 0, "method": "m"}})
        assert (await platform.wait_for("rpc"))["data"] == {"error": "The device has no callback for RPC requests"}
        assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()
        # The gateway did not respond to its own response.
        kinds = [platform.received.get_nowait()[0] for _ in range(platform.received.qsize())]
        assert "rpc" not in kinds
        await gateway.stop()


async def test_devices_are_announced_again_after_a_restart(mosquitto):
    gateway = make_client(mosquitto, reconnect_delay_min=0.01, reconnect_delay_max=0.1)
    await gateway.connect()
    session, _ = await gateway.connect_device("D1", wait_for_publish=True)
    states = asyncio.Queue()
    session.set_state_change_callback(lambda session: states.put_nowait(session.state))
    mosquitto.stop()
    mosquitto.start()
    assert [await states.get() for _ in range(3)] == [
        DeviceSessionState.CONNECTION_LOST,
        DeviceSessionState.RECONNECTING,
        DeviceSessionState.CONNECTED,
    ]
    async with Platform(mosquitto) as platform:
        session.set_rpc_request_callback(lambda _, request: RPCResponse.build(request.request_id, "again"))
        platform.send("rpc", {"device": "D1", "data": {"id": 0, "method": "m"}})
        assert (await platform.wait_for("rpc"))["data"] == {"result": "again"}
        await gateway.stop()
