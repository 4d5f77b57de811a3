"""Sub-devices of a gateway are announced, lost and announced again, and their sessions have the matching states."""

import asyncio

import pytest
from device_peer import NoException
from gateway_wire import CONNECTED, DISCONNECTED, FAILED, LOST, RECONNECTING, States, Wire, announced

from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.emulator import RateLimits, SessionLimits, Verdict, codec, downlinks
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.service.gateway.incoming import GATEWAY_DOWNLINK_TOPICS


def filters_in(monkeypatch, packet):
    """Return a list that gets the filters of each packet of this kind that the emulator receives."""
    seen, decode = [], getattr(codec, packet)

    def decoded(*arguments):
        packet_id, filters = decode(*arguments)
        seen.extend(filters)
        return packet_id, filters

    monkeypatch.setattr(codec, packet, decoded)
    return seen


def test_a_gateway_client_is_a_device_client():
    assert issubclass(GatewayClient, DeviceClient)
    assert (GatewayClient.OPERATIONAL_TIMEOUT, GatewayClient.SUBSCRIPTIONS_TIMEOUT) == (5.0, 1.0)


async def test_connect_device_announces_the_device(emulator, gateway):
    wire = Wire(emulator)
    session, [future] = await gateway.connect_device("D1", "thermometer")
    assert session.state is DISCONNECTED
    states = States(session)
    result = await future
    assert (result.topic, result.reason_code, result.datapoints_count, result.qos) == ("v1/gateway/connect", 0, 0, 1)
    assert result.message_id > 0
    await states.until(CONNECTED)
    assert gateway.device_manager.connected_devices == {session}
    assert emulator.device("D1").profile == "thermometer"
    again, [future] = await gateway.connect_device(DeviceConnectMessage.build("D1", "other"))
    assert again is session
    assert (await future).is_successful()
    assert states.seen == [CONNECTED]
    assert session.device_info.device_profile == "thermometer"
    assert wire.of("connect") == [{"device": "D1", "type": "thermometer"}, {"device": "D1", "type": "other"}]


@pytest.mark.parametrize("wait", [True, False])
async def test_defect_46_disconnect_device_forgets_the_session(emulator, gateway, wait):
    wire = Wire(emulator)
    session = await announced(gateway)
    states = States(session)
    assert emulator.device("D1").connected
    of_session, outcome = await gateway.disconnect_device(session, wait_for_publish=wait)
    assert of_session is session
    result = outcome if wait else await outcome[0]
    assert (result.topic, result.reason_code) == ("v1/gateway/disconnect", 0)
    assert not emulator.device("D1").connected
    assert (states.seen, session.manager) == ([DISCONNECTED], None)
    assert not gateway.device_manager.is_connected(session.device_info.device_id)
    assert wire.of("disconnect") == [{"device": "D1"}]
    # The next session with this name is a new object.
    assert await announced(gateway) is not session


async def test_defect_46_a_result_after_the_timeout_names_its_topic(emulator, gateway, monkeypatch):
    monkeypatch.setattr(GatewayClient, "OPERATIONAL_TIMEOUT", 0.01)
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.startswith("v1/gateway") else None
    session, result = await gateway.connect_device("D1", wait_for_publish=True)
    assert (result.topic, result.message_id, result.payload_size, result.reason_code) == ("v1/gateway/connect", -1, -1, -1)
    _, result = await gateway.disconnect_device(session, wait_for_publish=True)
    assert (result.topic, result.reason_code) == ("v1/gateway/disconnect", -1)
    await gateway.stop(timeout=0.01)


async def test_data_and_requests_of_a_refused_device_have_its_reason(emulator, gateway):
    """This applies to sends and requests before and after the refusal."""
    wire = Wire(emulator)
    wire.verdict = lambda publish: Verdict.refuse(0x87) if publish.topic.endswith("/connect") else None
    session, [connecting] = await gateway.connect_device("D1")
    states = States(session)
    early = await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    asked = asyncio.create_task(gateway.request_device_attributes(session, ["a"]))
    assert [result.reason_code for result in await asyncio.gather(connecting, early)] == [0x87, 0x87]
    assert [type(error).__name__ for error in await asyncio.gather(asked, return_exceptions=True)] == ["RequestRefusedError"]
    assert states.seen == [FAILED]
    assert (await gateway.send_device_attributes(session, {"a": 1})).reason_code == 0x87
    assert {publish.topic for publish in wire.publishes} == {"v1/gateway/connect"}
    wire.verdict = lambda _: None
    await gateway.connect_device("D1", wait_for_publish=True)
    assert (await gateway.send_device_attributes(session, {"a": 1})).is_successful()
    assert states.seen == [FAILED, CONNECTED]


async def test_a_second_announcement_can_be_accepted_after_a_refused_one(emulator, gateway):
    verdicts = iter([Verdict.refuse(0x87), None])
    emulator.on_publish = lambda publish: next(verdicts) if publish.topic.endswith("/connect") else None
    session, [first] = await gateway.connect_device("D1")
    _, [second] = await gateway.connect_device("D1")
    assert [result.reason_code for result in await asyncio.gather(first, second)] == [0x87, 0]
    assert session.state is CONNECTED
    assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()


@pytest.mark.parametrize("cut", ["by the server", "by the network"])
async def test_defect_20_and_contract_9_a_reconnect_restores_devices_and_subscriptions(emulator, gateway, cut, monkeypatch):
    """Topics are subscribed, devices are announced with their profiles, and server-side RPC works."""
    subscribed = filters_in(monkeypatch, "decode_subscribe")
    sessions = [await announced(gateway, f"D{number}", f"p{number}") for number in range(3)]
    seen = [States(session) for session in sessions]
    updates = asyncio.Queue()
    sessions[0].set_attribute_update_callback(lambda session, update: updates.put_nowait((session, update.as_dict())))
    sessions[1].set_rpc_request_callback(lambda _session, request: RPCResponse.build(request.request_id, request.params))
    wire = Wire(emulator)
    connected_at = sessions[0].connected_at
    if cut == "by the server":
        await emulator.disconnect_device("GATEWAY", 0x8B)
    else:
        emulator.device("gateway").session.abort()
    for states in seen:
        await states.until(LOST, RECONNECTING, CONNECTED)
    assert wire.of("connect") == [{"device": f"D{number}", "type": f"p{number}"} for number in range(3)]
    assert sessions[0].connected_at >= connected_at
    assert set(subscribed) >= {(topic, 1) for topic in GATEWAY_DOWNLINK_TOPICS}
    assert await emulator.set_shared_attributes("D0", {"a": 1})
    assert await updates.get() == (sessions[0], {"a": 1})
    assert await emulator.call_rpc("D1", "echo", [1]) == {"result": [1]}


async def test_contract_9_telemetry_waits_for_the_announcement(emulator, gateway):
    """Telemetry before the announcement would create the device with the profile "default"."""
    wire = Wire(emulator)
    wire.verdict = lambda publish: Verdict.delay(0.02) if publish.topic.endswith("/connect") else None
    futures = []
    for number in range(20):
        session, _ = await gateway.connect_device(f"D{number}", f"p{number}")
        futures.append(await gateway.send_device_timeseries(session, {"a": number}, wait_for_publish=False))
        futures.append(await gateway.send_device_attributes(session, {"a": number}, wait_for_publish=False))
    assert {result.reason_code for result in await asyncio.gather(*futures)} == {0}
    assert [emulator.device(f"D{number}").profile for number in range(20)] == [f"p{number}" for number in range(20)]
    assert {publish.topic for publish in wire.publishes[:20]} == {"v1/gateway/connect"}


async def test_contract_9_control_messages_count_against_the_limits_of_the_gateway(emulator, make_gateway):
    """The device of the gateway has few messages left; its sub-devices are not limited."""
    emulator.limits = SessionLimits(rate_limits=RateLimits(messages="5:1000"))
    gateway = make_gateway(rate_limit_percentage=100)
    await gateway.connect()
    session = await announced(gateway)
    session.set_rpc_request_callback(lambda *_: None)
    for _ in range(10):
        await announced(gateway)
        await gateway.request_device_attributes(session, ["a"])
        assert await emulator.call_rpc("D1", "m") == {}
    await gateway.disconnect_device(session, wait_for_publish=True)
    assert gateway.statistics.seconds_limited == 0
    await gateway.stop()


async def test_devices_are_announced_again_within_the_limits(emulator, make_gateway):
    """20 devices take two messages each; a server-side RPC gets its response between them."""
    emulator.limits = SessionLimits(gateway_rate_limits=RateLimits(messages="100:2"))
    gateway = make_gateway(rate_limit_percentage=50)
    await gateway.connect()
    sessions = [(await gateway.connect_device(f"D{number}"))[0] for number in range(20)]
    sessions[0].set_rpc_request_callback(lambda *_: None)
    await States(sessions[-1]).until(CONNECTED)
    wire = Wire(emulator)
    await emulator.disconnect_device("GATEWAY")
    await States(sessions[0]).until(CONNECTED)
    assert await emulator.call_rpc("D0", "m") == {}
    before_response = len(wire.of("connect"))
    await States(sessions[-1]).until(CONNECTED)
    # The limit is 50 at once and 25 per second. The first announcements took 40 of them, so the next ones have to wait.
    assert gateway.statistics.seconds_limited > 0
    assert before_response < 20
    await gateway.stop()


async def test_a_disconnect_by_the_gateway_is_not_a_lost_connection(emulator, gateway):
    wire = Wire(emulator)
    session = await announced(gateway)
    states = States(session)
    await gateway.disconnect()
    assert states.seen == [DISCONNECTED]
    assert gateway.device_manager.get_by_name("D1") is session
    await gateway.connect()
    await states.until(DISCONNECTED, RECONNECTING, CONNECTED)
    assert wire.of("connect")[-1] == {"device": "D1", "type": "default"}
    await gateway.stop()
    assert states.seen[-1] is DISCONNECTED


async def test_disconnect_changes_a_lost_session_to_disconnected(emulator, gateway):
    session = await announced(gateway)
    states = States(session)
    await emulator.stop()
    await states.until(LOST)
    await gateway.disconnect()
    assert states.seen == [LOST, DISCONNECTED]
    await emulator.start()


async def test_a_device_connected_during_an_outage_is_announced_after_it(emulator, gateway):
    await emulator.stop()
    session, [future] = await gateway.connect_device("D1", "p")
    data = await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    await emulator.start()
    assert [result.is_successful() for result in await asyncio.gather(future, data)] == [True, True]
    assert (emulator.device("D1").profile, emulator.device("D1").counters.connections) == ("p", 1)


async def test_an_error_in_a_state_callback_is_logged_and_counted(emulator, gateway, caplog):
    session = await announced(gateway)
    other = await announced(gateway, "D2")
    states = States(other)
    errors = iter([ZeroDivisionError("by zero"), NoException("skipped"), ZeroDivisionError("by zero")])

    def fail(_session):
        raise next(errors)

    session.set_state_change_callback(fail)
    await emulator.disconnect_device("GATEWAY")
    await states.until(LOST, RECONNECTING, CONNECTED)
    assert session.state is CONNECTED
    assert gateway.statistics.callback_errors == 3
    assert "The callback for the state of D1 failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_disconnect_unsubscribes_from_all_topics(gateway, monkeypatch):
    """SDK 2.0 did this too."""
    unsubscribed = filters_in(monkeypatch, "decode_unsubscribe")
    await gateway.disconnect()
    assert unsubscribed == list(GATEWAY_DOWNLINK_TOPICS)


@pytest.mark.parametrize("version", [4, 5])
async def test_a_refused_subscription_is_logged_and_the_gateway_works(emulator, make_gateway, monkeypatch, caplog, version):
    monkeypatch.setattr(downlinks, "SUBSCRIBABLE", downlinks.SUBSCRIBABLE - {"v1/gateway/rpc"})
    gateway = make_gateway(mqtt_version=version)
    await gateway.connect()
    assert "The server refused the subscription to v1/gateway/rpc" in caplog.text
    session = await announced(gateway)
    assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()
    await gateway.stop()


async def test_each_message_of_a_device_updates_last_seen(emulator, gateway):
    session = await announced(gateway)
    updated = asyncio.Event()
    session.set_attribute_update_callback(lambda *_: updated.set())

    async def downlink():
        await emulator.set_shared_attributes("D1", {"a": 1})
        await updated.wait()

    for traffic in (
        lambda: gateway.send_device_timeseries(session, {"a": 1}),
        lambda: gateway.send_device_attributes(session, {"a": 1}),
        lambda: gateway.request_device_attributes(session, ["a"]),
        lambda: emulator.call_rpc("D1", "m"),
        downlink,
    ):
        session.last_seen_at = 0
        await traffic()
        assert session.last_seen_at > 1_700_000_000_000
