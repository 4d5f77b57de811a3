"""Telemetry without a time: the platform sets it, as for SDK 1.x, unless values would overwrite each other."""

import time

import pytest
from one_x_platform import Calls

from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.one_x import times


@pytest.fixture
def payloads(platform_thread):
    """Keep the payloads with telemetry."""
    payloads = Calls()

    def keep(publish):
        if publish.topic.endswith("/telemetry"):
            payloads(publish.json())

    platform_thread.emulator.on_publish = keep
    return payloads


def test_the_platform_sets_the_time_of_a_send_that_is_alone(device, payloads):
    for value in (1, 2):
        assert device.send_telemetry({"a": value}).get() == 0
    assert payloads.all == [([{"a": 1}],), ([{"a": 2}],)]


def test_the_platform_sets_the_time_for_sub_devices(gateway, payloads):
    assert gateway.gw_send_telemetry("meter", [{"a": 1}, {"ts": 5, "values": {"b": 2}}]).get() == 0
    [payload] = payloads.wait(1)
    assert {"a": 1} in payload["meter"]
    assert {"ts": 5, "values": {"b": 2}} in payload["meter"]


def test_later_sends_get_the_time_of_the_client_while_one_is_not_acknowledged(platform_thread, device):
    verdicts = [Verdict.delay(0.2)]
    platform_thread.emulator.on_publish = lambda publish: verdicts.pop() if verdicts else None
    before = time.time() * 1000 - 1
    infos = [device.send_telemetry({"a": value}) for value in range(5)]
    assert {info.get() for info in infos} == {0}
    stored = platform_thread.stored()
    assert [value for _, _, value in sorted(stored, key=lambda point: point[2])] == list(range(5))
    assert all(before <= ts <= time.time() * 1000 + times.LONGEST_LEAD for ts, _, _ in stored)


def test_the_platform_sets_all_times_if_the_clock_is_not_set(platform_thread, device, payloads, monkeypatch):
    monkeypatch.setattr(times, "now_ms", lambda: 1000)
    infos = [device.send_telemetry({"a": value}) for value in range(3)]
    assert {info.get() for info in infos} == {0}
    assert sorted(value for _, _, value in platform_thread.stored()) == [0, 1, 2]
    assert all("ts" not in record for (payload,) in payloads.all for record in payload)


@pytest.mark.parametrize("data", [{"ts": 5}, {"values": 1, "ts": 7}, {"values": {"a": 1}}])
def test_keys_that_the_platform_would_take_for_parts_of_the_record_are_sent_with_a_time(platform_thread, device, data):
    assert device.send_telemetry(data).get() == 0
    assert dict(platform_thread.values()) == data
