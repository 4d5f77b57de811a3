"""What a device says and hears beside its data, through a real broker on which another client plays the platform."""

import asyncio

import pytest
from played_platform import PlayedPlatform

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.common.exceptions import RequestRefusedError
from tb_mqtt_client.entities.data.claim_request import ClaimRequest

ME = "v1/devices/me/"


class Platform(PlayedPlatform):
    """Answers requests of a device."""

    prefix = ME

    def answer(self, kind, document):
        if kind.startswith("rpc/request/"):
            self.say(kind.replace("request", "response"), {"echo": document})
        elif kind.startswith("attributes/request/"):
            self.say(kind.replace("request", "response"), {"shared": {"asked": document["sharedKeys"]}})


def make_client(broker, **options):
    return DeviceClient({"host": broker.host, "port": broker.port, "access_token": "token", "limits_timeout": 0.1} | options)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1])
async def test_requests_calls_and_updates(mosquitto, version, qos):
    client, updates = make_client(mosquitto, mqtt_version=version, qos=qos), asyncio.Queue()
    client.set_attribute_update_callback(updates.put_nowait)
    client.set_rpc_request_callback(lambda request: request.params)
    async with Platform(mosquitto) as platform:
        await client.connect()
        assert (await client.request_attributes(["a", "b"]))["asked"] == "a,b"
        if version == 5:
            # With 3.1.1 a broker that routes gives the device its own call, which it answers.
            assert (await client.call_rpc("m", [1])).result["echo"]["params"] == [1]
        platform.say("rpc/request/0", {"method": "m", "params": {"x": "é"}})
        assert await platform.hear("rpc/response/0") == {"result": {"x": "é"}}
        platform.say("attributes", {"a": 1})
        assert (await updates.get()).as_dict() == {"a": 1}
        platform.say("attributes", {"deleted": ["a"]})
        assert (await updates.get()).deleted_keys == ["a"]
        assert (await client.claim_device(ClaimRequest.build("s", 10))).is_successful()
        assert await platform.hear("claim") == {"secretKey": "s", "durationMs": 10_000}
        await client.stop()


async def test_a_broker_that_routes_does_not_echo(mosquitto):
    """A device is subscribed to topics that it publishes to."""
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


async def test_a_broker_that_forbids_requests_takes_telemetry(mosquitto):
    mosquitto.stop()
    acl = mosquitto.folder / "acl"
    acl.write_text(f"pattern write {ME}telemetry\n")
    # Each listener has a list of its own; this is for the first.
    config = mosquitto._config
    mosquitto._config = lambda: config().replace("allow_anonymous true\n", f"allow_anonymous true\nacl_file {acl}\n", 1)
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
    # Acknowledged only when the next session is set up.
    assert (await client.send_timeseries({"a": 1}, timeout=20)).is_successful()
    async with Platform(mosquitto) as platform:
        platform.say("attributes", {"a": 1})
        assert (await updates.get()).get("a") == 1
        await client.stop()
    for topic in ("attributes", "attributes/response/+", "rpc/request/+", "rpc/response/+"):
        # Twice in the log: what it received, at QoS 1.
        assert mosquitto.log.count(f"\t{ME}{topic} (QoS 1)\n") == 2
