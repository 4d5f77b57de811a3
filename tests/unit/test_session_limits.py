"""The response to getSessionLimits, and the admission of messages by its limits."""

import asyncio
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_parts import engine_of
from tb_mqtt_client import GatewayClient
from tb_mqtt_client._native import DeviceIdentity, EncodedUplink, pack_timeseries
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.rate_limit.backpressure_controller import BackpressureController
from tb_mqtt_client.common.rate_limit.rate_limit import RateLimit
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.delivery.work_item import WorkItem
from tb_mqtt_client.service.formats.json_session_limits import LIMIT_NAMES, SessionLimits
from tb_mqtt_client.service.session.limits import apply_rate_limits


class Clock:
    now = 0

    def __call__(self):
        return self.now


def limiter(clock, messages="", telemetry_messages="", datapoints=""):
    limits = (messages, telemetry_messages, datapoints)
    return RateLimiter(*(RateLimit(text, percentage=100, clock=clock) for text in limits))


def test_a_response_is_parsed():
    reply = {
        "maxPayloadSize": 1000,
        "maxInflightMessages": 100,
        "rateLimits": {"messages": "1:1", "telemetryMessages": None, "telemetryDataPoints": ""},
        "gatewayRateLimits": {"messages": "2:1"},
    }
    limits = SessionLimits.parse(json.dumps(reply).encode())
    assert (limits.max_packet_size, limits.device["messages"], limits.gateway) == (1000, "1:1", {"messages": "2:1"})


@pytest.mark.parametrize("reply", ['{"error":"timeout"}', "[]", "not json", ""])
def test_a_response_without_limits_is_refused(reply):
    with pytest.raises(ValueError, match=r"getSessionLimits|Expecting value|not a JSON object"):
        SessionLimits.parse(reply.encode())


UNUSABLE_SIZES = [0, "x", -1, True, 1.5, 65536.0, float("nan"), [], {}, 79, 2**31, 2**64, 10**300]


@pytest.mark.parametrize("size", [None, *UNUSABLE_SIZES])
def test_an_unusable_payload_size_is_replaced_by_the_default(size, caplog):
    assert SessionLimits.parse(json.dumps({"maxPayloadSize": size}).encode()) == SessionLimits(announced=True)
    assert ["maxPayloadSize=" in message for message in caplog.messages] == ([] if size is None else [True])


@pytest.mark.parametrize(("size", "used"), [(80, 80), (65536, 65536), (2**31 - 1, 268_435_455)])
def test_a_payload_size_is_at_most_what_mqtt_can_carry(size, used):
    assert SessionLimits.parse(json.dumps({"maxPayloadSize": size}).encode()).max_packet_size == used


@pytest.mark.parametrize("of", ["rateLimits", "gatewayRateLimits"])
@pytest.mark.parametrize("name", ["messages", "telemetryMessages", "telemetryDataPoints"])
@pytest.mark.parametrize(
    ("value", "used"),
    [
        (200, None),
        (1.5, None),
        (True, None),
        ([], None),
        (["1:1"], None),
        ({"1": 1}, None),
        ("100", ""),
        ("1e9:1", ""),
        ("10:1,x", "10:1"),
        (f"{10**20}:1,10:1", "10:1"),
        (f"10:1,5:{10**30}", "10:1"),
        (f"{10**400}:{10**400}", ""),
    ],
)
def test_unusable_rate_limits_are_ignored_with_one_warning(of, name, value, used, caplog):
    reply = {of: {"messages": "1:1", "telemetryMessages": "1:1", "telemetryDataPoints": "1:1", name: value, "other": 1}}
    limits = SessionLimits.parse(json.dumps(reply).encode())
    texts = limits.device if of == "rateLimits" else limits.gateway
    assert texts == {"messages": "1:1", "telemetryMessages": "1:1", "telemetryDataPoints": "1:1", name: used}
    [message] = caplog.messages
    assert f"{of}.{name}=" in message


@pytest.mark.parametrize("value", [1, "10:1", [], True])
def test_rate_limits_that_are_not_an_object_are_ignored_with_one_warning(value, caplog):
    reply = {"maxPayloadSize": "x", "rateLimits": value, "gatewayRateLimits": value}
    assert SessionLimits.parse(json.dumps(reply).encode()) == SessionLimits(announced=True)
    [message] = caplog.messages
    assert all(f"{name}=" in message for name in reply)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
NUMBER = st.integers(-(2**70), 2**70) | st.integers(0, 100) | st.just(10**30)
WINDOWS = st.lists(st.builds("{}:{}".format, NUMBER, NUMBER) | st.text(max_size=5), max_size=3).map(",".join)
LIMITS = JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(LIMIT_NAMES, JSON | WINDOWS))
REPLIES = st.fixed_dictionaries(
    {}, optional={"maxPayloadSize": JSON | NUMBER, "rateLimits": LIMITS, "gatewayRateLimits": LIMITS, "maxInflightMessages": JSON}
)


@given(REPLIES, st.integers(1, 100))
def test_the_client_can_send_after_any_response_of_the_server(reply, percentage):
    limits = SessionLimits.parse(json.dumps(reply).encode())
    client = GatewayClient({"host": "127.0.0.1", "rate_limit_percentage": percentage})
    engine_of(client).apply_limits(limits)
    json.dumps(client.health())
    for device in (None, DeviceIdentity("m", "default")):
        payload_limits = engine_of(client).admission.payload_limits(of_sub_devices=device is not None)
        packed = pack_timeseries(
            [EncodedUplink.timeseries({"a": 1}, 1, device)],
            gateway=device is not None,
            max_size=payload_limits.max_payload_size,
            max_datapoints=payload_limits.max_datapoints,
            max_devices=payload_limits.max_devices,
        )
        assert (len(packed.payloads), packed.oversized) == (1, [])
    for limiter in (engine_of(client).rate_limiter, engine_of(client).gateway_rate_limiter):
        for limit in limiter.values():
            assert limit.buckets.take(1, time.monotonic_ns()) is None or limit.has_limit()


def test_contract_9_what_was_spent_stays_spent():
    """Token buckets of the platform survive a reconnect (docs/platform_contract.md, section 5)."""
    clock = Clock()
    limits = limiter(clock, messages="10:1")
    limits.message_rate_limit.spend(10)
    apply_rate_limits(limits, {"messages": "10:1", "telemetryDataPoints": "5:1"}, 100)
    assert limits.message_rate_limit.buckets.tokens(0) == [0.0]
    assert limits.telemetry_datapoints_rate_limit.minimal_limit == 5


async def test_defect_32_and_36_contract_9_tokens_are_taken_once_from_the_right_limits():
    """docs/platform_contract.md, facts 3 and 4: data takes message and datapoint tokens, for a gateway by device entry."""
    clock = Clock()
    device, gateway = limiter(clock, "5:1", "5:1", "50:1"), limiter(clock, "7:1", "7:1", "70:1")
    admission = Admission(device, gateway, BackpressureController(), clock)

    def tokens(of):
        return [limit.buckets.tokens(0)[0] for limit in of.values()]

    def take(topic, datapoints=0, devices=1, superseded=0):
        item = WorkItem(MqttPublishMessage(topic, b""), [], datapoints)
        item.devices, item.superseded = devices, superseded
        return admission.try_take(item)

    assert take("v1/devices/me/telemetry", 10) == 0.0
    assert take("v1/devices/me/attributes", 5) == 0.0
    assert tokens(device) == [5.0, 3.0, 35.0]
    assert take("v1/devices/me/rpc/response/1") == 0.0
    assert tokens(device) == [4.0, 3.0, 35.0]
    assert take("v1/gateway/telemetry", 30, devices=3, superseded=5) == 0.0
    assert take("v1/gateway/connect") == 0.0
    assert tokens(gateway) == [5.0, 4.0, 45.0]
    assert tokens(device) == [4.0, 3.0, 35.0]
    # 45 of 70 tokens are left, and 70 come back per second: the missing 10 take a seventh of a second. No token is taken yet.
    assert take("v1/gateway/telemetry", 55) == pytest.approx(10 / 70)
    assert tokens(gateway) == [5.0, 4.0, 45.0]
    clock.now = round(1e9 / 7) + 1
    assert take("v1/gateway/telemetry", 55) == 0.0
    # A message that needs more tokens than the window has takes all of them.
    clock.now = 10**10
    assert take("v1/gateway/telemetry", 700) == 0.0


async def test_new_limits_end_a_wait_for_the_old_ones():
    admission = Admission(limiter(Clock()), limiter(Clock()), BackpressureController(), Clock())
    waiting = asyncio.ensure_future(admission.wait(3600))
    await asyncio.sleep(0)
    admission.limits_changed()
    await waiting
