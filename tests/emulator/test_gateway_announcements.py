"""Refused announcements of sub-devices are repeated or final, and the data of these devices waits or is rejected."""

import asyncio
import logging
from contextlib import suppress
from functools import partial

import pytest
from gateway_wire import CONNECTED, DISCONNECTED, FAILED, LOST, RECONNECTING, States, Wire, announced

from engine_parts import engine_of, sub_devices_of
from tb_mqtt_client import GatewayClient, GatewayConfig
from tb_mqtt_client.common.exceptions import BackpressureException, DeviceNotConnectedError, NotConnectedError
from tb_mqtt_client.emulator import RateLimits, SessionLimits, Verdict

QUICK = {"announce_delay_min": 0.01, "announce_delay_max": 0.02}
NEVER = 1000.0
PASSING = [0x80, 0x88, 0x97, 0x98, 0xFE]
FINAL = [0x81, 0x82, 0x83, 0x87, 0x90, 0x95, 0x99]


@pytest.fixture
def start(start_gateway):
    """Return a function that connects a gateway which soon announces refused devices again."""
    return partial(start_gateway, **QUICK)


def refusing(wire, times, code=0x80, name="D1"):
    """Refuse the first ``times`` announcements of a device."""
    left = [code] * times

    def verdict(publish):
        if publish.topic == "v1/gateway/connect" and publish.json()["device"] == name and left:
            return Verdict.refuse(left.pop())
        return None

    wire.verdict = verdict


def warnings_of(caplog, text):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING and text in record.getMessage()]


def counts_agree(client):
    statistics = client.statistics
    ended = statistics.acknowledged + statistics.rejected + statistics.dropped + statistics.undelivered
    return statistics.accepted == ended + statistics.queued + statistics.in_flight


async def in_flight(gateway, wire, sessions):
    """Publish one telemetry message with a datapoint of each session, which is not acknowledged. Return the delivery futures."""
    wire.verdict = lambda publish: Verdict.ignore() if publish.topic == "v1/gateway/telemetry" else None
    futures = [await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False) for session in sessions]
    assert set(await wire.next("telemetry")) == {session.device_info.device_name for session in sessions}
    return futures


@pytest.mark.parametrize("code", PASSING)
async def test_a_temporarily_refused_announcement_is_repeated_and_data_waits_for_it(emulator, start, caplog, code):
    gateway, wire = await start(), Wire(emulator)
    refusing(wire, 3, code)
    session, [connecting] = await gateway.connect_device("D1", "p")
    states = States(session)
    telemetry = await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    asked = asyncio.create_task(gateway.request_device_attributes(session, ["a"]))
    assert [result.reason_code for result in await asyncio.gather(connecting, telemetry)] == [0, 0]
    await asked
    assert states.seen == [RECONNECTING, CONNECTED]
    assert [publish.topic.rpartition("/")[2] for publish in wire.publishes[:5]] == ["connect"] * 4 + ["telemetry"]
    assert (emulator.device("D1").profile, emulator.device("D1").counters.connections) == ("p", 1)
    [warning] = warnings_of(caplog, "D1")
    assert f"({code:#04x})" in warning
    assert "Announcing it again in 0.0 s" in warning
    assert gateway.statistics.backpressure_pauses == 0


async def test_devices_announced_during_an_outage_of_the_core_are_accepted_after_it(emulator, start):
    """A device whose name the platform refuses does not delay the others."""
    emulator.core_timeout = 0.05
    emulator.core_away = True
    emulator.refused_names.add("bad")
    gateway = await start()
    sessions = [(await gateway.connect_device(name, "p"))[0] for name in ("bad", "D1", "D2")]
    all_states = [States(session) for session in sessions]
    futures = [await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False) for session in sessions]
    for states in all_states:
        await states.until(RECONNECTING)
    emulator.core_away = False
    assert [(await future).is_successful() for future in futures[1:]] == [True, True]
    assert [emulator.device(name).profile for name in ("D1", "D2")] == ["p", "p"]
    assert not futures[0].done()
    assert sessions[0].state is RECONNECTING


@pytest.mark.parametrize("emulator", ["4.2"], indirect=True)
async def test_a_missing_acknowledgement_of_an_announcement_does_not_end_the_connection(emulator, start, caplog):
    """Servers before 4.2.1 do not acknowledge the announcement of a device that they refuse."""
    emulator.refused_names.add("bad")
    gateway = await start(ack_timeout=0.1)
    bad, _ = await gateway.connect_device("bad")
    states = States(bad)
    data = await gateway.send_device_timeseries(bad, {"a": 1}, wait_for_publish=False)
    good = await announced(gateway, "good")
    await states.until(RECONNECTING)
    wire = Wire(emulator)
    for _ in range(2):
        assert (await wire.next("connect"))["device"] == "bad"
        assert (await gateway.send_device_timeseries(good, {"a": 1})).is_successful()
    assert gateway.statistics.connections == 1
    [warning] = warnings_of(caplog, "'bad'")
    assert "no acknowledgement" in warning
    emulator.refused_names.clear()
    assert (await data).is_successful()
    assert states.seen == [RECONNECTING, CONNECTED]


@pytest.mark.parametrize("code", FINAL)
async def test_an_announcement_that_would_be_refused_again_is_not_repeated(emulator, start, caplog, code):
    gateway, wire = await start(), Wire(emulator)
    refusing(wire, 1, code)
    session, [connecting] = await gateway.connect_device("D1")
    telemetry = await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    assert [result.reason_code for result in await asyncio.gather(connecting, telemetry)] == [code, code]
    assert session.state is FAILED
    assert len(wire.of("connect")) == 1
    assert (gateway.statistics.rejected, gateway.statistics.queued) == (1, 0)
    [warning] = warnings_of(caplog, "'D1'")
    assert f"({code:#04x})" in warning


@pytest.mark.parametrize("bound", [{"announce_attempts": 3}, {"announce_timeout": 0.05}])
async def test_data_is_rejected_with_the_reason_after_the_last_attempt(emulator, start, bound):
    gateway, wire = await start(**bound), Wire(emulator)
    refusing(wire, 10_000)
    session, [connecting] = await gateway.connect_device("D1")
    states = States(session)
    telemetry = await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    assert [result.reason_code for result in await asyncio.gather(connecting, telemetry)] == [0x80, 0x80]
    assert states.seen == [RECONNECTING, FAILED]
    attempts = len(wire.of("connect"))
    assert attempts == 3 if "announce_attempts" in bound else attempts >= 2
    assert (await gateway.send_device_timeseries(session, {"a": 2})).reason_code == 0x80
    assert (gateway.statistics.rejected_by_reason, gateway.statistics.queued) == ({0x80: 2}, 0)
    # The next connection announces the device again.
    wire.verdict = lambda _: None
    await emulator.disconnect_device("GATEWAY")
    await states.until(RECONNECTING, CONNECTED)
    assert (await gateway.send_device_timeseries(session, {"a": 3})).is_successful()


def test_by_default_announcements_are_repeated_without_end():
    config = GatewayConfig()
    assert (config.announce_attempts, config.announce_timeout) == (None, None)
    assert (config.announce_delay_min, config.announce_delay_max) == (1.0, 300.0)


async def test_a_caller_gets_the_reason_of_a_refusal_within_the_timeout(emulator, start, monkeypatch):
    gateway, wire = await start(announce_delay_min=NEVER), Wire(emulator)
    monkeypatch.setattr(GatewayClient, "OPERATIONAL_TIMEOUT", 0.3)
    refusing(wire, 1)
    session, result = await gateway.connect_device("D1", wait_for_publish=True)
    assert (result.topic, result.reason_code, session.state) == ("v1/gateway/connect", 0x80, RECONNECTING)


async def test_a_caller_gets_a_success_within_the_timeout(emulator, start):
    gateway, wire = await start(), Wire(emulator)
    refusing(wire, 1)
    _, result = await gateway.connect_device("D1", wait_for_publish=True)
    assert result.is_successful()


async def test_connect_device_announces_a_refused_device_at_once(emulator, start):
    gateway, wire = await start(announce_delay_min=NEVER), Wire(emulator)
    refusing(wire, 1)
    session, [first] = await gateway.connect_device("D1")
    await States(session).until(RECONNECTING)
    _, [second] = await gateway.connect_device("D1")
    assert [result.reason_code for result in await asyncio.gather(first, second)] == [0, 0]
    assert (session.state, len(wire.of("connect"))) == (CONNECTED, 2)


async def test_the_last_of_two_announcements_in_flight_decides(emulator, start):
    gateway, wire = await start(announce_delay_min=NEVER), Wire(emulator)
    refusing(wire, 1)
    session, [first] = await gateway.connect_device("D1")
    _, [second] = await gateway.connect_device("D1")
    assert [result.reason_code for result in await asyncio.gather(first, second)] == [0, 0]
    assert session.state is CONNECTED


async def test_a_new_connection_announces_a_refused_device_at_once(emulator, start):
    gateway, wire = await start(announce_delay_min=NEVER), Wire(emulator)
    refusing(wire, 1)
    session, [connecting] = await gateway.connect_device("D1")
    states = States(session)
    telemetry = await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    await states.until(RECONNECTING)
    await emulator.disconnect_device("GATEWAY")
    assert [result.reason_code for result in await asyncio.gather(connecting, telemetry)] == [0, 0]
    assert states.seen == [RECONNECTING, LOST, RECONNECTING, CONNECTED]


async def refused_with_data(emulator, gateway, name="D1"):
    """Make a refused device whose data waits. Return its session and states, both delivery futures, and the wire."""
    wire = Wire(emulator)
    refusing(wire, 10_000, name=name)
    session, [connecting] = await gateway.connect_device(name)
    data = await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    states = States(session)
    await states.until(RECONNECTING)
    return session, states, connecting, data, wire


async def test_a_device_that_is_disconnected_is_not_announced_again(emulator, start):
    """Its data is rejected with the reason of the platform, and the next session with this name starts without it."""
    gateway = await start(announce_delay_min=NEVER)
    session, states, connecting, data, wire = await refused_with_data(emulator, gateway)
    late = await gateway.send_device_timeseries(session, {"a": 2}, wait_for_publish=False)
    await gateway.disconnect_device(session, wait_for_publish=True)
    assert [result.reason_code for result in await asyncio.gather(connecting, data)] == [0x80, 0x80]
    # It was in the initial queue, or held for the device.
    assert (await late).reason_code in {0x80, -1}
    assert states.seen[-1] is DISCONNECTED
    assert len(sub_devices_of(gateway).announcer.retries) == len(sub_devices_of(gateway).announcer.retries.due) == 0
    wire.verdict = lambda _: None
    again = await announced(gateway)
    assert (await gateway.send_device_timeseries(again, {"a": 3})).is_successful()
    assert [point.value for point in emulator.device("D1").telemetry] == [3]
    assert (gateway.statistics.queued, counts_agree(gateway)) == (0, True)


async def test_a_device_disconnected_while_its_announcement_is_in_flight_is_not_announced_again(emulator, start):
    """The response to the announcement decides about its data."""
    gateway, wire = await start(), Wire(emulator)
    refused = asyncio.Event()
    wire.verdict = lambda publish: Verdict.refuse(0x80) if publish.topic == "v1/gateway/connect" else None
    session, [connecting] = await gateway.connect_device("D1")
    connecting.add_done_callback(lambda _: refused.set())
    data = await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    await gateway.disconnect_device(session)
    assert [result.reason_code for result in await asyncio.gather(connecting, data)] == [0x80, 0x80]
    assert wire.of("connect") == [{"device": "D1", "type": "default"}]
    assert (sub_devices_of(gateway).announcer.callers, session.state) == ({}, DISCONNECTED)


async def test_a_refused_device_that_is_deleted_is_not_announced_again(emulator, start):
    gateway = await start(announce_delay_min=NEVER)
    session, states, connecting, data, wire = await refused_with_data(emulator, gateway)
    await emulator.publish_to("GATEWAY", "v1/devices/me/rpc/request/0", {"method": "gateway_device_deleted", "params": "D1"})
    await states.until(DISCONNECTED)
    assert [result.reason_code for result in await asyncio.gather(connecting, data)] == [0x80, -1]
    assert (session.manager, len(sub_devices_of(gateway).announcer.retries), len(wire.of("connect"))) == (None, 0, 1)
    assert counts_agree(gateway)


async def test_a_refused_device_that_is_renamed_is_announced_under_its_new_name(emulator, start):
    gateway = await start(announce_delay_min=NEVER)
    _, states, connecting, data, wire = await refused_with_data(emulator, gateway)
    await emulator.publish_to(
        "GATEWAY", "v1/devices/me/rpc/request/0", {"method": "gateway_device_renamed", "params": {"D1": "D2"}}
    )
    await states.until(RECONNECTING, CONNECTED)
    assert [result.reason_code for result in await asyncio.gather(connecting, data)] == [0, 0]
    assert [document["device"] for document in wire.of("connect")] == ["D1", "D2"]
    assert [point.key for point in emulator.device("D2").telemetry] == ["a"]
    assert "D1" not in emulator.devices


async def test_data_of_a_renamed_device_waits_for_the_announcement_of_its_new_name(emulator, start):
    gateway = await start(announce_delay_min=NEVER)
    _, _, _, data, wire = await refused_with_data(emulator, gateway)
    refusing(wire, 1, name="D2")
    await emulator.publish_to(
        "GATEWAY", "v1/devices/me/rpc/request/0", {"method": "gateway_device_renamed", "params": {"D1": "D2"}}
    )
    while len(wire.of("connect")) < 2:
        await wire.next("connect")
    other = await announced(gateway, "D3")
    await gateway.send_device_timeseries(other, {"a": 1})
    assert not data.done()
    assert [set(document) for document in wire.of("telemetry")] == [{"D3"}]


async def test_stop_resolves_sends_for_a_refused_device(emulator, start):
    gateway = await start(announce_delay_min=NEVER)
    session, _, connecting, data, _ = await refused_with_data(emulator, gateway)
    await gateway.stop(timeout=0.01)
    assert [result.reason_code for result in await asyncio.gather(connecting, data)] == [-1, -1]
    assert (session.state, gateway.statistics.undelivered, counts_agree(gateway)) == (DISCONNECTED, 1, True)
    assert len(sub_devices_of(gateway).announcer.retries) == len(sub_devices_of(gateway).announcer.retries.due) == 0


async def test_a_disconnected_gateway_announces_devices_only_after_the_next_connect(emulator, start):
    gateway = await start()
    session, states, connecting, data, wire = await refused_with_data(emulator, gateway)
    await gateway.disconnect()
    assert (session.state, len(sub_devices_of(gateway).announcer.retries.due)) == (DISCONNECTED, 0)
    wire.verdict = lambda _: None
    await gateway.connect()
    assert [result.reason_code for result in await asyncio.gather(connecting, data)] == [0, 0]
    assert states.seen[-3:] == [DISCONNECTED, RECONNECTING, CONNECTED]


async def test_held_data_of_a_refused_device_counts_in_the_queue_and_can_be_dropped(emulator, start):
    gateway = await start(announce_delay_min=NEVER, max_queued_messages=6, queue_policy="drop_oldest")
    session, _, _, first, wire = await refused_with_data(emulator, gateway)
    futures = [await gateway.send_device_timeseries(session, {"a": n}, wait_for_publish=False) for n in range(2, 6)]
    assert gateway.statistics.queued_sends == 3
    assert [(await future).reason_code for future in (first, *futures[:1])] == [-2, -2]
    other = await announced(gateway, "D2")
    assert (await gateway.send_device_timeseries(other, {"a": 1})).is_successful()
    wire.verdict = lambda _: None
    await gateway.connect_device("D1")
    assert [(await future).reason_code for future in futures] == [-2, 0, 0, 0]
    assert counts_agree(gateway)


async def send_many(gateway, session, count=50):
    return [await gateway.send_device_timeseries(session, {"a": n}, wait_for_publish=False) for n in range(count)]


@pytest.mark.parametrize("bound", [{"max_queued_messages": 20}, {"max_queued_bytes": 400}])
@pytest.mark.parametrize("policy", ["wait", "raise", "drop_oldest", "drop_newest"])
async def test_refused_devices_leave_half_of_the_queue_to_the_others(emulator, start, policy, bound):
    """One name that the platform refuses must not stop a gateway; the queue policy decides about its sends."""
    gateway = await start(announce_delay_min=NEVER, queue_policy=policy, **bound)
    session, _, _, _, wire = await refused_with_data(emulator, gateway)
    sending = asyncio.create_task(send_many(gateway, session))
    other = await announced(gateway, "D2")
    for n in range(50):
        assert (await gateway.send_device_timeseries(other, {"b": n})).is_successful()
    if policy == "raise":
        with pytest.raises(BackpressureException, match="The platform refuses device 'D1'"):
            await sending
    share = sub_devices_of(gateway).traffic.gate.share
    assert share.messages >= 5
    assert share.messages <= 10 or "max_queued_bytes" in bound
    assert share.bytes <= 200 + 10
    assert (gateway.statistics.dropped > 0) is policy.startswith("drop")
    assert sending.done() is (policy != "wait")
    # The data is sent after the device is accepted.
    wire.verdict = lambda _: None
    await announced(gateway, "D1")
    if policy != "raise":
        results = await asyncio.gather(*await sending)
        codes = {result.reason_code for result in results}
        assert codes == ({0} if policy == "wait" else {0, -2})
    assert (await gateway.send_device_timeseries(session, {"a": 99})).is_successful()
    await asyncio.gather(*await send_many(gateway, session, 5))
    assert (gateway.statistics.queued, counts_agree(gateway)) == (0, True)


@pytest.mark.parametrize("policy", ["wait", "raise", "drop_oldest", "drop_newest"])
@pytest.mark.parametrize("bound", [{"max_queued_bytes": 400}, {"max_queued_messages": 1}])
async def test_a_send_that_needs_the_capacity_of_refused_devices_is_admitted_alone(emulator, start, policy, bound):
    """It may wait for other data, but not for data whose device the platform may refuse forever."""
    gateway = await start(announce_delay_min=NEVER, queue_policy=policy, **bound)
    await refused_with_data(emulator, gateway)
    other = await announced(gateway, "D2")
    async with asyncio.timeout(5):
        for size in (1, 390, 1000, 1):
            assert (await gateway.send_device_timeseries(other, {"b": "x" * size})).is_successful()
    assert counts_agree(gateway)


async def test_a_waiting_send_is_admitted_when_all_other_devices_are_refused(emulator, start):
    gateway = await start(announce_delay_min=NEVER, max_queued_bytes=400)
    *_, wire = await refused_with_data(emulator, gateway)
    other = await announced(gateway, "D2")
    wire.verdict = lambda publish: Verdict.ignore() if publish.topic == "v1/gateway/connect" else None
    third, _ = await gateway.connect_device("D3")
    await wire.next("connect")
    first = await gateway.send_device_timeseries(third, {"a": "x" * 50}, wait_for_publish=False)
    large = asyncio.create_task(gateway.send_device_timeseries(other, {"b": "x" * 390}))
    await asyncio.sleep(0)
    sub_devices_of(gateway).traffic.fail(third.identity)
    assert (await large).is_successful()
    assert not first.done()


@pytest.mark.parametrize("ending", ["stopped", "disconnected", "given up"])
async def test_a_waiting_send_for_a_refused_device_gets_a_result(emulator, start, ending):
    gateway = await start(announce_delay_min=NEVER, max_queued_messages=4, announce_attempts=2)
    session, states, _, _, _ = await refused_with_data(emulator, gateway)
    sending = asyncio.create_task(send_many(gateway, session, 10))
    await announced(gateway, "D2")
    assert not sending.done()
    if ending == "stopped":
        await gateway.stop(timeout=0.01)
        with pytest.raises(NotConnectedError):
            await sending
        return
    if ending == "disconnected":
        await gateway.disconnect_device(session)
    else:
        await gateway.connect_device("D1")
        await states.until(FAILED)
    with suppress(DeviceNotConnectedError):
        assert {result.reason_code for result in await asyncio.gather(*await sending)} <= {0x80, -1}
    await gateway.stop(timeout=1)
    assert (gateway.statistics.queued, counts_agree(gateway)) == (0, True)


@pytest.mark.parametrize("refusals", [1, 3])
async def test_data_in_flight_of_a_device_that_the_next_session_refuses_waits_alone(emulator, start, refusals):
    """One message has data of both devices; without the announcement, the platform would create D1 with the profile "default"."""
    gateway, wire = await start(announce_delay_min=NEVER), Wire(emulator)
    sessions = [await announced(gateway, "D1", "p"), await announced(gateway, "D2", "p")]
    first = await in_flight(gateway, wire, sessions)
    for _ in range(refusals):
        states = States(sessions[0])
        refusing(wire, 1)
        await emulator.disconnect_device("GATEWAY")
        await states.until(LOST, RECONNECTING)
        assert (await first[1]).is_successful()
        younger = [await gateway.send_device_timeseries(session, {"a": 2}, wait_for_publish=False) for session in sessions]
        assert (await younger[1]).is_successful()
        assert not first[0].done()
        assert not younger[0].done()
    assert all("D1" not in document for document in wire.of("telemetry")[1:])
    await gateway.connect_device("D1")
    assert [(await future).is_successful() for future in (first[0], younger[0])] == [True, True]
    assert [values["a"] for _, values in emulator.device("D1").records] == [1] + [2] * refusals
    assert (gateway.statistics.queued, counts_agree(gateway)) == (0, True)


async def test_data_in_flight_of_a_device_that_the_next_session_finally_refuses_is_rejected(emulator, start):
    gateway, wire = await start(), Wire(emulator)
    sessions = [await announced(gateway, "D1"), await announced(gateway, "D2")]
    futures = await in_flight(gateway, wire, sessions)
    refusing(wire, 1, 0x87)
    await emulator.disconnect_device("GATEWAY")
    assert [(await future).reason_code for future in futures] == [0x87, 0]
    assert all("D1" not in document for document in wire.of("telemetry")[1:])
    assert (gateway.statistics.rejected_by_reason, counts_agree(gateway)) == ({0x87: 1}, True)


@pytest.mark.parametrize("ending", ["disconnected", "deleted", "renamed", "stopped"])
async def test_packed_data_of_a_refused_device_gets_a_result(emulator, start, ending):
    gateway, wire = await start(announce_delay_min=NEVER), Wire(emulator)
    sessions = [await announced(gateway, "D1"), await announced(gateway, "D2")]
    futures = await in_flight(gateway, wire, sessions)
    states = States(sessions[0])
    refusing(wire, 1)
    await emulator.disconnect_device("GATEWAY")
    await states.until(LOST, RECONNECTING)
    assert (await futures[1]).is_successful()
    if ending == "disconnected":
        await gateway.disconnect_device(sessions[0])
    elif ending == "stopped":
        await gateway.stop(timeout=0.01)
    else:
        params = "D1" if ending == "deleted" else {"D1": "D3"}
        request = {"method": f"gateway_device_{ending}", "params": params}
        await emulator.publish_to("GATEWAY", "v1/devices/me/rpc/request/0", request)
    expected = {"disconnected": 0x80, "deleted": -1, "renamed": 0, "stopped": -1}[ending]
    assert (await futures[0]).reason_code == expected
    assert all("D1" not in document for document in wire.of("telemetry")[1:])
    assert (gateway.statistics.queued, counts_agree(gateway)) == (0, True)


async def test_packed_data_that_waits_for_a_limit_is_held_if_its_device_is_refused(emulator, start):
    """The data was packed while D1 was announced. Then a notice caused another announcement of D1, which is refused."""
    emulator.limits = SessionLimits(gateway_rate_limits=RateLimits(telemetry_messages="8:1"))
    gateway, wire = await start(rate_limit_percentage=100, announce_delay_min=NEVER), Wire(emulator)
    sessions = [await announced(gateway, "D1"), await announced(gateway, "D2")]
    futures = []
    for n in range(12):
        for session in sessions:
            data = {"ts": n, "values": {"a": "x" * 20_000}}
            futures.append(await gateway.send_device_timeseries(session, data, wait_for_publish=False))
    await wire.next("telemetry")
    refusing(wire, 1)
    states = States(sessions[0])
    await emulator.send_disconnect_notice("D1", 128)
    await states.until(LOST, RECONNECTING)
    # The acknowledgement comes after the refusal, and the next announcement after all data that was published before.
    await announced(gateway, "D3")
    await announced(gateway, "D4")
    published = len(wire.of("telemetry"))
    await asyncio.gather(*futures[1::2])
    assert all("D1" not in document for document in wire.of("telemetry")[published + 1 :])
    await gateway.connect_device("D1")
    await asyncio.gather(*futures)
    assert [point.ts for point in emulator.device("D1").telemetry] == list(range(12))


async def test_devices_are_announced_after_the_queues_were_cleared(emulator, start):
    gateway, wire = await start(announce_delay_min=NEVER), Wire(emulator)
    refusing(wire, 1)
    refused, _ = await gateway.connect_device("D1")
    await States(refused).until(RECONNECTING)
    session, [connecting] = await gateway.connect_device("D2")
    await engine_of(gateway).message_service.clear()
    assert (await connecting).reason_code == -1
    data = [await gateway.send_device_timeseries(one, {"a": 1}, wait_for_publish=False) for one in (refused, session)]
    assert (await data[1]).is_successful()
    assert not data[0].done()
    assert session.state is CONNECTED


async def test_an_acknowledgement_just_before_the_connection_ends_does_not_make_a_session(emulator, start):
    """Otherwise, the state would be CONNECTED during the outage."""
    gateway = await start()
    session = await announced(gateway)
    states, announcer = States(session), sub_devices_of(gateway).announcer
    # As if the PUBACK and the end of the connection came in one read.
    _, [again] = await gateway.connect_device("D1")
    announcer.connection_ended()
    assert (await again).is_successful()
    assert states.seen[-1] is LOST


async def test_data_of_a_device_disconnected_before_such_an_acknowledgement_is_sent(emulator, start):
    """The device is not announced on the next connection, so that no other acknowledgement follows."""
    gateway = await start()
    session, [connecting] = await gateway.connect_device("D1")
    data = await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    await gateway.disconnect_device(session)
    sub_devices_of(gateway).announcer.connection_ended()
    assert (await connecting).is_successful()
    await emulator.disconnect_device("GATEWAY")
    async with asyncio.timeout(10):
        assert (await data).is_successful()


async def test_data_queued_before_an_announcement_is_sent_before_later_data(emulator, start):
    """The new connection announces the device again, so that the older data waits like the later one."""
    gateway = await start()
    session = await announced(gateway)
    states = States(session)
    await emulator.stop()
    await states.until(LOST)
    await send_around_an_announcement(gateway, session)
    await emulator.start()
    await all_sent_in_order(emulator, gateway)


async def test_a_rename_of_another_device_does_not_change_the_order_of_data(emulator, start):
    gateway, wire = await start(max_inflight_messages=1), Wire(emulator)
    session, other = await announced(gateway), await announced(gateway, "D2")
    states = States(other)
    # Nothing else is published before the PUBACK, and the announcement is in flight when the other device is renamed.
    emulator.on_publish = lambda publish: Verdict.delay(0.3)
    await gateway.send_timeseries({"a": 1}, wait_for_publish=False)
    await send_around_an_announcement(gateway, session)
    await emulator.rename_device("D2", "D3")
    await states.until(RECONNECTING)
    emulator.on_publish = wire.verdict
    await all_sent_in_order(emulator, gateway)


async def send_around_an_announcement(gateway, session):
    """Send a datapoint with ts=1, announce the device again, and send one with ts=2."""
    await gateway.send_device_timeseries(session, {"ts": 1, "values": {"a": 1}}, wait_for_publish=False)
    await asyncio.sleep(0.01)  # routed
    await gateway.connect_device("D1")
    await gateway.send_device_timeseries(session, {"ts": 2, "values": {"a": 2}}, wait_for_publish=False)
    await asyncio.sleep(0.01)


async def all_sent_in_order(emulator, gateway):
    await gateway.stop(timeout=10)
    assert gateway.statistics.undelivered == 0
    assert [point.ts for point in emulator.device("D1").telemetry] == [1, 2]


async def test_an_announcement_that_is_too_large_for_a_later_session_is_not_repeated(emulator, start):
    gateway, wire = await start(), Wire(emulator)
    session = await announced(gateway, "D" * 200)
    states = States(session)
    emulator.max_payload_size = 200
    await emulator.disconnect_device("GATEWAY")
    await states.until(LOST, RECONNECTING, FAILED)
    assert wire.of("connect")[1:] == []
    assert (await gateway.send_device_timeseries(session, {"a": 1})).reason_code == 0x95


async def test_a_refusal_just_before_the_connection_ends_is_not_repeated_before_the_next_session(emulator, start):
    gateway, wire = await start(), Wire(emulator)
    session = await announced(gateway)
    states = States(session)
    refusing(wire, 1)
    await gateway.connect_device("D1")
    await wire.next("connect")
    sub_devices_of(gateway).announcer.connection_ended()
    await announced(gateway, "D2")
    assert (states.seen, len(sub_devices_of(gateway).announcer.retries.due)) == ([LOST], 0)


ENDS = {
    "closed": Verdict.close(),
    "reset": Verdict.cut(),
    "0x8B": Verdict.close(0x8B),
    "0x83": Verdict.close(0x83),
    "0x99": Verdict.close(0x99),
}


def ending(wire, name, verdict):
    """End the connection at each announcement of this device."""
    wire.verdict = lambda publish: verdict if publish.topic == "v1/gateway/connect" and publish.json()["device"] == name else None


@pytest.mark.parametrize(
    ("version", "end", "first"),
    [(5, end, first) for end in ("closed", "reset", "0x83", "0x99") for first in (True, False)]
    + [(5, "0x8B", True), (4, "closed", False)],
)
async def test_a_device_for_which_the_server_ends_the_connection_does_not_stop_other_devices(emulator, start, end, version, first):
    """Each new connection announces all devices, and would end because of this one before the others are announced."""
    gateway, wire = await start(mqtt_version=version), Wire(emulator)
    ending(wire, "bad", ENDS[end])
    names = ["bad", "D1", "D2"] if first else ["D1", "D2", "bad"]
    sessions = {name: (await gateway.connect_device(name, "p"))[0] for name in names}
    data = {
        name: await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False) for name, session in sessions.items()
    }
    assert [(await data[name]).reason_code for name in ("D1", "D2")] == [0, 0]
    # It is announced again with growing delays, and may be accepted later.
    assert not data["bad"].done()
    wire.verdict = lambda _: None
    assert (await data["bad"]).is_successful()
    assert {emulator.device(name).profile for name in names} == {"p"}
    assert counts_agree(gateway)


async def test_the_bounds_of_the_user_apply_to_an_announcement_that_ends_connections(emulator, start):
    # Between two ends of a connection, a busy machine must have the time to send data of the other device.
    gateway, wire = await start(announce_attempts=2, announce_delay_min=0.1, announce_delay_max=0.2), Wire(emulator)
    ending(wire, "bad", Verdict.close())
    bad, [connecting] = await gateway.connect_device("bad")
    data = await gateway.send_device_timeseries(bad, {"a": 1}, wait_for_publish=False)
    other, _ = await gateway.connect_device("D1")
    for _ in range(3):
        assert (await gateway.send_device_timeseries(other, {"a": 1})).is_successful()
        await emulator.disconnect_device("GATEWAY")
    assert [result.reason_code for result in await asyncio.gather(connecting, data)] == [0x80, 0x80]
    # Each connection announces it once, and its data is rejected again.
    assert (await gateway.send_device_timeseries(bad, {"a": 2})).reason_code == 0x80
    assert (await gateway.send_device_timeseries(other, {"a": 2})).is_successful()
    assert counts_agree(gateway)


async def test_an_announcement_that_ends_connections_is_not_taken_for_a_limit(emulator, start):
    """With a learned limit, the other announcements would become slower each time and not finish before the next end."""
    gateway, wire = await start(), Wire(emulator)
    ending(wire, "bad", Verdict.close(0x8B))
    await gateway.connect_device("bad")
    for _ in range(7):
        await wire.next("connect")
    assert [limit["refusals"] for limit in gateway.health()["limits"]["learned"]] == [3]


async def test_devices_in_flight_with_an_announcement_that_ends_the_connection_are_not_rejected(emulator, start):
    """The reason code of a DISCONNECT does not say to which message it belongs."""
    gateway, wire = await start(announce_attempts=50), Wire(emulator)
    ending(wire, "bad", Verdict.close(0x81))
    names = [f"D{number}" for number in range(10)]
    futures = [(await gateway.connect_device(name))[1][0] for name in ["bad", *names]]
    assert [(await future).reason_code for future in futures[1:]] == [0] * len(names)


async def test_a_thousand_refused_devices_leave_few_log_lines(emulator, start, caplog):
    gateway, wire = await start(announce_delay_min=NEVER), Wire(emulator)
    wire.verdict = lambda publish: Verdict.refuse(0x80) if publish.topic == "v1/gateway/connect" else None
    all_states = [States((await gateway.connect_device(f"D{number}"))[0]) for number in range(1000)]
    for states in all_states:
        await states.until(RECONNECTING)
    assert 20 < len(warnings_of(caplog, "The platform refused device")) < 25
