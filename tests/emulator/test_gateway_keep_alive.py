"""Quiet sub-devices stay reachable, although the platform ends the session of a sub-device without uplinks."""

import asyncio
from functools import partial

import pytest
from gateway_wire import CONNECTED, LOST, RECONNECTING, States, Wire, announced

from engine_parts import engine_of
from tb_mqtt_client.emulator import RateLimits, SessionLimits, Verdict

QUICK = {"sub_device_keepalive": 0.05, "announce_delay_min": 1000.0}


@pytest.fixture
def start(start_gateway):
    """Return a function that connects a gateway with a short keep-alive."""
    return partial(start_gateway, **QUICK)


async def until(wire, names):
    """Wait until each of these devices had another keep-alive."""
    left = set(names)
    while left:
        left -= set(await wire.next("attributes"))


def kept_alive(wire):
    return {name for document in wire.of("attributes") for name in document}


async def test_a_device_that_only_receives_stays_reachable(emulator, start):
    """Server-side RPC and attribute updates arrive although neither the gateway nor its devices send."""
    emulator.sub_device_inactivity = 0.5
    gateway, wire = await start(), Wire(emulator)
    session, updated = await announced(gateway, "relay", "relays"), asyncio.Queue()
    session.set_rpc_request_callback(lambda _session, request: request.params)
    session.set_attribute_update_callback(lambda _session, update: updated.put_nowait(update.as_dict()))
    ends = asyncio.get_running_loop().time() + 0.7
    while asyncio.get_running_loop().time() < ends:
        await until(wire, ["relay"])
    assert await emulator.call_rpc("relay", "switch", "on") == {"result": "on"}
    assert await emulator.set_shared_attributes("relay", {"mode": 1})
    assert await updated.get() == {"mode": 1}
    assert emulator.device("relay").profile == "relays"
    assert (emulator.device("relay").attributes, emulator.device("relay").telemetry) == ({}, [])
    assert gateway.statistics.accepted == 0


async def test_without_a_keep_alive_the_platform_ends_the_session(emulator, start):
    emulator.sub_device_inactivity = 0.05
    gateway = await start(sub_device_keepalive=0)
    ended = asyncio.Event()
    emulator.on_event = lambda text: ended.set() if text == "relay disconnected" else None
    await announced(gateway, "relay")
    await ended.wait()
    assert not await emulator.set_shared_attributes("relay", {"mode": 1})


async def test_the_keep_alives_of_many_devices_share_a_message(emulator, start):
    gateway, wire = await start(sub_device_keepalive=0.2), Wire(emulator)
    names = [f"D{number}" for number in range(100)]
    for name in names:
        await announced(gateway, name)
    await until(wire, names)
    messages = wire.of("attributes")
    # The first devices may have their second turn before the last ones are announced.
    assert len(messages) < sum(map(len, messages)) / 3


@pytest.mark.parametrize("ending", ["disconnected", "deleted", "renamed"])
async def test_a_removed_device_is_not_created_again(emulator, start, ending):
    gateway = await start()
    session, wire = await announced(gateway, "old"), Wire(emulator)
    await announced(gateway, "other")
    await until(wire, ["old", "other"])
    states = States(session)
    if ending == "disconnected":
        await gateway.disconnect_device(session, wait_for_publish=True)
    elif ending == "deleted":
        await emulator.delete_device("old")
    else:
        await emulator.rename_device("old", "new")
    while not states.seen or states.seen[-1] is RECONNECTING:
        await wire.next("attributes")
    wire.publishes.clear()
    for _ in range(3):
        await until(wire, ["new", "other"] if ending == "renamed" else ["other"])
    assert "old" not in kept_alive(wire)
    assert ("old" in emulator.devices) is (ending == "disconnected")


async def test_a_refused_device_gets_no_keep_alive_until_it_is_accepted(emulator, start):
    gateway, wire = await start(), Wire(emulator)
    wire.verdict = lambda publish: Verdict.refuse(0x80) if publish.json() == {"device": "D1", "type": "p"} else None
    session, _ = await gateway.connect_device("D1", "p")
    await States(session).until(RECONNECTING)
    await announced(gateway, "D2")
    for _ in range(3):
        await until(wire, ["D2"])
    assert kept_alive(wire) == {"D2"}
    wire.verdict = lambda _: None
    await announced(gateway, "D1", "p")
    await until(wire, ["D1"])
    assert emulator.device("D1").profile == "p"


@pytest.mark.parametrize("code", [0x80, 0x99])
async def test_devices_are_announced_again_after_a_refused_keep_alive(emulator, start, code):
    gateway, wire = await start(), Wire(emulator)
    refusals = [Verdict.refuse(code)]
    sessions = [await announced(gateway, name) for name in ("D1", "D2")]
    all_states = [States(session) for session in sessions]
    wire.verdict = lambda publish: refusals.pop() if publish.topic.endswith("/attributes") and refusals else None
    refused = await wire.next("attributes")
    for session, states in zip(sessions, all_states, strict=True):
        if session.device_info.device_name in refused:
            await states.until(RECONNECTING, CONNECTED)
    assert {document["device"] for document in wire.of("connect")} >= set(refused)
    await until(wire, ["D1", "D2"])


async def test_no_keep_alive_is_published_before_the_announcement_on_a_new_connection(emulator, start):
    """A keep-alive before the announcement would start a session with the profile "default"."""
    gateway, wire = await start(), Wire(emulator)
    session = await announced(gateway, "D1", "p")
    states = States(session)
    await until(wire, ["D1"])
    held = []

    def hold(publish):
        if publish.topic == "v1/gateway/connect" and publish.json()["device"] == "D1":
            held.append(publish)
            return Verdict.delay(0.2)
        return None

    wire.publishes.clear()
    wire.verdict = hold
    await emulator.disconnect_device("GATEWAY")
    await states.until(LOST, RECONNECTING, CONNECTED)
    assert (len(held), kept_alive(wire)) == (1, set())
    await until(wire, ["D1"])


async def test_keep_alives_get_smaller_for_a_learned_limit(emulator, start):
    """20 devices in one keep-alive exceed the limit of the tenant, and the platform ends the connection."""
    gateway, wire = await start(sub_device_keepalive=0.3, backpressure_delay=0.02), Wire(emulator)
    names = [f"D{number}" for number in range(20)]
    await asyncio.gather(*[(await gateway.connect_device(name))[1][0] for name in names])
    emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(messages="19:1"))
    while not (learned := engine_of(gateway).admission.learned_limits()):
        assert await wire.next("attributes")
    assert learned[0]["limit"] == "gateway messages"
    assert len(await wire.next("attributes")) <= 10


async def test_keep_alives_stay_within_the_announced_limits(emulator, start):
    """The platform counts each device of a keep-alive as a message, and disconnects a gateway over its limit."""
    emulator.limits = SessionLimits(gateway_rate_limits=RateLimits(messages="60:1"))
    gateway, wire = await start(sub_device_keepalive=0.2), Wire(emulator)
    names = [f"D{number}" for number in range(40)]
    futures = [(await gateway.connect_device(name))[1][0] for name in names]
    await asyncio.gather(*futures)
    await until(wire, names)
    assert max(len(document) for document in wire.of("attributes")) <= 60 * 0.8 / 4
    assert gateway.statistics.connections == 1
    assert gateway.statistics.backpressure_pauses == 0
