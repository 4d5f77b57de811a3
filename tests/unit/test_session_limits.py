"""The answer to getSessionLimits, and what admission makes of it."""

import asyncio
import json

import pytest

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.rate_limit.backpressure_controller import BackpressureController
from tb_mqtt_client.common.rate_limit.rate_limit import RateLimit
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter
from tb_mqtt_client.service.admission import Admission
from tb_mqtt_client.service.session_limits import SessionLimits, apply_rate_limits


class Clock:
    now = 0

    def __call__(self):
        return self.now


def limiter(clock, messages="", telemetry_messages="", datapoints=""):
    limits = (messages, telemetry_messages, datapoints)
    return RateLimiter(*(RateLimit(text, percentage=100, clock=clock) for text in limits))


def test_parse():
    reply = {
        "maxPayloadSize": 1000,
        "maxInflightMessages": 100,
        "rateLimits": {"messages": "1:1", "telemetryMessages": None, "telemetryDataPoints": ""},
        "gatewayRateLimits": {"messages": "2:1"},
    }
    limits = SessionLimits.parse(json.dumps(reply).encode())
    assert (limits.max_payload_size, limits.device["messages"], limits.gateway) == (1000, "1:1", {"messages": "2:1"})


@pytest.mark.parametrize("reply", ['{"error":"timeout"}', "[]", "no json", ""])
def test_no_answer(reply):
    with pytest.raises(ValueError, match=r"getSessionLimits|Expecting value"):
        SessionLimits.parse(reply.encode())


@pytest.mark.parametrize("size", [None, 0, "x", -1])
def test_defaults(size):
    assert SessionLimits.parse(json.dumps({"maxPayloadSize": size}).encode()) == SessionLimits(announced=True)


def test_contract_9_what_was_spent_stays_spent():
    """The server's buckets survive a reconnect (contract, section 5)."""
    clock = Clock()
    limits = limiter(clock, messages="10:1")
    limits.message_rate_limit.spend(10)
    apply_rate_limits(limits, {"messages": "10:1", "telemetryDataPoints": "5:1"}, 100)
    assert limits.message_rate_limit.buckets.tokens(0) == [0.0]
    assert limits.telemetry_datapoints_rate_limit.minimal_limit == 5


async def test_defect_32_and_36_contract_9_tokens_are_taken_once_from_the_right_limits():
    """Facts 3 and 4 of the contract: data takes messages and datapoints, a gateway's by device entry; all else takes messages."""
    clock = Clock()
    device, gateway = limiter(clock, "5:1", "5:1", "50:1"), limiter(clock, "7:1", "7:1", "70:1")
    admission = Admission(device, gateway, BackpressureController(asyncio.Event()), clock)

    def tokens(of):
        return [limit.buckets.tokens(0)[0] for limit in of.values()]

    def take(topic, datapoints=0, devices=1, superseded=0):
        message = MqttPublishMessage(topic, b"", datapoints=datapoints)
        message.devices, message.superseded = devices, superseded
        return admission.try_take(message)

    assert take("v1/devices/me/telemetry", 10) == 0.0
    assert take("v1/devices/me/attributes", 5) == 0.0
    assert tokens(device) == [5.0, 3.0, 35.0]
    assert take("v1/devices/me/rpc/response/1") == 0.0
    assert tokens(device) == [4.0, 3.0, 35.0]
    assert take("v1/gateway/telemetry", 30, devices=3, superseded=5) == 0.0
    assert take("v1/gateway/connect") == 0.0
    assert tokens(gateway) == [5.0, 4.0, 45.0]
    assert tokens(device) == [4.0, 3.0, 35.0]
    # 45 of 70 a second are there: 10 more come in a seventh of it. Nothing is taken meanwhile.
    assert take("v1/gateway/telemetry", 55) == pytest.approx(10 / 70)
    assert tokens(gateway) == [5.0, 4.0, 45.0]
    clock.now = round(1e9 / 7) + 1
    assert take("v1/gateway/telemetry", 55) == 0.0
    # More than a window ever holds, after the limits became narrower: all of the window.
    clock.now = 10**10
    assert take("v1/gateway/telemetry", 700) == 0.0


async def test_new_limits_wake_who_waits_by_the_old_ones():
    admission = Admission(limiter(Clock()), limiter(Clock()), BackpressureController(asyncio.Event()), Clock())
    waiting = asyncio.ensure_future(admission.wait(3600))
    await asyncio.sleep(0)
    admission.limits_changed()
    await waiting
