"""Requests, RPC, attribute updates and claims of a device, through a real broker on which another client plays the platform."""

import asyncio

import pytest
from played_platform import PlayedPlatform

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.common.exceptions import RequestRefusedError
from tb_mqtt_client.entities.data.claim_request import ClaimRequest

ME = "v1/devices/me/"


class Platform(PlayedPlatform):
    """Responds to the requests of a device."""

    prefix = ME

    def respond(self, kind, document):
        if kind.startswith("rpc/request/"):
            self.send(kind.replace("request", "response"), {"echo": document})
        elif kind.startswith("attributes/request/"):
            self.send(kind.replace("request", "response"), {"shared": {"asked": document["sharedKeys"]}})


def make_client(broker, **options):
    return DeviceClient({"host": broker.host, "port": broker.port, "access_token": "token", "limits_timeout": 0.1} | options)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1])
async def test_requests_rpc_updates_and_claims_work_with_every_version_and_qos(mosquitto, version, qos):
    client, updates = make_client(mosquitto, mqtt_version=version, qos=qos), asyncio.Queue()
    client.set_attribute_update_callback(updates.put_nowait)
    client.set_rpc_request_callback(lambda request: request.params)
    async with Platform(mosquitto) as platform:
        await client.connect()
        assert (await client.request_attributes(["a", "b"]))["asked"] == "a,b"
        if version == 5:
            # With MQTT 3.1.1, a broker that routes sends the device its own RPC request, and the device responds to it.
            assert (await client.call_rpc("m", [1])).result["echo"]["params"] == [1]
        platform.send("rpc/request/0", {"method": "m", "params": {"x": "é"}})
        assert await platform.wait_for("rpc/response/0") == {"result": {"x": "é"}}
        platform.send("attributes", {"a": 1})
        assert (await updates.get()).as_dict() == {"a": 1}
        platform.send("attributes", {"deleted": ["a"]})
        assert (await updates.get()).deleted_keys == ["a"]
        assert (await client.claim_device(ClaimRequest.build("s", 10))).is_successful()
        assert await platform.wait_for("claim") == {"secretKey": "s", "durationMs": 10_000}
        await client.stop()


async def test_a_device_does_not_receive_its_own_messages_from_a_broker_that_routes(mosquitto):
    """A device publishes to topics that it is subscribed to."""
    client = make_client(mosquitto)
    client.set_attribute_update_callback(pytest.fail)
    client.set_rpc_request_callback(pytest.fail)
    await client.connect()
    await client.send_attributes({"a": 1})
    with pytest.raises(TimeoutError):
        await client.call_rpc("m", timeout=0.1)
    assert (await client.send_attributes({"a": 2})).is_successful()
    assert client.statistics.inbound_messages == 0
    await client.stop()


async def test_telemetry_is_accepted_by_a_broker_that_refuses_requests(mosquitto):
    mosquitto.stop()
    acl = mosquitto.folder / "acl"
    acl.write_text(f"pattern write {ME}telemetry\n")
    # Each listener has its own access list; this one is for the first listener.
    mosquitto.plain_options = f"acl_file {acl}\n"
    mosquitto.start()
    client = make_client(mosquitto)
    await client.connect()
    for request in (client.call_rpc("m", timeout=None), client.request_attributes(timeout=None)):
        with pytest.raises(RequestRefusedError, match="Not authorized"):
            await request
    assert (await client.claim_device(ClaimRequest.build())).reason_code == 0x87
    assert (await client.send_timeseries({"a": 1})).is_successful()
    await client.stop()


async def test_subscriptions_are_made_again_after_a_restart(mosquitto):
    client = make_client(mosquitto, reconnect_delay_min=0.01, reconnect_delay_max=0.1)
    updates = asyncio.Queue()
    client.set_attribute_update_callback(updates.put_nowait)
    await client.connect()
    mosquitto.stop()
    mosquitto.start()
    # The acknowledgement comes only after the next session is set up.
    assert (await client.send_timeseries({"a": 1}, timeout=20)).is_successful()
    async with Platform(mosquitto) as platform:
        platform.send("attributes", {"a": 1})
        assert (await updates.get()).get("a") == 1
        await client.stop()
    for topic in ("attributes", "attributes/response/+", "rpc/request/+", "rpc/response/+"):
        # The broker logs each subscription: one for each of the two sessions.
        assert mosquitto.log.count(f"\t{ME}{topic} (QoS 1)\n") == 2
