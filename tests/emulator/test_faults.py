"""Faults of the network and the server: every accepted datapoint ends in the right state, and the counts of both sides agree."""

import asyncio
import random
import socket
import ssl
import time

import pytest
import trustme

from engine_parts import engine_of
from faulty_link import FaultyLink, connect_at_last
from tb_mqtt_client import (
    BackpressureException,
    ClientState,
    ConnectionRefusedByServer,
    DeviceClient,
    GatewayClient,
    NotConnectedError,
)
from tb_mqtt_client.constants.reason_codes import LIMITING_DISCONNECTS
from tb_mqtt_client.emulator import Emulator, RateLimits, SessionLimits, Verdict

FAST = {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01, "backpressure_delay": 0.02, "limits_timeout": 2.0}
STATES = ("acknowledged", "rejected", "dropped", "undelivered", "queued", "in_flight")


def config(at, token="TOKEN", **options):
    return FAST | {"host": at.host, "port": at.port, "access_token": token} | options


def assert_sum(client):
    statistics = client.statistics
    assert statistics.accepted == sum(getattr(statistics, state) for state in STATES), statistics


def stored(device):
    """Return the datapoints that the platform stored, without duplicates: delivery is at least once."""
    return {(point.ts, point.key): point.value for point in device.telemetry}


async def until(condition):
    """Let the event loop run until a condition is met that has no event."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


class Stream:
    """Sends numbered datapoints, and compares acknowledged and stored ones."""

    def __init__(self, client, emulator, names=()):
        self.client, self.emulator = client, emulator
        self.names = names
        self.sessions = []
        self.calls = []

    async def announce(self):
        self.sessions = [(await self.client.connect_device(name, "profile"))[0] for name in self.names]

    async def send(self, first, last):
        for ts in range(first, last):
            data = {"ts": ts, "values": {"a": ts, "b": -ts}}
            if self.sessions:
                index = ts % len(self.sessions)
                future = await self.client.send_device_timeseries(self.sessions[index], data, wait_for_publish=False)
                self.calls.append((self.names[index], ts, future))
            else:
                [future] = await self.client.send_timeseries(data, wait_for_publish=False)
                self.calls.append(("device", ts, future))
            if ts % 7 == 0:
                await asyncio.sleep(0)

    async def check_all_acknowledged(self):
        results = await asyncio.gather(*(future for _, _, future in self.calls))
        assert {result.reason_code for result in results} == {0}
        assert {result.datapoints_count for result in results} == {2}
        for name in {name for name, _, _ in self.calls}:
            expected = {(ts, key): value for owner, ts, _ in self.calls if owner == name for key, value in (("a", ts), ("b", -ts))}
            assert stored(self.emulator.device(name)) == expected
        statistics = self.client.statistics
        assert statistics.acknowledged == statistics.accepted == 2 * len(self.calls)
        assert_sum(self.client)
        assert len(engine_of(self.client).futures) == 0


@pytest.fixture(autouse=True)
async def nothing_is_left():
    """Check that no task of a client is left after a test."""
    yield
    await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()}
    assert left == set()


@pytest.mark.parametrize("block", range(20))
async def test_defect_01_all_data_arrives_although_connections_are_cut_at_random_bytes(emulator, block):
    """For each of 200 seeds, several connections are cut after some bytes in one direction."""
    for seed in range(block * 10, block * 10 + 10):
        dice = random.Random(seed)
        cuts = dice.randrange(1, 4)

        def plan(connection, dice=dice, cuts=cuts):
            if connection >= cuts:
                return None, None
            # Between the middle of CONNECT and late in the data, in one of the directions.
            position = int(10 ** dice.uniform(0, 4.3 if dice.random() < 0.5 else 2.3))
            return (position, None) if dice.random() < 0.5 else (None, position)

        token, gateway = f"TOKEN {seed}", dice.random() < 0.5
        names = [f"{seed} sub-device {number}" for number in range(3)] if gateway else []
        (emulator.add_gateway if gateway else emulator.add_device)(token, f"{seed} own")
        async with FaultyLink(emulator.host, emulator.port, plan) as link:
            client = (GatewayClient if gateway else DeviceClient)(config(link, token))
            await connect_at_last(client)
            stream = Stream(client, emulator, names)
            await stream.announce()
            await stream.send(0, 300)
            if not gateway:
                stream.calls = [(f"{seed} own", ts, future) for _, ts, future in stream.calls]
            await stream.check_all_acknowledged()
            await client.stop()


@pytest.mark.parametrize("when", ["before", "between", "after"])
async def test_data_arrives_although_connections_end_around_a_publish(emulator, when):
    """They end before the PUBLISH is handled, before its PUBACK, or after it."""
    cuts = iter(range(3))

    def judge(publish):
        if publish.topic != "v1/devices/me/telemetry" or next(cuts, None) is None:
            return None
        if when == "before":
            return Verdict.close()
        if when == "between":
            return Verdict.close(store=True)
        return Verdict(store=True, closes=True)

    emulator.on_publish = judge
    client = DeviceClient(config(emulator))
    await client.connect()
    stream = Stream(client, emulator)
    await stream.send(0, 500)
    await stream.check_all_acknowledged()
    assert client.statistics.reconnects == 3
    await client.stop()


async def test_all_data_arrives_although_the_server_restarts_several_times(emulator):
    client = GatewayClient(config(emulator, "GATEWAY"))
    await client.connect()
    stream = Stream(client, emulator, ["first", "second"])
    await stream.announce()

    async def kill():
        for _ in range(5):
            await asyncio.sleep(0.05)
            await emulator.stop()
            await asyncio.sleep(0.02)
            await emulator.start()

    await asyncio.gather(stream.send(0, 25_000), kill())
    await stream.check_all_acknowledged()
    assert client.statistics.reconnects >= 1
    assert {emulator.device(name).profile for name in stream.names} == {"profile"}
    await client.stop()


async def test_delayed_and_reordered_pubacks_acknowledge_the_right_data(emulator):
    dice = random.Random(1)
    emulator.on_publish = lambda publish: (
        Verdict.delay(dice.uniform(0, 0.05)) if publish.topic == "v1/devices/me/telemetry" else None
    )
    client = DeviceClient(config(emulator, max_inflight_messages=4))
    await client.connect()
    stream = Stream(client, emulator)
    for first in range(0, 200, 10):
        await stream.send(first, first + 10)
        await asyncio.sleep(0.002)
    await stream.check_all_acknowledged()
    await client.stop()


async def test_surplus_pubacks_acknowledge_no_other_data(emulator):
    """Servers before 4.2.1 send one PUBACK per device entry (docs/platform_contract.md, fact 10)."""
    client = GatewayClient(config(emulator, "GATEWAY"))
    await client.connect()
    stream = Stream(client, emulator, [f"device {number}" for number in range(10)])
    await stream.announce()
    refused = 0

    def judge(publish):
        nonlocal refused
        if publish.topic == "v1/gateway/telemetry":
            session = publish.device.session
            for packet_id in (publish.packet_id, publish.packet_id, 60_000, 0):
                session.write(
                    bytes([0x40, 4, packet_id >> 8, packet_id & 0xFF, 0x00 if packet_id == publish.packet_id else 0x87, 0])
                )
            refused += 1

    emulator.on_publish = judge
    await stream.send(0, 3000)
    await stream.check_all_acknowledged()
    assert refused > 1
    await client.stop()


async def test_defect_02_contract_9_nothing_is_resent_on_a_live_connection(emulator):
    swallowed = 0

    def judge(publish):
        nonlocal swallowed
        if publish.topic == "v1/devices/me/telemetry" and swallowed < 3:
            swallowed += 1
            return Verdict.ignore(store=swallowed == 2)
        return None

    emulator.on_publish = judge
    client = DeviceClient(config(emulator, ack_timeout=0.05))
    await client.connect()
    stream = Stream(client, emulator)
    await stream.send(0, 100)
    await stream.check_all_acknowledged()
    assert "no PUBACK within 0.05 s" in client.statistics.last_disconnect
    await client.stop()


FINAL = [0x83, 0x87, 0x90, 0x91, 0x95, 0x99]


@pytest.mark.parametrize("code", FINAL)
async def test_finally_refused_data_is_not_resent(emulator, code):
    seen = []

    def judge(publish):
        if publish.topic == "v1/devices/me/telemetry":
            seen.append(publish)
            return Verdict.refuse(code)
        return None

    emulator.on_publish = judge
    client = DeviceClient(config(emulator))
    await client.connect()
    result = await client.send_timeseries({"a": 1, "b": 2})
    assert (result.reason_code, result.datapoints_count) == (code, 2)
    await client.stop()
    assert len(seen) == 1
    assert client.statistics.rejected_by_reason == {code: 2}
    assert_sum(client)


@pytest.mark.parametrize("code", [0x96, 0x97])
@pytest.mark.parametrize("closes", [True, False])
async def test_data_refused_for_a_quota_is_resent(emulator, code, closes):
    """docs/platform_contract.md, fact 2: a gateway over its limit gets PUBACK 0x97, and its connection is closed."""
    refusals = iter(range(1))

    def judge(publish):
        if publish.topic == "v1/gateway/telemetry" and next(refusals, None) is not None:
            return Verdict(store=False, reason_code=code, closes=closes)
        return None

    emulator.on_publish = judge
    client = GatewayClient(config(emulator, "GATEWAY"))
    await client.connect()
    stream = Stream(client, emulator, ["first", "second"])
    await stream.announce()
    await stream.send(0, 50)
    await stream.check_all_acknowledged()
    assert client.statistics.backpressure_pauses >= 1
    await client.stop()


async def test_refusals_of_all_messages_in_flight_lead_to_one_pause(emulator):
    """Otherwise, each of them would double the pause."""
    refusals = iter(range(2))
    client = DeviceClient(config(emulator, backpressure_delay=1.0))
    await client.connect()
    # The window of a link grows with the acknowledgements.
    for _ in range(2):
        await asyncio.gather(*(client.send_timeseries({"ts": ts, "values": {"b": "x" * 40_000}}) for ts in range(8)))
    emulator.on_publish = lambda publish: (
        Verdict.refuse(0x97) if publish.topic == "v1/devices/me/telemetry" and next(refusals, None) is not None else None
    )
    # Each of them fills a payload, so that three messages are in flight.
    calls = [client.send_timeseries({"ts": ts, "values": {"a": "x" * 40_000}}) for ts in range(1, 4)]
    results = await asyncio.gather(*calls)
    assert {result.reason_code for result in results} == {0}
    assert next(refusals, None) is None
    assert client.statistics.backpressure_pauses == 1
    await client.stop()
    assert_sum(client)


async def test_a_refused_payload_with_several_devices_is_resent_in_parts(emulator):
    """Only the datapoints of the bad device are rejected."""
    payloads = []

    def judge(publish):
        if publish.topic == "v1/gateway/telemetry":
            payloads.append(list(publish.json()))
            return Verdict.refuse(0x99) if "bad" in publish.json() else None
        return None

    emulator.on_publish = judge
    client = GatewayClient(config(emulator, "GATEWAY"))
    await client.connect()
    stream = Stream(client, emulator, ["good", "bad", "fine"])
    await stream.announce()
    await stream.send(0, 300)
    results = await asyncio.gather(*(future for _, _, future in stream.calls))
    for (name, _, _), result in zip(stream.calls, results, strict=True):
        assert (result.reason_code, result.datapoints_count) == (0x99 if name == "bad" else 0, 2)
    assert any(len(devices) > 1 for devices in payloads)
    statistics = client.statistics
    assert (statistics.rejected, statistics.acknowledged) == (200, 400)
    assert_sum(client)
    assert len(stored(emulator.device("good"))) == len(stored(emulator.device("fine"))) == 200
    assert "bad" not in emulator.devices or stored(emulator.device("bad")) == {}
    await client.stop()


@pytest.mark.parametrize("code", [0x83, 0x95, 0x99])
@pytest.mark.parametrize("send", ["send_timeseries", "send_attributes"])
async def test_a_refused_payload_with_several_sends_is_resent_in_parts(emulator, code, send):
    """Only the send with the bad value is rejected, for example with a string that is longer than the platform allows."""
    emulator.on_publish = lambda publish: Verdict.refuse(code) if b"bad" in publish.payload else None
    client = DeviceClient(config(emulator))
    await client.connect()
    values = ["bad" if number == 17 else number for number in range(40)]
    calls = [asyncio.create_task(getattr(client, send)({f"k{number}": value})) for number, value in enumerate(values)]
    results = await asyncio.gather(*calls)
    assert [result.reason_code for result in results] == [code if value == "bad" else 0 for value in values]
    assert client.statistics.rejected_by_reason == {code: 1}
    assert client.statistics.messages_acknowledged > 1
    assert_sum(client)
    device = emulator.device("device")
    arrived = {point.key for point in device.telemetry} | set(device.attributes)
    assert arrived == {f"k{number}" for number in range(40)} - {"k17"}
    await client.stop()


async def test_a_send_in_a_refused_message_and_another_one_is_delivered(emulator):
    """The second part of a large send is in one message with the bad send."""
    emulator.on_publish = lambda publish: Verdict.refuse(0x99) if b"bad" in publish.payload else None
    client = DeviceClient(config(emulator))
    await client.connect()
    limit = client.max_payload_size
    large = {f"k{number}": "x" * 500 for number in range(limit // 500 + 10)}
    calls = [asyncio.create_task(client.send_timeseries(data)) for data in (large, {"a": "bad"})]
    good, bad = await asyncio.gather(*calls)
    assert (good.reason_code, good.datapoints_count) == (0, len(large))
    assert (bad.reason_code, bad.datapoints_count) == (0x99, 1)
    await client.stop()


async def test_data_of_a_refused_sub_device_is_rejected_and_other_data_arrives(emulator):
    emulator.on_publish = lambda publish: (
        Verdict.refuse(0x87) if publish.topic == "v1/gateway/connect" and b"bad" in publish.payload else None
    )
    client = GatewayClient(config(emulator, "GATEWAY"))
    await client.connect()
    bad, _ = await client.connect_device("bad")
    held = await client.send_device_timeseries(bad, {"a": 1}, wait_for_publish=False)
    good, connected = await client.connect_device("good", wait_for_publish=True)
    assert connected.is_successful()
    assert (await client.send_device_timeseries(good, {"a": 1})).is_successful()
    assert (await held).reason_code == 0x87
    assert (await client.send_device_timeseries(bad, {"a": 1})).reason_code == 0x87
    emulator.on_publish = None
    _, connected = await client.connect_device("bad", wait_for_publish=True)
    assert connected.is_successful()
    assert (await client.send_device_timeseries(bad, {"a": 2})).is_successful()
    assert client.statistics.rejected_by_reason == {0x87: 2}
    assert_sum(client)
    await client.stop()


@pytest.mark.parametrize("code", [None, 0x00, 0x80, 0x83, 0x89, 0x8B, 0x8D, 0x8E, 0x96, 0x97, 0x98, 0x9C])
async def test_data_is_resent_after_a_disconnect_of_the_server(emulator, code):
    """Examples are rate limits of a device (0x83), sessions taken over (0x8E) and shutdowns (0x8B)."""
    # After a second refusal in a row, the client would send very slowly.
    count = 1 if code in LIMITING_DISCONNECTS else 2
    ends = iter(range(count))

    def judge(publish):
        if publish.topic == "v1/devices/me/telemetry" and next(ends, None) is not None:
            return Verdict.close(code)
        return None

    emulator.on_publish = judge
    client = DeviceClient(config(emulator))
    await client.connect()
    stream = Stream(client, emulator)
    await stream.send(0, 400 if code not in LIMITING_DISCONNECTS else 20)
    await stream.check_all_acknowledged()
    assert client.statistics.reconnects == count
    assert client.statistics.last_disconnect
    await client.stop()


@pytest.mark.parametrize("code", [0x81, 0x8B, 0x99])
async def test_a_message_that_always_ends_the_connection_is_rejected(emulator, code):
    emulator.on_publish = lambda publish: Verdict.close(code) if b'"poison"' in publish.payload else None
    client = DeviceClient(config(emulator, max_inflight_messages=3))
    engine_of(client).message_service.suspects.interval = 0.05
    await client.connect()
    stream = Stream(client, emulator)
    await stream.send(0, 50)
    await asyncio.sleep(0.01)
    [poison] = await client.send_timeseries({"poison": 1}, wait_for_publish=False)
    await asyncio.sleep(0)
    attributes = await client.send_attributes({"fine": 1}, timeout=None)
    await stream.send(50, 100)
    assert (await poison).reason_code == code
    assert attributes.is_successful()
    assert client.statistics.rejected_by_reason == {code: 1}
    assert_sum(client)
    results = await asyncio.gather(*(future for _, _, future in stream.calls))
    assert {result.reason_code for result in results} == {0}
    await client.stop()


async def test_only_data_of_the_sub_device_that_always_ends_the_connection_is_rejected(emulator):
    emulator.on_publish = lambda publish: (
        Verdict.close(0x8B) if publish.topic == "v1/gateway/telemetry" and b'"bad":' in publish.payload else None
    )
    client = GatewayClient(config(emulator, "GATEWAY"))
    engine_of(client).message_service.suspects.interval = 0.05
    await client.connect()
    stream = Stream(client, emulator, ["good", "bad", "fine"])
    await stream.announce()
    await stream.send(0, 30)
    results = await asyncio.gather(*(future for _, _, future in stream.calls))
    for (name, _, _), result in zip(stream.calls, results, strict=True):
        assert result.reason_code == (0x8B if name == "bad" else 0)
    assert_sum(client)
    await client.stop()


@pytest.mark.parametrize("code", [0x88, 0x89, 0x97, 0x9F])
async def test_temporary_refusals_of_a_connection_are_retried(code):
    async with ReplyingServer([b"\x20\x03\x00" + bytes([code, 0])] * 2) as (host, port, connections):
        client = DeviceClient(FAST | {"host": host, "port": port, "access_token": "t"})
        connecting = asyncio.ensure_future(client.connect())
        await asyncio.wait_for(connections.acquire(), 5)
        await asyncio.wait_for(connections.acquire(), 5)
        await asyncio.wait_for(connections.acquire(), 5)
        assert not connecting.done()
        await client.stop()
        with pytest.raises(NotConnectedError, match="stopped"):
            await connecting


@pytest.mark.parametrize("code", [0x80, 0x81, 0x82, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x95, 0x9C, 0x9D])
async def test_defect_18_contract_9_permanent_refusals_of_a_connection_raise(code):
    async with ReplyingServer([b"\x20\x03\x00" + bytes([code, 0])]) as (host, port, _):
        client = DeviceClient(FAST | {"host": host, "port": port, "access_token": "t"})
        with pytest.raises(ConnectionRefusedByServer) as refused:
            await client.connect()
        assert refused.value.reason_code == code
        await client.stop()


@pytest.mark.parametrize("then", [b"", b"\xe0\x02\x8e\x00"], ids=["closes", "taken over"])
async def test_a_connection_that_ends_right_after_its_connack_is_not_a_session(then):
    async with ReplyingServer([b"\x20\x03\x00\x00\x00" + then]) as (host, port, _):
        client = DeviceClient(FAST | {"host": host, "port": port, "access_token": "t"})
        with pytest.raises(OSError, match="CONNACK"):
            await client.connect()
        assert not client.health()["connected"]
        assert client.statistics.connections == 0
        await client.stop()


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\xff\xff\xff\xff\xff", b"\x20\x03\x00\x00\xff", b"\x00\x00", b"\x90\x00"]
)
async def test_a_server_that_does_not_speak_mqtt_raises(garbage):
    async with ReplyingServer([garbage]) as (host, port, _):
        client = DeviceClient(FAST | {"host": host, "port": port, "access_token": "t"})
        with pytest.raises(ConnectionError):
            await client.connect()
        await client.stop()


@pytest.mark.parametrize(
    "garbage", [b"\xff\xff\xff\xff\xff\xff", b"\x40\x01\x00", b"\x30\x02\x00\x09", b"\x90\x01\x00", b"\x40\x05\x00\x01\x00\x05\xff"]
)
async def test_malformed_bytes_in_a_session_lose_no_data(emulator, garbage):
    client = DeviceClient(config(emulator))
    await client.connect()
    stream = Stream(client, emulator)
    await stream.send(0, 50)
    emulator.device("device").session.write(garbage)
    await stream.send(50, 100)
    await stream.check_all_acknowledged()
    await client.stop()


class ReplyingServer:
    """Sends one of ``replies`` after the first bytes of each connection, and closes it. The last reply is repeated."""

    def __init__(self, replies):
        self._replies = list(replies)
        self._connections = asyncio.Semaphore(0)

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1")
        return (*self._server.sockets[0].getsockname(), self._connections)

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        reply = self._replies[0] if len(self._replies) == 1 else self._replies.pop(0)
        self._connections.release()
        await reader.read(100)
        writer.write(reply)
        await writer.drain()
        writer.close()


async def test_publishing_pauses_while_the_server_does_not_read(emulator):
    """The buffers of the socket fill up, and data stays queued."""
    async with FaultyLink(emulator.host, emulator.port) as link:
        client = DeviceClient(config(link, ack_timeout=0.3, max_inflight_messages=1000))
        await client.connect()
        link.freeze()
        stream = Stream(client, emulator)
        text = "x" * 60_000
        texts = [
            (await client.send_timeseries({"ts": ts, "values": {"text": text}}, wait_for_publish=False))[0] for ts in range(200)
        ]
        await asyncio.sleep(0.1)
        connection = engine_of(client).mqtt_manager.patches.client._connection
        assert connection._transport.get_write_buffer_size() < 2**20
        assert client.statistics.queued > 0
        link.thaw()
        link.cut()
        results = await asyncio.gather(*texts)
        assert {result.reason_code for result in results} == {0}
        await stream.send(1000, 1100)
        await asyncio.gather(*(future for _, _, future in stream.calls))
        assert_sum(client)
        await client.stop()


async def test_missing_pubacks_end_a_half_open_connection(emulator):
    """The client gets neither a FIN nor an RST."""
    async with FaultyLink(emulator.host, emulator.port) as link:
        client = DeviceClient(config(link, ack_timeout=0.1))
        await client.connect()
        link.silence()
        stream = Stream(client, emulator)
        await stream.send(0, 100)
        # The next connection works.
        await until(lambda: client.statistics.last_disconnect)
        link.speak()
        await stream.check_all_acknowledged()
        await client.stop()


async def test_missing_pingresps_end_a_quiet_half_open_connection(emulator):
    """This takes twice the keep-alive."""
    async with FaultyLink(emulator.host, emulator.port) as link:
        client = DeviceClient(config(link, keepalive=1))
        await client.connect()
        link.silence()
        end = await asyncio.wait_for(engine_of(client).mqtt_manager.wait_lost(), 10)
        link.speak()
        assert end.seconds >= 1
        assert (await client.send_timeseries({"a": 1})).is_successful()
        await client.stop()


async def test_stop_ends_although_the_server_does_not_read(emulator):
    async with FaultyLink(emulator.host, emulator.port) as link:
        client = DeviceClient(config(link))
        await client.connect()
        link.freeze()
        futures = [(await client.send_timeseries({"text": "x" * 60_000}, wait_for_publish=False))[0] for _ in range(100)]
        await client.stop(timeout=0.05)
        assert {(await future).reason_code for future in futures} == {-1}
        assert (client.statistics.undelivered, client.statistics.accepted) == (100, 100)


async def test_the_client_recovers_when_name_resolution_works_again(emulator, monkeypatch):
    resolve = asyncio.get_running_loop().getaddrinfo
    working = False

    async def getaddrinfo(host, *args, **kwargs):
        if not working:
            raise socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution")
        return await resolve("127.0.0.1" if host == "platform.test" else host, *args, **kwargs)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    client = DeviceClient(config(emulator, host="platform.test"))
    with pytest.raises(socket.gaierror):
        await client.connect()
    working = True
    await client.connect()
    working = False
    await emulator.disconnect_device("device")
    [future] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    await asyncio.sleep(0.03)
    assert not future.done()
    working = True
    assert (await future).is_successful()
    await client.stop()


async def test_a_certificate_of_another_authority_is_refused(tmp_path):
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with Emulator(ssl_context=context) as emulator:
        emulator.add_device("TOKEN", "device")
        client = DeviceClient(config(emulator, ca_cert=tmp_path / "stranger.pem"))
        with pytest.raises(ssl.SSLCertVerificationError):
            await client.connect()
        await client.stop()
        client = DeviceClient(config(emulator, ca_cert=tmp_path / "ca.pem"))
        await client.connect()
        stream = Stream(client, emulator)
        await stream.send(0, 100)
        await emulator.disconnect_device("device")
        await stream.send(100, 200)
        await stream.check_all_acknowledged()
        await client.stop()


async def test_jumps_of_the_wall_clock_do_not_delay_sends(emulator, monkeypatch):
    emulator.limits = SessionLimits(rate_limits=RateLimits(None, "50:1", "5000:1"))
    real, offset = time.time_ns, 0
    monkeypatch.setattr(time, "time_ns", lambda: real() + offset)
    client = DeviceClient(config(emulator))
    await client.connect()
    for jump in (0, 10**15, -(10**15)):
        offset = jump
        result = await client.send_timeseries({"a": jump})
        assert result.is_successful()
    assert len({point.ts for point in emulator.device("device").telemetry}) == 3
    await client.stop()


async def test_a_loop_blocked_for_longer_than_the_ack_timeout_does_not_end_the_connection(emulator):
    """The client reads the PUBACK first. It runs in another thread, so that the server is not blocked."""

    def blocked():
        async def run():
            client = DeviceClient(config(emulator, ack_timeout=0.5))
            await client.connect()
            [future] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
            await until(lambda: engine_of(client).mqtt_manager.in_flight)
            time.sleep(2.0)  # noqa: ASYNC251  # the case of this test
            result = await future
            await client.stop()
            return result, client.statistics

        return asyncio.run(run())

    result, statistics = await asyncio.to_thread(blocked)
    assert result.is_successful()
    assert (statistics.reconnects, statistics.messages_returned) == (0, 0)


async def test_a_loop_blocked_for_longer_than_twice_the_keep_alive_does_not_end_the_connection(emulator):
    """No ping could be sent in this time, so the silence of the server proves nothing."""

    def blocked():
        async def run():
            client = DeviceClient(config(emulator, keepalive=1))
            await client.connect()
            time.sleep(2.2)  # noqa: ASYNC251  # the case of this test
            # First the timer of the keep-alive runs, then the PINGRESP is read.
            await asyncio.sleep(0.05)
            result = await client.send_timeseries({"a": 1})
            await client.stop()
            return result, client.statistics

        return asyncio.run(run())

    result, statistics = await asyncio.to_thread(blocked)
    assert result.is_successful()
    assert (statistics.connections, statistics.last_disconnect) == (1, "closed by this client")


async def test_a_client_whose_connections_end_does_not_disturb_others(emulator):
    tokens = [f"TOKEN {number}" for number in range(10)]
    for number, token in enumerate(tokens):
        emulator.add_device(token, f"device {number}")
    emulator.on_publish = lambda publish: Verdict.close(0x83) if publish.device.name == "device 0" else None
    clients = [DeviceClient(config(emulator, token, limits_timeout=0.05)) for token in tokens]
    await asyncio.gather(*(client.connect() for client in clients[1:]))
    with pytest.raises(Exception):  # noqa: B017, PT011  # its session cannot be set up
        await asyncio.wait_for(clients[0].connect(), 1)
    for client in clients[1:]:
        for ts in range(100):
            await client.send_timeseries({"ts": ts, "values": {"a": ts}}, wait_for_publish=False)
    await asyncio.gather(*(client.stop() for client in clients))
    assert [client.statistics.acknowledged for client in clients] == [0] + [100] * 9
    assert [client.statistics.reconnects for client in clients[1:]] == [0] * 9


async def test_clients_can_run_in_several_threads(emulator):
    for number in range(4):
        emulator.add_device(f"THREAD {number}", f"thread {number}")

    def work(number):
        async def run():
            client = DeviceClient(config(emulator, f"THREAD {number}"))
            await client.connect()
            futures = []
            for ts in range(2000):
                futures += await client.send_timeseries({"ts": ts, "values": {"a": number}}, wait_for_publish=False)
            results = await asyncio.gather(*futures)
            await client.stop()
            return {result.reason_code for result in results}

        return asyncio.run(run())

    assert await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(4))) == [{0}] * 4
    assert [len(emulator.device(f"thread {number}").telemetry) for number in range(4)] == [2000] * 4


# A full queue.


async def full_queue(emulator, policy, **options):
    """Return a client with a full queue of four sends, whose server does not acknowledge, and their futures."""
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.endswith("telemetry") else None
    limits = {"max_inflight_messages": 1, "max_queued_messages": 4} | options
    client = DeviceClient(config(emulator, queue_policy=policy, **limits))
    await client.connect()
    # One message is in flight, so that the others stay queued.
    await client.send_timeseries({"ts": 0, "values": {"a": 0}}, wait_for_publish=False)
    await until(lambda: engine_of(client).mqtt_manager.in_flight)
    futures = [(await client.send_timeseries({"ts": ts, "values": {"a": ts}}, wait_for_publish=False))[0] for ts in range(1, 5)]
    await asyncio.sleep(0)
    return client, futures


async def test_defect_06_with_policy_wait_a_send_waits_for_space(emulator):
    client, _ = await full_queue(emulator, "wait")
    waiting = asyncio.ensure_future(client.send_timeseries({"ts": 5, "values": {"a": 5}}, wait_for_publish=False))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    emulator.on_publish = None
    await emulator.disconnect_device("device")
    [future] = await waiting
    assert (await future).is_successful()
    await client.stop()
    assert client.statistics.acknowledged == 6


async def test_a_send_that_waits_for_space_raises_when_the_client_stops(emulator):
    client, futures = await full_queue(emulator, "wait")
    waiting = asyncio.ensure_future(client.send_timeseries({"a": 5}))
    await asyncio.sleep(0.01)
    await client.stop(timeout=0)
    with pytest.raises(NotConnectedError, match="waited for capacity"):
        await waiting
    assert {(await future).reason_code for future in futures} == {-1}
    assert (client.statistics.undelivered, client.statistics.accepted) == (5, 5)


async def test_with_policy_raise_a_send_raises(emulator):
    client, _ = await full_queue(emulator, "raise")
    with pytest.raises(BackpressureException):
        await client.send_timeseries({"a": 5})
    assert client.statistics.accepted == 5
    await client.stop(timeout=0)
    assert_sum(client)


async def test_with_policy_drop_newest_a_send_is_dropped(emulator):
    client, _ = await full_queue(emulator, "drop_newest")
    assert (await client.send_timeseries({"a": 5, "b": 6})).reason_code == -2
    assert (client.statistics.dropped, client.statistics.accepted) == (2, 7)
    await client.stop(timeout=0)
    assert_sum(client)


async def test_with_policy_drop_oldest_the_oldest_send_is_dropped(emulator):
    client, futures = await full_queue(emulator, "drop_oldest")
    [newest] = await client.send_timeseries({"ts": 5, "values": {"a": 5}}, wait_for_publish=False)
    assert (await futures[0]).reason_code == -2
    emulator.on_publish = None
    await emulator.disconnect_device("device")
    assert {(await future).reason_code for future in [*futures[1:], newest]} == {0}
    assert client.statistics.dropped == 1
    await client.stop()
    assert sorted(ts for ts, _ in stored(emulator.device("device"))) == [0, 2, 3, 4, 5]
    assert_sum(client)


async def test_the_queue_is_limited_in_bytes(emulator):
    client, _ = await full_queue(emulator, "raise", max_queued_messages=100, max_queued_bytes=200)
    with pytest.raises(BackpressureException):
        await client.send_timeseries({"text": "x" * 200})
    await client.send_timeseries({"text": "x"}, wait_for_publish=False)
    await client.stop(timeout=0)
    assert_sum(client)


# Cancelled sends, and stop() at any moment.


async def test_defect_10_data_of_a_cancelled_send_arrives(emulator):
    emulator.on_publish = lambda publish: Verdict.delay(0.05) if publish.topic.endswith("telemetry") else None
    client = DeviceClient(config(emulator))
    await client.connect()
    calls = [asyncio.ensure_future(client.send_timeseries({"ts": ts, "values": {"a": ts}})) for ts in range(10)]
    await asyncio.sleep(0.01)
    for call in calls[::2]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False] * 5
    await client.stop()
    assert client.statistics.acknowledged == 10
    assert len(engine_of(client).futures) == 0


async def test_defect_09_and_11_a_send_returns_after_its_timeout_and_its_data_arrives(emulator):
    emulator.on_publish = lambda publish: Verdict.delay(0.05) if publish.topic.endswith("telemetry") else None
    client = DeviceClient(config(emulator))
    await client.connect()
    result = await client.send_timeseries({"a": 1}, timeout=0.01)
    assert (result.topic, result.qos, result.message_id, result.reason_code) == ("v1/devices/me/telemetry", 1, -1, -1)
    assert result.payload_size > 0
    await client.stop()
    assert client.statistics.acknowledged == 1


async def test_a_client_works_after_stop_and_connect_at_any_moment(emulator):
    dice = random.Random(7)
    client = DeviceClient(config(emulator))
    for _ in range(60):
        connects = [asyncio.ensure_future(client.connect()) for _ in range(dice.randrange(1, 3))]
        for _ in range(dice.randrange(0, 25)):
            await asyncio.sleep(0)
        action = dice.choice(["stop", "cancel", "disconnect", "nothing"])
        if action == "cancel":
            for connect in connects:
                connect.cancel()
        elif action == "stop":
            await client.stop()
        elif action == "disconnect":
            await client.disconnect()
        await asyncio.gather(*connects, return_exceptions=True)
    await client.stop()
    await client.connect()
    assert (await client.send_timeseries({"a": 1})).is_successful()
    await client.stop()
    assert client.state is ClientState.STOPPED


async def test_a_cancelled_stop_stops_the_client(emulator):
    client, futures = await full_queue(emulator, "wait")
    stopping = asyncio.ensure_future(client.stop(timeout=60))
    await asyncio.sleep(0.01)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert all(future.done() for future in futures)
    assert not engine_of(client).mqtt_manager.is_connected()
    assert_sum(client)


# Limits.


async def test_defect_31_a_message_waits_once_for_a_limit(emulator):
    # The client uses half of the limit that the server enforces; with all of it, a delayed first message would exceed it.
    emulator.limits = SessionLimits(rate_limits=RateLimits(None, "1000:1", "20:1"))
    client = DeviceClient(config(emulator, rate_limit_percentage=50))
    await client.connect()
    taken, try_take = [], engine_of(client).admission.try_take
    engine_of(client).admission.try_take = lambda message: taken.append(try_take(message)) or taken[-1]
    result = await client.send_timeseries([{"ts": ts, "values": {"a": ts}} for ts in range(15)])
    assert result.is_successful()
    # There are two messages. The second one is refused once, and is published after one wait.
    assert [wait > 0 for wait in taken] == [False, True, False]
    assert 0 < taken[1] <= 0.5
    assert client.statistics.seconds_limited > 0
    await client.stop()


@pytest.mark.parametrize("narrower", [{"size": 4000}, {"datapoints": "10:1"}])
async def test_packed_data_is_split_for_the_lower_limits_of_a_new_session(emulator, narrower):
    """All data arrives, and no message exceeds the limit in bytes or datapoints."""
    client = GatewayClient(config(emulator, "GATEWAY", rate_limit_percentage=100))
    await client.connect()
    sessions = [(await client.connect_device(f"device {number}", wait_for_publish=True))[0] for number in range(4)]
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic == "v1/gateway/telemetry" else None
    futures = [
        await client.send_device_timeseries(
            session, {"ts": 1, "values": {f"key {key}": "x" * 500 for key in range(1 + 5 * index)}}, wait_for_publish=False
        )
        for index, session in enumerate(sessions)
    ]
    await until(lambda: engine_of(client).mqtt_manager.in_flight)
    publishes = []
    emulator.on_publish = publishes.append
    if size := narrower.get("size"):
        emulator.max_payload_size = size
    emulator.limits = SessionLimits(gateway_rate_limits=RateLimits(telemetry_datapoints=narrower.get("datapoints")))
    await emulator.disconnect_device("gateway")
    results = [await future for future in futures]
    assert [(result.reason_code, result.datapoints_count) for result in results] == [(0, 1), (0, 6), (0, 11), (0, 16)]
    assert [len(emulator.device(f"device {number}").telemetry) for number in range(4)] == [1, 6, 11, 16]
    data = [publish for publish in publishes if publish.topic == "v1/gateway/telemetry"]
    if size:
        assert max(publish.remaining_length for publish in data) <= size
    else:
        assert max(publish.payload.count(b'"key ') for publish in data) <= 10
    assert_sum(client)
    await client.stop()


async def test_devices_are_announced_before_their_data_on_a_new_connection(emulator):
    order = []
    emulator.on_publish = lambda publish: order.append((publish.topic, publish.payload))
    client = GatewayClient(config(emulator, "GATEWAY"))
    await client.connect()
    stream = Stream(client, emulator, [f"device {number}" for number in range(20)])
    await stream.announce()
    await stream.send(0, 100)
    await asyncio.gather(*(future for _, _, future in stream.calls))
    order.clear()
    await emulator.disconnect_device("gateway")
    await stream.send(100, 200)
    await stream.check_all_acknowledged()
    announced = set()
    for topic, payload in order:
        if topic == "v1/gateway/connect":
            announced.add(payload)
        elif topic == "v1/gateway/telemetry":
            assert len(announced) > 0
    assert len(announced) == 20
    assert [emulator.device(name).counters.connections for name in stream.names] == [2] * 20
    await client.stop()
