"""Clients keep to the announced limits, fill payloads, report refusals, and count as the platform does."""

import asyncio

import pytest

from engine_parts import engine_of
from tb_mqtt_client import ConnectionRefusedByServer, DeviceClient, GatewayClient
from tb_mqtt_client.common.rate_limit.rate_limit import parse_windows
from tb_mqtt_client.emulator import Emulator, RateLimits, SessionLimits, Verdict


def config(emulator, token="TOKEN", **options):
    return {"host": emulator.host, "port": emulator.port, "access_token": token} | options


def assert_sums(client, emulator):
    """Check that the client acknowledged as many datapoints as the platform counted."""
    statistics = client.statistics
    states = ("acknowledged", "rejected", "dropped", "undelivered", "queued", "in_flight")
    assert statistics.accepted == sum(getattr(statistics, state) for state in states)
    assert statistics.acknowledged - statistics.superseded == emulator.counters.datapoints


class Admitted:
    """Counts messages that exceed a limit, with token buckets of its own like those of the platform."""

    def __init__(self, limits, clock=None):
        self._clock = clock or asyncio.get_running_loop().time
        self._levels = {window: float(window[0]) for window in parse_windows(limits, 100)}
        self._updated = self._clock()
        self.violations = 0

    def take(self, amount):
        now = self._clock()
        for (capacity, seconds), level in self._levels.items():
            self._levels[capacity, seconds] = min(capacity, level + (now - self._updated) * capacity / seconds)
        self._updated = now
        if any(level < amount for level in self._levels.values()):
            self.violations += 1
            return
        for window in self._levels:
            self._levels[window] -= amount


async def test_limits_are_requested_at_each_connection(emulator):
    emulator.limits = SessionLimits(rate_limits=RateLimits("10:1", "100:1", "1000:1,5000:60"))
    client = DeviceClient(config(emulator))
    await client.connect()
    assert engine_of(client).rate_limiter.message_rate_limit.buckets.windows == [(8, 1.0)]
    assert engine_of(client).rate_limiter.telemetry_datapoints_rate_limit.buckets.windows == [(800, 1.0), (4000, 60.0)]
    assert client.max_payload_size == 65536 - (2 + len("v1/devices/me/attributes")) - 2 - 1
    emulator.limits = SessionLimits()
    await client.disconnect()
    await client.connect()
    assert not any(limit.has_limit() for limit in engine_of(client).rate_limiter.values())
    await client.stop()


async def test_defect_19_contract_9_connect_returns_although_the_server_announces_no_limits():
    """Servers before 3.8 do this. connect() continues after a timeout, with safe defaults."""
    async with Emulator(limits=None) as emulator:
        emulator.add_device("TOKEN", "device")
        client = DeviceClient(config(emulator, limits_timeout=0.05))
        await client.connect()
        assert (await client.send_timeseries({"a": 1})).is_successful()
        assert client.max_payload_size == 65536 - (2 + len("v1/devices/me/attributes")) - 2 - 1
        await client.stop()
        assert_sums(client, emulator)


async def test_the_wait_for_limits_is_shorter_after_a_missing_response(caplog):
    caplog.set_level("INFO", "tb_mqtt_client")

    def waited():
        lines = [record.getMessage() for record in caplog.records if "did not announce its limits" in record.getMessage()]
        caplog.clear()
        return [line.split("within ")[1].split(" s")[0] for line in lines]

    async with Emulator(limits=None) as emulator:
        emulator.add_device("TOKEN", "device")
        client = DeviceClient(config(emulator, limits_timeout=0.05))
        setup = engine_of(client).session_setup
        setup.silent_server_seconds = 0.02
        await client.connect()
        assert waited() == ["0.05"]
        await client.disconnect()
        await client.connect()
        assert waited() == ["0.02"]
        await client.disconnect()
        emulator.limits = SessionLimits()
        # Also a busy machine responds within this time.
        setup.silent_server_seconds = 60
        await client.connect()
        assert waited() == []
        await client.disconnect()
        emulator.limits = None
        await client.connect()
        assert waited() == ["0.05"]
        await client.stop()


async def test_a_device_keeps_within_the_limits(emulator):
    emulator.limits = SessionLimits(rate_limits=RateLimits(None, "20:1", "300:1"))
    messages, datapoints = Admitted("20:1"), Admitted("300:1")

    def judge(publish):
        if publish.topic == "v1/devices/me/telemetry":
            messages.take(1)
            datapoints.take(sum(len(record["values"]) for record in publish.json()))

    emulator.on_publish = judge
    client = DeviceClient(config(emulator))
    await client.connect()
    result = await client.send_timeseries([{"ts": ts, "values": {"a": ts, "b": 1}} for ts in range(300)])
    assert (result.is_successful(), result.datapoints_count) == (True, 600)
    await client.stop()
    assert (messages.violations, datapoints.violations) == (0, 0)
    assert emulator.device("device").counters.telemetry_datapoints == 600
    assert_sums(client, emulator)


async def test_a_gateway_takes_one_message_token_for_each_device_entry(emulator):
    emulator.limits = SessionLimits(gateway_rate_limits=RateLimits(None, "12:1", "1000:1"))
    messages, datapoints = Admitted("12:1"), Admitted("1000:1")

    def judge(publish):
        if publish.topic == "v1/gateway/telemetry":
            document = publish.json()
            messages.take(len(document))
            datapoints.take(sum(len(record["values"]) for records in document.values() for record in records))

    emulator.on_publish = judge
    client = GatewayClient(config(emulator, "GATEWAY"))
    await client.connect()
    sessions = [(await client.connect_device(f"device {number}", "profile"))[0] for number in range(20)]
    futures = [await client.send_device_timeseries(session, {"a": 1}, wait_for_publish=False) for session in sessions]
    results = await asyncio.gather(*futures)
    await client.stop()
    assert all(result.is_successful() for result in results)
    assert (messages.violations, datapoints.violations) == (0, 0)
    assert {emulator.device(f"device {number}").profile for number in range(20)} == {"profile"}
    assert_sums(client, emulator)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("size", [1000, 65536])
@pytest.mark.parametrize("gateway", [False, True])
async def test_packets_are_full_and_not_too_large(version, size, gateway):
    """docs/platform_contract.md, fact 6: the limit applies to the remaining length, and at least 97 % of it is used."""
    async with Emulator(max_payload_size=size) as emulator:
        emulator.add_device("TOKEN", "device")
        emulator.add_gateway("GATEWAY", "gateway")
        lengths = []
        emulator.on_publish = lambda publish: (
            lengths.append(publish.remaining_length) if publish.topic.endswith("/telemetry") else None
        )
        records = [{"ts": ts, "values": {"a": 1.5, "bé": 'x"\\', "c": None}} for ts in range(5000)]
        if gateway:
            client = GatewayClient(config(emulator, "GATEWAY", mqtt_version=version))
            await client.connect()
            session, _ = await client.connect_device("sub-device")
            result = await client.send_device_timeseries(session, records)
        else:
            client = DeviceClient(config(emulator, mqtt_version=version))
            await client.connect()
            result = await client.send_timeseries(records)
        await client.stop()
        assert (result.is_successful(), result.datapoints_count) == (True, 15_000)
        assert len(lengths) > 3
        assert max(lengths) <= size
        # The last payload of a batch may be smaller; a record of these has less than 60 bytes.
        assert sorted(lengths)[len(lengths) // 16 + 1] >= size - max(0.03 * size, 60)
        # The platform drops nulls and does not count them.
        assert emulator.counters.telemetry_datapoints == 10_000


async def test_only_the_sends_of_a_refused_payload_are_rejected(emulator):
    emulator.on_publish = lambda publish: (
        Verdict.refuse(0x99) if b"bad" in publish.payload and publish.topic.endswith("/attributes") else None
    )
    client = DeviceClient(config(emulator))
    await client.connect()
    attributes, telemetry = await asyncio.gather(client.send_attributes({"bad": 1, "b": 2}), client.send_timeseries({"bad": 1}))
    await client.stop()
    assert (attributes.reason_code, attributes.reason, attributes.datapoints_count) == (0x99, "Payload format invalid", 2)
    assert telemetry.is_successful()
    assert client.statistics.rejected_by_reason == {0x99: 2}
    assert_sums(client, emulator)


async def test_the_reason_code_no_matching_subscribers_is_a_success(emulator):
    emulator.on_publish = lambda publish: Verdict.acknowledge(0x10) if publish.topic.endswith("/telemetry") else None
    client = DeviceClient(config(emulator))
    await client.connect()
    assert (await client.send_timeseries({"a": 1})).reason_code == 0
    await client.stop()


@pytest.mark.parametrize("window", [1, 100])
async def test_sends_of_one_loop_turn_are_published_together(emulator, window):
    client = DeviceClient(config(emulator, max_inflight_messages=window))
    await client.connect()
    await client.send_timeseries({"before": 1})
    calls = [asyncio.ensure_future(client.send_timeseries({"ts": ts, "values": {"a": ts}})) for ts in range(10)]
    # One turn for the sends, and one for the queued data.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert engine_of(client).mqtt_manager.in_flight == 1
    late = asyncio.ensure_future(client.send_timeseries([{"ts": ts, "values": {"b": "x" * 1000}} for ts in range(150)]))
    results = await asyncio.gather(*calls)
    assert {(result.is_successful(), result.datapoints_count) for result in results} == {(True, 1)}
    assert (await late).datapoints_count == 150
    # The late send has three payloads.
    assert emulator.counters.data_publishes == 5
    assert_sums(client, emulator)
    await client.stop()


async def test_acknowledgements_in_any_order_resolve_the_right_sends(emulator):
    """docs/platform_contract.md, fact 5: PUBACKs may come in any order."""
    delays = iter([0.05, 0.0, 0.03, 0.01])
    emulator.on_publish = lambda publish: Verdict.delay(next(delays)) if publish.topic.endswith("/telemetry") else None
    client = DeviceClient(config(emulator))
    await client.connect()
    results = []
    for count in (1, 2, 3, 4):
        [future] = await client.send_timeseries({f"k{index}": 1 for index in range(count)}, wait_for_publish=False)
        results.append(future)
        await asyncio.sleep(0.002)
    assert [result.datapoints_count for result in await asyncio.gather(*results)] == [1, 2, 3, 4]
    await client.stop()
    assert_sums(client, emulator)


@pytest.mark.parametrize(("version", "code"), [(5, 0x86), (4, 5)])
async def test_a_wrong_token_raises_at_once(emulator, version, code):
    client = DeviceClient(config(emulator, "wrong", mqtt_version=version))
    with pytest.raises(ConnectionRefusedByServer) as refused:
        await client.connect()
    assert (refused.value.reason_code, refused.value.protocol_version) == (code, version)
    await client.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_gateway_sends_its_own_data_and_that_of_devices(emulator):
    client = GatewayClient(config(emulator, "GATEWAY"))
    await client.connect()
    session, connected = await client.connect_device("sub", wait_for_publish=True)
    assert connected.is_successful()
    assert (await client.send_device_attributes(session, {"serial": "x"})).is_successful()
    assert (await client.send_attributes({"version": 2})).is_successful()
    assert (await client.send_timeseries({"load": 0.5})).is_successful()
    assert emulator.device("sub").attributes == {"serial": "x"}
    assert emulator.device("gateway").attributes == {"version": 2}
    await client.stop()
    assert_sums(client, emulator)


async def test_send_telemetry_is_a_deprecated_name_of_send_timeseries(emulator):
    client = DeviceClient(config(emulator))
    await client.connect()
    with pytest.deprecated_call(match="use send_timeseries"):
        assert (await client.send_telemetry({"a": 1}, timeout=5)).is_successful()
    await client.stop()


async def test_defect_24_two_clients_do_not_affect_each_other(emulator):
    emulator.add_device("OTHER", "other")
    first, second = DeviceClient(config(emulator)), DeviceClient(config(emulator, "OTHER"))
    await asyncio.gather(first.connect(), second.connect())
    await emulator.disconnect_device("TOKEN", 0x8E)
    assert (await second.send_timeseries({"a": 1, "b": 2})).is_successful()
    assert (first.statistics.acknowledged, second.statistics.acknowledged) == (0, 2)
    await asyncio.gather(first.stop(), second.stop())
    assert emulator.device("other").counters.telemetry_datapoints == 2
