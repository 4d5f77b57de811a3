"""Sub-devices of a gateway: announced, lost, announced again, renamed and deleted, and what their sessions say of it."""

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
    """What is in the packets of this kind that reach the emulator from now on."""
    seen, decode = [], getattr(codec, packet)

    def decoded(*arguments):
        packet_id, filters = decode(*arguments)
        seen.extend(filters)
        return packet_id, filters

    monkeypatch.setattr(codec, packet, decoded)
    return seen


def test_what_a_gateway_client_is():
    assert issubclass(GatewayClient, DeviceClient)
    assert (GatewayClient.OPERATIONAL_TIMEOUT, GatewayClient.SUBSCRIPTIONS_TIMEOUT) == (5.0, 1.0)


async def test_connecting_devices(emulator, gateway):
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
async def test_defect_46_disconnecting_a_device(emulator, gateway, wait):
    """The session is forgotten in both cases, and a result that did not come in time names the right topic."""
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
    # Another session for the same name.
    assert await announced(gateway) is not session


async def test_defect_46_results_that_do_not_come_in_time(emulator, gateway, monkeypatch):
    monkeypatch.setattr(GatewayClient, "OPERATIONAL_TIMEOUT", 0.01)
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.startswith("v1/gateway") else None
    session, result = await gateway.connect_device("D1", wait_for_publish=True)
    assert (result.topic, result.message_id, result.payload_size, result.reason_code) == ("v1/gateway/connect", -1, -1, -1)
    _, result = await gateway.disconnect_device(session, wait_for_publish=True)
    assert (result.topic, result.reason_code) == ("v1/gateway/disconnect", -1)
    await gateway.stop(timeout=0.01)


async def test_a_refused_device(emulator, gateway):
    """What was sent for it, and what is sent later, gets the platform's reason."""
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


async def test_two_announcements_of_which_the_first_is_refused(emulator, gateway):
    verdicts = iter([Verdict.refuse(0x87), None])
    emulator.on_publish = lambda publish: next(verdicts) if publish.topic.endswith("/connect") else None
    session, [first] = await gateway.connect_device("D1")
    _, [second] = await gateway.connect_device("D1")
    assert [result.reason_code for result in await asyncio.gather(first, second)] == [0x87, 0]
    assert session.state is CONNECTED
    assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()


@pytest.mark.parametrize("cut", ["by the server", "by the network"])
async def test_defect_20_and_contract_9_after_a_reconnect_everything_is_there_again(emulator, gateway, cut, monkeypatch):
    """Topics subscribed, devices announced with their profiles, and calls come through."""
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


async def test_contract_9_telemetry_waits_for_the_connect(emulator, gateway):
    """It would create the device with the profile "default"."""
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


async def test_contract_9_control_messages_are_charged_to_the_gateways_limits(emulator, make_gateway):
    """The gateway's own device has hardly any messages left; its sub-devices have as many as they like."""
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


async def test_devices_are_announced_again_at_the_pace_of_the_limits(emulator, make_gateway):
    """20 devices cost two messages each; a call of the platform is answered between them."""
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
    before_answer = len(wire.of("connect"))
    await States(sessions[-1]).until(CONNECTED)
    # 50 at once and 25 a second, of which the first announcements took 40: the next ones have to wait.
    assert gateway.statistics.seconds_limited > 0
    assert before_answer < 20
    await gateway.stop()


async def test_the_gateways_own_end_is_no_loss(emulator, gateway):
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


async def test_disconnecting_while_the_connection_is_lost(emulator, gateway):
    session = await announced(gateway)
    states = States(session)
    await emulator.stop()
    await states.until(LOST)
    await gateway.disconnect()
    assert states.seen == [LOST, DISCONNECTED]
    await emulator.start()


async def test_a_device_that_is_connected_while_the_connection_is_lost(emulator, gateway):
    await emulator.stop()
    session, [future] = await gateway.connect_device("D1", "p")
    data = await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    await emulator.start()
    assert [result.is_successful() for result in await asyncio.gather(future, data)] == [True, True]
    assert (emulator.device("D1").profile, emulator.device("D1").counters.connections) == ("p", 1)


async def test_a_state_callback_that_raises_kills_nothing(emulator, gateway, caplog):
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


async def test_disconnect_unsubscribes_first(gateway, monkeypatch):
    """As SDK 2.0 did."""
    unsubscribed = filters_in(monkeypatch, "decode_unsubscribe")
    await gateway.disconnect()
    assert unsubscribed == list(GATEWAY_DOWNLINK_TOPICS)


@pytest.mark.parametrize("version", [4, 5])
async def test_subscriptions_that_are_refused(emulator, make_gateway, monkeypatch, caplog, version):
    """The log says so, and the gateway works on."""
    monkeypatch.setattr(downlinks, "SUBSCRIBABLE", downlinks.SUBSCRIBABLE - {"v1/gateway/rpc"})
    gateway = make_gateway(mqtt_version=version)
    await gateway.connect()
    assert "The server refused the subscription to v1/gateway/rpc" in caplog.text
    session = await announced(gateway)
    assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()
    await gateway.stop()


async def test_last_seen(emulator, gateway):
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
