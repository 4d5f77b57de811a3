"""Each session of a device is set up completely, and unexpected messages are counted and logged."""

import asyncio
import logging
import time

import pytest
from device_peer import ATTRIBUTES, RPC_REQUEST, RPC_RESPONSE, RPCResponses, make_client

from engine_parts import engine_of
from tb_mqtt_client import DeviceClient, NotConnectedError
from tb_mqtt_client.common.exceptions import SubscriptionRefusedError
from tb_mqtt_client.emulator import Emulator, RateLimits, SessionLimits
from tb_mqtt_client.service.engine import Component
from tb_mqtt_client.service.requests import dispatch


async def test_defect_21_and_22_connect_returns_after_all_subscriptions(emulator):
    client = make_client(emulator)
    updates, responses = asyncio.Queue(), RPCResponses(emulator)
    client.set_attribute_update_callback(updates.put_nowait)
    client.set_rpc_request_callback(lambda request: request.method)
    for connect in range(3):
        if connect == 1:
            await emulator.disconnect_device("TOKEN")
            # The acknowledgement shows that the next session is set up.
            await client.send_attributes({"a": 1}, timeout=None)
        elif connect == 2:
            await client.disconnect()
            await client.connect()
        else:
            await client.connect()
        assert await responses.to(0, {"method": "m"}) == (0, {"result": "m"})
        assert await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": connect})
        assert (await updates.get()).as_dict() == {"a": connect}
    await client.stop()


async def test_the_messages_of_a_session_count_against_the_limits(emulator):
    emulator.limits = SessionLimits(rate_limits=RateLimits(messages="100:3600"))
    client = make_client(emulator, rate_limit_percentage=100)
    responses = RPCResponses(emulator)
    client.set_rpc_request_callback(lambda _: None)

    def spent():
        engine = engine_of(client)
        return 100 - round(engine.rate_limiter.message_rate_limit.buckets.tokens(time.monotonic_ns())[0])

    await client.connect()
    # The platform counts the connection and two of the subscriptions.
    assert spent() == 3
    await responses.to(1, {"method": "m"})
    # The PUBACK of the request, and the response.
    assert spent() == 5
    while engine_of(client).mqtt_manager.in_flight:  # noqa: ASYNC110  # otherwise, the next session would repeat the response
        await asyncio.sleep(0)
    await client.disconnect()
    await client.connect()
    # The end of the session takes a token too.
    assert spent() == 9
    await client.stop()


async def test_subscriptions_wait_for_tokens(emulator):
    """The platform acknowledges a subscription over the limit, but sends no messages for it."""
    # The client uses half of the limit that the server enforces; with all of it, a delayed message would exceed it.
    emulator.limits = SessionLimits(rate_limits=RateLimits(messages="4:1"))
    client = make_client(emulator, rate_limit_percentage=50)
    await client.connect()
    # The connection took one token, so that one was left for two subscriptions.
    assert await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 1})
    assert await emulator.publish_to("TOKEN", f"{RPC_REQUEST}0", {"method": "m"})
    await client.stop()


async def test_telemetry_does_not_wait_for_subscriptions(emulator):
    emulator.limits = SessionLimits(rate_limits=RateLimits(messages="2:3600"))
    client = make_client(emulator, rate_limit_percentage=100)
    connecting = asyncio.create_task(client.connect())
    await engine_of(client).mqtt_manager.writable.wait()
    assert (await client.send_timeseries({"a": 1})).is_successful()
    assert not connecting.done()
    await client.stop()
    with pytest.raises(NotConnectedError, match="stopped while it was connecting"):
        await connecting


async def test_connect_raises_if_the_connection_ends_while_a_subscription_waits(emulator):
    emulator.limits = SessionLimits(rate_limits=RateLimits(messages="4:3600"))
    client = make_client(emulator, rate_limit_percentage=25)
    connecting = asyncio.create_task(client.connect())
    while not engine_of(client).rate_limiter.message_rate_limit.has_limit():  # noqa: ASYNC110
        await asyncio.sleep(0)
    await emulator.disconnect_device("TOKEN")
    with pytest.raises(ConnectionError):
        await connecting
    await client.stop()


async def test_defect_70_a_refused_subscription_is_logged_and_the_client_works(emulator, caplog):
    class WithWildcard(Component):
        topics = ("v1/devices/me/#",)

    client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
    engine_of(client).add(WithWildcard())
    client.set_rpc_request_callback(lambda _: 1)
    with caplog.at_level(logging.WARNING):
        await client.connect()
    refusal = "The server refused the subscription to v1/devices/me/#: Topic Filter invalid. Messages of this topic will not arrive"
    assert [record.getMessage() for record in caplog.records] == [refusal]
    assert (await client.send_timeseries({"a": 1})).is_successful()
    assert await RPCResponses(emulator).to(1, {"method": "m"}) == (1, {"result": 1})
    with pytest.raises(SubscriptionRefusedError) as refused:
        await engine_of(client).mqtt_manager.subscribe("#")
    assert (refused.value.topic, refused.value.reason_code) == ("#", 0x8F)
    await client.stop()


async def test_unexpected_and_malformed_messages_are_counted_and_logged(emulator, device, caplog, monkeypatch):
    monkeypatch.setattr(dispatch, "QUIET_SECONDS", 1000.0)
    session = emulator.device("device").session
    with caplog.at_level(logging.WARNING):
        for topic in ("x", "v1/devices/me", f"{ATTRIBUTES}/response/1/2", f"{ATTRIBUTES}/response/77", f"{RPC_RESPONSE}77"):
            session.send(topic, b"{}")
        for topic in (f"{ATTRIBUTES}/response/x", f"{RPC_RESPONSE}x", f"{ATTRIBUTES}/response/3"):
            session.send(topic, b"{}" if topic.endswith("x") else b"no json")
        await device.send_attributes({"a": 1})
        assert (await device.send_attributes({"a": 1})).is_successful()
    assert (device.statistics.inbound_unexpected, device.statistics.inbound_malformed) == (5, 3)
    # One line of each kind, because a server can send very many messages.
    assert len(caplog.records) == 2
    assert "Unexpected message on x: there is no handler for its topic" in caplog.text


async def test_a_downlink_with_packet_id_0_gets_a_response(emulator, device):
    """After 65,535 downlinks the platform sends packet id 0 (docs/platform_contract.md, section 1)."""
    device.set_rpc_request_callback(lambda _: 1)
    responses = RPCResponses(emulator)
    emulator.device("device").session.last_downlink_id = 65_535
    assert await responses.to(5, {"method": "m"}) == (5, {"result": 1})
    assert await responses.to(6, {"method": "m"}) == (6, {"result": 1})


async def test_updates_arrive_after_a_disconnect_before_a_handler_started(emulator):
    """A handler that is cancelled before it starts must not block its topic forever."""
    client = make_client(emulator)
    updates = asyncio.Queue()
    client.set_attribute_update_callback(updates.put_nowait)
    await client.connect()
    engine_of(client).mqtt_manager.inbound.dispatch(ATTRIBUTES, b'{"a":1}')
    await client.disconnect()
    await client.connect()
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 2})
    update = await updates.get()
    while update.get("a") == 1:
        update = await updates.get()
    assert update.get("a") == 2
    await client.stop()


async def test_a_late_response_to_the_limits_request_counts_as_unexpected(caplog):
    """Servers before 3.8 respond with {"error": "timeout"} after a minute, as for an RPC."""
    async with Emulator(limits=None) as emulator:
        emulator.add_device("TOKEN", "device")
        client = make_client(emulator, limits_timeout=0.01)
        await client.connect()
        emulator.device("device").session.send(f"{RPC_RESPONSE}1", b'{"error":"timeout"}')
        await client.send_attributes({"a": 1})
        assert client.statistics.inbound_unexpected == 1
        await client.stop()


async def test_data_sent_after_a_failed_connect_is_published_after_the_next(emulator):
    await emulator.stop()
    client = make_client(emulator)
    with pytest.raises(ConnectionRefusedError):
        await client.connect()
    [future] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    await emulator.start()
    await client.connect()
    assert (await future).is_successful()
    await client.stop()


@pytest.mark.parametrize("client_id", ["plain", "gerät", "温度計 🌡", ""])
async def test_a_client_id_may_have_any_characters(emulator, client_id):
    """The length in a CONNECT counts bytes, not characters."""
    attempts = []
    emulator.on_connect = attempts.append
    options = {"client_id": client_id} if client_id else {}
    client = make_client(emulator, **options)
    await client.connect()
    assert (await client.send_timeseries({"a": 1})).is_successful()
    await client.stop()
    [attempt] = attempts
    assert attempt.client_id == client_id or not client_id
