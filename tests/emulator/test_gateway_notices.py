"""Notices about sub-devices that the platform disconnected, renamed or deleted."""

import asyncio

import pytest
from gateway_wire import CONNECTED, DISCONNECTED, LOST, RECONNECTING, States, Wire, announced

from engine_parts import engine_of
from tb_mqtt_client import DeviceClient
from tb_mqtt_client.common.exceptions import NotConnectedError
from tb_mqtt_client.emulator import RateLimits, SessionLimits, Verdict
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.gateway_event import GatewayEventType


@pytest.mark.parametrize("reason", [128, 129, 150])
async def test_contract_9_notice_of_a_disconnect(emulator, gateway, reason):
    """The session's state changes, and the device is announced again. After a notice about a limit, the client pauses."""
    session, events = await announced(gateway, profile="p"), []
    states = States(session)
    gateway.event_dispatcher.register(GatewayEventType.DEVICE_DISCONNECT, events.append)
    wire = Wire(emulator)
    assert await emulator.send_disconnect_notice("D1", reason)
    await states.until(LOST, RECONNECTING, CONNECTED)
    assert wire.of("connect") == [{"device": "D1", "type": "p"}]
    assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()
    assert [event.device_session for event in events] == [session]
    assert gateway.statistics.backpressure_pauses == (1 if reason == 150 else 0)


@pytest.mark.parametrize(
    "notice",
    [
        b"{",
        b"[]",
        b"{}",
        {"device": "D1"},
        {"device": 5, "reason": 128},
        {"device": "", "reason": 128},
        {"device": "D1", "reason": "x"},
    ],
)
async def test_malformed_notices_of_a_disconnect(emulator, gateway, notice):
    session = await announced(gateway)
    states = States(session)
    await emulator.publish_to("GATEWAY", "v1/gateway/disconnect", notice)
    await emulator.send_disconnect_notice("D1", 128)
    await states.until(LOST, RECONNECTING, CONNECTED)
    assert states.seen == [LOST, RECONNECTING, CONNECTED]
    assert gateway.statistics.inbound_malformed == 1
    assert await emulator.publish_to("GATEWAY", "v1/gateway/disconnect", {"device": "unknown", "reason": 128})
    await emulator.send_disconnect_notice("D1", 128)
    await states.until(*[LOST, RECONNECTING, CONNECTED] * 2)
    assert gateway.statistics.inbound_unexpected == 1


async def test_contract_9_notice_of_a_rename(emulator, gateway):
    """The new name is announced, data is sent under it, and both names find the session."""
    session, events = await announced(gateway, "old", "p"), asyncio.Queue()
    states = States(session)
    session.set_rpc_request_callback(lambda _session, request: RPCResponse.build(request.request_id, request.device_name))
    gateway.event_dispatcher.register(GatewayEventType.DEVICE_UPDATE, events.put_nowait)
    gateway.set_rpc_request_callback(lambda request: pytest.fail(str(request)))
    wire = Wire(emulator)
    await emulator.rename_device("old", "new")
    assert (await events.get()).device_session is session
    await states.until(RECONNECTING, CONNECTED)
    assert (session.device_info.device_name, session.device_info.original_name) == ("new", "old")
    assert [gateway.device_manager.get_by_name(name) for name in ("new", "old")] == [session, session]
    assert wire.of("connect") == [{"device": "new", "type": "p"}]
    assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()
    assert [point.key for point in emulator.device("new").telemetry] == ["a"]
    assert await emulator.call_rpc("new", "m") == {"result": "new"}
    # The response to an RPC request with the old name has that name.
    await emulator.publish_to("GATEWAY", "v1/gateway/rpc", {"device": "old", "data": {"id": 5, "method": "m"}})
    assert (await wire.next("rpc"))["device"] == "new"
    assert await wire.next("rpc") == {"device": "old", "id": 5, "data": {"result": "old"}}
    # Both names connect the renamed device.
    assert (await gateway.connect_device("old", wait_for_publish=True))[0] is session
    assert wire.of("connect")[-1]["device"] == "new"
    assert emulator.rpc_responses("gateway") == []


async def test_waiting_data_of_a_renamed_device_is_sent_under_the_new_name(emulator, make_gateway):
    """Under the old name, the platform would create a new device. The data is queued, packed, in flight, or held."""
    emulator.limits = SessionLimits(gateway_rate_limits=RateLimits(telemetry_messages="10:1"))
    gateway = make_gateway(rate_limit_percentage=50, combine_devices=True)
    await gateway.connect()
    session, other = await announced(gateway, "old", "p"), await announced(gateway, "other")
    wire = Wire(emulator)
    wire.verdict = lambda publish: Verdict.ignore() if publish.topic.endswith("/telemetry") else None
    # The data exceeds the limit, so that some of it waits at each stage.
    futures = []
    for ts in range(1, 40):
        for to in (session, other):
            data = {"ts": ts, "values": {f"a{ts}": "x" * 1000}}
            futures.append(await gateway.send_device_timeseries(to, data, wait_for_publish=False))
    await wire.next("telemetry")
    states = States(session)
    await emulator.rename_device("old", "new")
    await states.until(RECONNECTING, CONNECTED)
    emulator.limits = SessionLimits()
    wire.verdict = lambda _: None
    await emulator.disconnect_device("GATEWAY")
    results = await asyncio.gather(*futures)
    assert {result.reason_code for result in results} == {0}
    assert "old" not in emulator.devices
    for name in ("new", "other"):
        stored = {point.ts for point in emulator.device(name).telemetry}
        assert stored == set(range(1, 40))
    assert gateway.statistics.acknowledged == gateway.statistics.accepted
    await gateway.stop()


@pytest.mark.parametrize("new_name", ["n", "a much longer name than before " * 3])
@pytest.mark.parametrize("limit", ["bytes", "datapoints", "the connection ends"])
async def test_data_in_flight_of_a_renamed_device_is_split_like_any_other(emulator, make_gateway, limit, new_name):
    """It exceeds a limit of the next session, or one of its sends ends the connection."""
    gateway = make_gateway(max_inflight_messages=1)
    engine_of(gateway).message_service.suspects.interval = 0.01
    await gateway.connect()
    session, wire = await announced(gateway, "old", "p"), Wire(emulator)
    states = States(session)
    wire.verdict = lambda publish: Verdict.ignore() if publish.topic.endswith("/telemetry") else None
    # The first one fills the window, so that the others are packed together.
    futures = [
        await gateway.send_device_timeseries(session, {"ts": ts, "values": {"a": "x" * 40, "b": ts}}, wait_for_publish=False)
        for ts in range(1, 32)
    ]
    await wire.next("telemetry")
    wire.verdict = lambda publish: Verdict.ignore() if b'"b":30' in publish.payload else None
    await emulator.disconnect_device("GATEWAY")
    while len((await wire.next("telemetry"))["old"]) < 20:
        pass
    await emulator.rename_device("old", new_name)
    await states.until(RECONNECTING, CONNECTED)
    bad = b'"b":7' if limit == "the connection ends" else b"nothing"
    wire.verdict = lambda publish: Verdict.close() if bad in publish.payload else None
    if limit == "bytes":
        emulator.max_payload_size = 700
    elif limit == "datapoints":
        emulator.limits = SessionLimits(gateway_rate_limits=RateLimits(telemetry_datapoints="40:1"))
    await emulator.disconnect_device("GATEWAY")
    async with asyncio.timeout(20):
        results = await asyncio.gather(*futures)
    expected = {ts for ts in range(1, 32) if limit != "the connection ends" or ts != 7}
    assert {ts for ts, result in enumerate(results, start=1) if result.is_successful()} == expected
    assert {point.ts for point in emulator.device(new_name).telemetry} == expected
    assert "old" not in emulator.devices
    await gateway.stop()


async def test_packed_data_that_a_longer_name_makes_too_large_is_split(emulator, make_gateway):
    """A server closes the connection for a packet that is too large."""
    emulator.max_payload_size = 1000
    gateway = make_gateway(max_inflight_messages=1)
    await gateway.connect()
    session, wire = await announced(gateway, "old"), Wire(emulator)
    states = States(session)
    # The first message fills the window, so that the others of its batch are packed, and not published, when the name changes.
    wire.verdict = lambda publish: Verdict.delay(0.3) if publish.topic.endswith("/telemetry") else None
    futures = [
        await gateway.send_device_timeseries(session, {"ts": ts, "values": {"a": "x" * 40}}, wait_for_publish=False)
        for ts in range(1, 50)
    ]
    await wire.next("telemetry")
    wire.verdict = lambda _: None
    await emulator.rename_device("old", "a much longer name " * 5)
    await states.until(RECONNECTING, CONNECTED)
    results = await asyncio.gather(*futures)
    assert {result.reason_code for result in results} == {0}
    assert gateway.statistics.reconnects == 0
    await gateway.stop()


async def test_a_rename_to_the_name_of_a_known_device(emulator, gateway):
    """The program connected the new name before the notice arrived: the old session ends, and its queued data is moved."""
    old, new = await announced(gateway, "old"), await announced(gateway, "new")
    states, events = States(old), asyncio.Queue()
    gateway.event_dispatcher.register(GatewayEventType.DEVICE_DISCONNECT, events.put_nowait)
    await emulator.publish_to(
        "GATEWAY", "v1/devices/me/rpc/request/0", {"method": "gateway_device_renamed", "params": {"old": "new"}}
    )
    assert (await events.get()).device_session is old
    assert (states.seen, old.manager, gateway.device_manager.get_by_name("new")) == ([DISCONNECTED], None, new)
    assert new.state is CONNECTED


async def test_contract_9_notice_of_a_deletion(emulator, gateway):
    """The session ends, and its waiting data is undelivered: sent, it would create the device again."""
    session, events = await announced(gateway), asyncio.Queue()
    states, wire = States(session), Wire(emulator)
    gateway.event_dispatcher.register(GatewayEventType.DEVICE_DISCONNECT, events.put_nowait)
    wire.verdict = lambda publish: Verdict.ignore() if publish.topic != "v1/gateway/telemetry" else None
    # The data waits for the acknowledgement of an announcement, which the server does not send.
    await gateway.connect_device("D1")
    data = await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    requested = asyncio.create_task(gateway.request_device_attributes(session, ["a"]))
    await asyncio.sleep(0)
    await emulator.delete_device("D1")
    assert (await events.get()).device_session is session
    assert (states.seen, session.manager, gateway.device_manager.get_by_name("D1")) == ([DISCONNECTED], None, None)
    assert (await data).reason_code == -1
    with pytest.raises(NotConnectedError, match="'D1' was disconnected or deleted"):
        await requested
    statistics = gateway.statistics
    assert (statistics.accepted, statistics.undelivered, statistics.queued) == (1, 1, 0)
    assert wire.of("telemetry") == []
    assert "D1" not in emulator.devices
    # Connecting the name again creates a device.
    wire.verdict = lambda _: None
    await emulator.disconnect_device("GATEWAY")
    again = await announced(gateway)
    assert again is not session
    assert (await gateway.send_device_timeseries(again, {"a": 2})).is_successful()
    assert [point.value for point in emulator.device("D1").telemetry] == [2]


async def test_packed_data_of_a_deleted_device_is_undelivered(emulator, make_gateway):
    emulator.limits = SessionLimits(gateway_rate_limits=RateLimits(telemetry_messages="1:100"))
    gateway = make_gateway(rate_limit_percentage=100, combine_devices=False)
    await gateway.connect()
    session = await announced(gateway)
    # The first send takes the only token of the limit. The second one is packed, and waits for a token.
    assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()
    waiting = await gateway.send_device_timeseries(session, {"a": 2}, wait_for_publish=False)
    states = States(session)
    await emulator.delete_device("D1")
    await states.until(DISCONNECTED)
    emulator.limits = SessionLimits()
    await emulator.disconnect_device("GATEWAY")
    assert (await waiting).reason_code == -1
    assert "D1" not in emulator.devices
    statistics = gateway.statistics
    assert (statistics.accepted, statistics.acknowledged, statistics.undelivered) == (2, 1, 1)
    await gateway.stop()


@pytest.mark.parametrize(
    ("method", "params", "malformed"),
    [
        ("gateway_device_renamed", ["D1"], 1),
        ("gateway_device_renamed", {"D1": 5}, 1),
        ("gateway_device_renamed", {"D1": ""}, 1),
        ("gateway_device_renamed", {"": "x"}, 1),
        ("gateway_device_renamed", {"unknown": "x"}, 0),
        ("gateway_device_renamed", {"D1": "D1"}, 0),
        ("gateway_device_renamed", {}, 0),
        ("gateway_device_deleted", None, 1),
        ("gateway_device_deleted", {"D1": 1}, 1),
        ("gateway_device_deleted", "unknown", 0),
    ],
)
async def test_invalid_notices_and_notices_about_other_devices_change_nothing(emulator, gateway, method, params, malformed):
    session = await announced(gateway)
    states = States(session)
    gateway.set_rpc_request_callback(lambda request: request.method)
    await emulator.call_rpc("gateway", method, params, oneway=True)
    assert await emulator.call_rpc("gateway", "after") == {"result": "after"}
    assert (states.seen, session.device_info.device_name) == ([], "D1")
    assert gateway.statistics.inbound_malformed == malformed
    assert len(emulator.rpc_responses("gateway")) == (2 if malformed else 1)


async def test_for_a_device_client_notices_are_rpc_requests(emulator):
    """Only gateways get notices: the callback handles a request with such a method."""
    client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
    client.set_rpc_request_callback(lambda request: request.params)
    await client.connect()
    assert await emulator.call_rpc("device", "gateway_device_deleted", "x") == {"result": "x"}
    await client.stop()
