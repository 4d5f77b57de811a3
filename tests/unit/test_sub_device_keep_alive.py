"""Quiet sub-devices get a keep-alive in time, in few messages and within the limits."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from passing_loop import Clock

from engine_parts import own_tasks
from tb_mqtt_client import GatewayConfig
from tb_mqtt_client._native import DeviceIdentity
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.mqtt_topics import GATEWAY_ATTRIBUTES_TOPIC
from tb_mqtt_client.service.delivery.work_item import WorkItem
from tb_mqtt_client.service.formats.json_gateway import JsonGatewayFormat
from tb_mqtt_client.service.gateway import keep_alive
from tb_mqtt_client.service.gateway.keep_alive import SubDeviceKeepAlive, keep_alive_message

SECONDS = 240
DEVICES = [DeviceIdentity(f"meter {number:05}") for number in range(10_000)]


class Manager:
    """Records published messages and their times."""

    def __init__(self, clock):
        self.clock = clock
        self.published = []
        self.writable = asyncio.Event()
        self.writable.set()

    async def wait_writable_for_service(self):
        await self.writable.wait()

    def publish_now(self, item):
        self.published.append((self.clock.now, item))

    def entries(self):
        """Return time and device of all keep-alives."""
        return [(when, name) for when, item in self.published for name in json.loads(item.message.payload)]


class Admission:
    """Admits `rate` devices per second, or all if it is 0."""

    def __init__(self, clock):
        self.clock = clock
        self.rate = self.free_at = 0.0
        self.largest = 0
        self.max_payload_size = 65_500
        self.asked_at = []

    def payload_limits(self, *, of_sub_devices):
        assert of_sub_devices
        return SimpleNamespace(max_payload_size=self.max_payload_size)

    def largest_service_message(self, *, of_sub_devices):
        assert of_sub_devices
        return self.largest

    def try_take(self, item):
        self.asked_at.append(self.clock.now)
        if not self.rate:
            return 0.0
        if self.free_at > self.clock.now:
            return self.free_at - self.clock.now
        self.free_at = self.clock.now + item.devices / self.rate
        return 0.0

    async def wait(self, seconds):
        await asyncio.sleep(seconds)


@pytest.fixture
def site():
    """Return a keep-alive, and the test doubles that it uses."""
    clock = Clock()
    manager, admission = Manager(clock), Admission(clock)
    config = GatewayConfig({"sub_device_keepalive": SECONDS})
    others = SimpleNamespace(wait_until=0.0)
    kept = SubDeviceKeepAlive(config, JsonGatewayFormat(), manager, admission, own_tasks(), lambda: clock.now < others.wait_until)
    refused = []
    kept.on_refused = refused.extend

    def run(method, *arguments):
        async def call():
            return method(*arguments)

        return clock.run_until_complete(call())

    def data_of(*devices):
        """Let the platform acknowledge data of these devices."""
        run(kept.acknowledged, SimpleNamespace(devices=len(devices), identities=list(devices)))

    yield SimpleNamespace(
        clock=clock,
        manager=manager,
        admission=admission,
        others=others,
        kept=kept,
        refused=refused,
        run=run,
        data_of=data_of,
    )
    run(kept.connection_ended)
    clock.run_until(clock.now)
    clock.close()


def gaps(entries, until):
    """Return the longest time without an uplink, by device. All of them were announced at 0."""
    times = {}
    for when, name in entries:
        times.setdefault(name, [0.0]).append(when)
    return {name: max(later - earlier for earlier, later in zip(of, [*of[1:], until], strict=True)) for name, of in times.items()}


@pytest.mark.parametrize("count", [1, 10, 150, 10_000])
def test_each_quiet_device_has_an_uplink_in_time_and_not_too_often(site, count):
    for device in DEVICES[:count]:
        site.run(site.kept.announced, device)
    hour = 3600
    site.clock.run_until(hour)
    entries = site.manager.entries()
    longest = gaps(entries, hour)
    assert len(longest) == count
    assert max(longest.values()) <= 1.5 * SECONDS + 1
    assert len(entries) / count <= hour / SECONDS / (1 - 1 / keep_alive.EARLY) + 1
    messages = len(site.manager.published)
    assert messages <= hour / SECONDS * 8 / 7 * max(1, min(count / 100, 32)) + 32
    assert all(
        item.message.payload_size <= 65_500 and item.message.topic == GATEWAY_ATTRIBUTES_TOPIC for _, item in site.manager.published
    )


def test_a_device_that_sends_gets_no_keep_alive(site):
    chatty, quiet = DEVICES[:5], DEVICES[5:8]
    for device in (*chatty, *quiet):
        site.run(site.kept.announced, device)
    for now in range(10, 2000, 10):
        site.clock.run_until(now)
        site.data_of(*chatty)
    assert {name for _, name in site.manager.entries()} == {device.name for device in quiet}


def test_a_device_that_stops_sending_gets_a_keep_alive_in_time(site):
    site.run(site.kept.announced, DEVICES[0])
    for now in range(0, 1000, 100):
        site.clock.run_until(now)
        site.data_of(DEVICES[0])
    site.clock.run_until(1400)
    assert site.manager.entries() == [(900 + SECONDS, DEVICES[0].name), (900 + 2 * SECONDS, DEVICES[0].name)]


def test_requests_for_a_device_count_as_its_uplinks(site):
    site.run(site.kept.announced, DEVICES[0])
    site.clock.run_until(200)
    message = MqttPublishMessage("v1/gateway/attributes/request", b"{}")
    message.device = DEVICES[0]
    item = WorkItem(message, [])
    item.device = message.device
    site.run(site.kept.acknowledged, item)
    site.clock.run_until(200 + SECONDS - 1)
    assert site.manager.published == []


def test_a_repeated_announcement_does_not_count_as_an_uplink(site):
    """The platform does not count it either."""
    for now in (0, 100, 200):
        site.clock.run_until(now)
        site.run(site.kept.announced, DEVICES[0])
    site.clock.run_until(SECONDS)
    assert site.manager.entries() == [(SECONDS, DEVICES[0].name)]


def test_the_devices_of_very_many_messages_are_not_all_read(site):
    """Each device is soon in a message that is read, so it gets no keep-alive."""
    looked_at = []
    devices = DEVICES[:1000]
    for device in devices:
        site.run(site.kept.announced, device)

    class Item:
        devices = 1000

        @property
        def identities(self):
            looked_at.append(site.clock.now)
            return devices

    for now in range(300):
        site.clock.run_until(now)
        for _ in range(100):
            site.run(site.kept.acknowledged, Item())
    bound = keep_alive.LOOKED_AT_AT_ONCE / 1000 + 300 * keep_alive.LOOKED_AT_A_SECOND / 1000
    assert bound * 0.9 < len(looked_at) <= bound
    assert site.manager.published == []


def test_payloads_and_limit_windows_are_not_exceeded(site):
    site.admission.largest, site.admission.max_payload_size = 200, 1000
    for device in DEVICES[:500]:
        site.run(site.kept.announced, device)
    site.clock.run_until(2 * SECONDS)
    assert {item.devices for _, item in site.manager.published} == {50}
    site.admission.largest = 0
    site.clock.run_until(3 * SECONDS)
    sizes = [item.message.payload_size for _, item in site.manager.published]
    assert 980 < max(sizes) <= 1000


def test_limits_that_are_too_low_are_logged_and_delay_keep_alives(site, caplog):
    site.admission.rate = 1.0
    for device in DEVICES[:1000]:
        site.run(site.kept.announced, device)
    site.clock.run_until(3000)
    entries = site.manager.entries()
    assert len({name for _, name in entries}) == 1000
    assert 2500 < len(entries) <= 3000
    assert "The limits admit too few messages to keep 1000 sub-devices reachable" in caplog.text


@pytest.mark.parametrize(("seconds", "published_at"), [(50, 50), (1000, SECONDS / 2)])
def test_announcements_and_responses_delay_a_keep_alive_for_a_limited_time(site, seconds, published_at):
    site.run(site.kept.announced, DEVICES[0])
    site.others.wait_until = SECONDS + seconds
    site.clock.run_until(SECONDS + 300)
    [when, *_] = [when for when, _ in site.manager.published]
    assert published_at <= when - SECONDS <= published_at + SECONDS / keep_alive.SPREAD


def test_a_message_takes_more_tokens_than_an_announcement_if_the_window_has_them(site):
    """A message that needs fewer tokens gets them first."""
    for device in DEVICES[:10]:
        site.run(site.kept.announced, device)
    for largest, expected in ((2, 2), (4, 3), (16, 4)):
        site.admission.largest = largest
        site.manager.published.clear()
        site.clock.run_until(site.clock.now + SECONDS + 1)
        assert site.manager.published[0][1].devices == expected


def test_other_messages_get_as_much_time_as_a_keep_alive_waited(site):
    site.admission.rate = 1.0
    for device in DEVICES[:400]:
        site.run(site.kept.announced, device)
    site.clock.run_until(2 * SECONDS)
    # 100 devices, one per second.
    assert [when for when, _ in site.manager.published[:2]] == [SECONDS, SECONDS + 100]
    [asked, *_] = [when for when in site.admission.asked_at if when > SECONDS + 100]
    assert asked - (SECONDS + 100) >= 100 - SECONDS / keep_alive.SPREAD


def test_nothing_is_published_while_the_window_is_full(site):
    site.run(site.kept.announced, DEVICES[0])
    site.manager.writable.clear()
    site.clock.run_until(SECONDS + 50)
    assert site.manager.published == []
    site.manager.writable.set()
    site.clock.run_until(SECONDS + 51)
    assert len(site.manager.published) == 1


def test_devices_of_a_refused_keep_alive_are_reported_and_forgotten(site):
    for device in DEVICES[:3]:
        site.run(site.kept.announced, device)
    site.clock.run_until(SECONDS)
    [(_, item)] = site.manager.published
    site.run(site.kept.forget, DEVICES[1])
    item.futures[0].set_result(item.result(0x80))
    site.clock.run_until(3 * SECONDS)
    assert site.refused == [DEVICES[0], DEVICES[2]]
    assert (len(site.kept), len(site.manager.published)) == (0, 1)


def test_a_forgotten_device_gets_no_keep_alive(site):
    for device in DEVICES[:3]:
        site.run(site.kept.announced, device)
    site.run(site.kept.forget, DEVICES[0])
    site.run(site.kept.forget, DEVICES[9])
    site.clock.run_until(SECONDS)
    assert [name for _, name in site.manager.entries()] == [device.name for device in DEVICES[1:3]]
    for device in DEVICES[1:3]:
        site.run(site.kept.forget, device)
    site.clock.run_until(3 * SECONDS)
    assert len(site.manager.published) == 1
    # Its time starts again after another announcement.
    site.run(site.kept.announced, DEVICES[0])
    site.clock.run_until(4 * SECONDS)
    assert site.manager.entries()[-1] == (4 * SECONDS, DEVICES[0].name)


def test_keep_alives_end_with_the_connection(site):
    site.run(site.kept.announced, DEVICES[0])
    site.run(site.kept.connection_ended)
    site.clock.run_until(3 * SECONDS)
    assert site.manager.published == []
    assert asyncio.all_tasks(site.clock) == set()
    site.run(site.kept.announced, DEVICES[0])
    site.clock.run_until(4 * SECONDS)
    assert len(site.manager.published) == 1


def test_an_unexpected_error_is_reported_and_the_devices_stay_reachable(site, caplog):
    errors = iter([ZeroDivisionError("by zero")])

    def fail_once(_message):
        for error in errors:
            raise error
        return 0.0

    site.admission.try_take = fail_once
    site.run(site.kept.announced, DEVICES[0])
    site.clock.run_until(SECONDS + 10)
    assert len(site.manager.published) == 1
    assert "ZeroDivisionError" in caplog.text


def test_without_an_interval_there_are_no_keep_alives(site):
    kept = SubDeviceKeepAlive(
        GatewayConfig({"sub_device_keepalive": 0}), JsonGatewayFormat(), site.manager, site.admission, own_tasks(), lambda: False
    )
    site.run(kept.announced, DEVICES[0])
    assert (len(kept), asyncio.all_tasks(site.clock)) == (0, set())


@pytest.mark.parametrize("names", [["A"], ['quo"te', "é", "\n"], ["x" * 300, "y"], [f"D{number}" for number in range(200)]])
@pytest.mark.parametrize("max_size", [1, 100, 65_500])
async def test_a_message_has_as_many_names_as_fit(names, max_size):
    item = keep_alive_message(*JsonGatewayFormat().empty_attributes(iter(names), max_size))
    assert json.loads(item.message.payload) == {name: {} for name in names[: item.devices]}
    assert item.message.payload_size <= max_size or item.devices == 1
    if item.devices < len(names):
        assert len(JsonGatewayFormat().empty_attributes(names[: item.devices + 1], 10**6)[0]) > max_size
    assert (item.has_datapoints, item.of_sub_devices) == (False, True)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), ("0", 0), (60, 60), ("90.5", 90.5)])
def test_the_option_is_a_number_of_seconds(value, expected):
    assert GatewayConfig({"sub_device_keepalive": value}).sub_device_keepalive == expected
    assert GatewayConfig().sub_device_keepalive == 240


@pytest.mark.parametrize("value", [-1, "often", True, float("nan")])
def test_an_invalid_option_raises(value):
    with pytest.raises(ValueError, match="sub_device_keepalive"):
        GatewayConfig({"sub_device_keepalive": value})
