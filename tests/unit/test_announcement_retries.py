"""The delays until a refused device is announced again, and the end of these attempts."""

import asyncio

import pytest

from tb_mqtt_client import GatewayConfig
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.constants.reason_codes import ReasonCode
from tb_mqtt_client.entities.gateway.device_info import DeviceInfo
from tb_mqtt_client.service.gateway.announcement_retries import FINAL_REFUSALS, AnnouncementRetries
from tb_mqtt_client.service.gateway.device_session import DeviceSession


def refusal(code=0x80):
    return PublishResult("v1/gateway/connect", 1, 1, 1, code)


def retries_of(**options):
    return AnnouncementRetries(GatewayConfig(options), lambda _: None, lambda: False), DeviceSession(DeviceInfo("D1", "p"))


async def test_delays_grow_up_to_the_longest():
    retries, session = retries_of(announce_delay_min=1, announce_delay_max=300)
    delays = [retries.refused(session, refusal()) for _ in range(2000)]
    bounds = [min(300, 2.0 ** min(attempt, 9)) for attempt in range(2000)]
    assert all(bound / 2 <= delay <= bound for delay, bound in zip(delays, bounds, strict=True))
    assert delays[:9] == sorted(delays[:9])
    # The delays are random, so that devices refused together are not announced together.
    assert len({round(delay, 6) for delay in delays[9:]}) > 1900
    retries.pause()


async def test_delays_start_again_after_an_accepted_announcement():
    retries, session = retries_of()
    for _ in range(20):
        retries.refused(session, refusal())
    assert retries.forget(session).attempts == 20
    assert retries.refused(session, refusal()) <= 1
    assert retries.get(session).attempts == 1
    retries.pause()


async def test_a_pause_keeps_the_number_of_refusals():
    retries, session = retries_of()
    for _ in range(9):
        retries.refused(session, refusal())
    retries.pause()
    assert retries.refused(session, refusal()) > 128
    retries.pause()


async def test_a_device_that_may_end_connections_is_announced_later_on_the_next_connection():
    retries, session = retries_of(announce_delay_min=1)
    assert not retries.postpone(session)
    retries.refused(session, refusal())
    assert not retries.postpone(session)
    retries.pause()
    for attempt in range(9):
        delay = retries.refused(session, refusal(), ends_connections=True)
        # The connection has ended.
        assert session not in retries.due
        assert retries.postpone(session)
        assert session in retries.due
        assert delay >= 2.0 ** (attempt - 1)
        retries.pause()
    assert retries.forget(session).ends_connections
    assert not retries.postpone(session)


async def test_devices_that_may_end_connections_are_announced_last_and_one_at_a_time():
    open_announcements, arrived = [], asyncio.Event()

    def announce(session):
        open_announcements.append(session)
        arrived.set()

    config = GatewayConfig({"announce_delay_min": 0.001, "announce_attempts": 2})
    retries = AnnouncementRetries(config, announce, lambda: bool(open_announcements))
    sessions = [DeviceSession(DeviceInfo(f"D{number}", "p")) for number in range(4)]
    for session in sessions:
        # The announcements were in flight together, so this does not count for any of the devices.
        assert retries.refused(session, refusal(), ends_connections=True) is not None
        assert retries.postpone(session)
    open_announcements.append("another device")
    while len(retries.waiting) < len(sessions):  # noqa: ASYNC110  # they become due one after the other
        await asyncio.sleep(0.001)
    assert not arrived.is_set()
    done = []
    for _ in sessions:
        open_announcements.clear()
        retries.announcement_done()
        done += open_announcements
        assert len(open_announcements) == 1
    assert set(done) == set(sessions)
    assert retries.refused(sessions[0], refusal(), ends_connections=True) is not None
    assert retries.refused(sessions[0], refusal(), ends_connections=True) is None


async def test_a_device_with_an_earlier_due_time_is_announced_first():
    due: asyncio.Queue = asyncio.Queue()
    retries = AnnouncementRetries(
        GatewayConfig({"announce_delay_min": 0.01, "announce_delay_max": 0.01}), due.put_nowait, lambda: False
    )
    bad, good = (DeviceSession(DeviceInfo(name, "p")) for name in ("bad", "good"))
    for session in (bad, good):
        retries.refused(session, refusal(), ends_connections=True)
    await asyncio.sleep(0.02)
    retries.refused(bad, refusal(), ends_connections=True)
    for session in (bad, good):
        retries.postpone(session)
    assert await due.get() is good
    retries.pause()


async def test_the_order_starts_again_after_the_end_of_a_connection():
    retries = AnnouncementRetries(GatewayConfig({"announce_delay_min": 0.001}), lambda _: None, lambda: True)
    session = DeviceSession(DeviceInfo("D1", "p"))
    retries.refused(session, refusal(), ends_connections=True)
    retries.postpone(session)
    while not retries.waiting:  # noqa: ASYNC110  # until it is due
        await asyncio.sleep(0.001)
    retries.pause()
    assert (len(retries.waiting), retries.postpone(session)) == (0, True)
    retries.pause()


async def test_a_device_that_may_end_connections_waits_although_its_time_has_passed():
    due = asyncio.Event()
    retries = AnnouncementRetries(GatewayConfig({"announce_delay_min": 0.01}), lambda _: due.set(), lambda: False)
    session = DeviceSession(DeviceInfo("D1", "p"))
    retries.refused(session, refusal(), ends_connections=True)
    await asyncio.sleep(0.02)
    assert retries.postpone(session)
    await asyncio.sleep(0)
    assert not due.is_set()
    await due.wait()


@pytest.mark.parametrize("longest", [0.5, 1, 10])
async def test_a_longest_delay_below_the_first_is_replaced_by_the_first(longest):
    retries, session = retries_of(announce_delay_min=1, announce_delay_max=longest)
    assert 0.5 <= retries.refused(session, refusal()) <= 1
    retries.pause()


async def test_a_device_is_not_announced_again_after_the_last_attempt():
    retries, session = retries_of(announce_attempts=3)
    assert [retries.refused(session, refusal()) is None for _ in range(3)] == [False, False, True]
    retries.pause()


async def test_the_last_attempt_comes_at_the_end_of_the_timeout():
    retries, session = retries_of(announce_timeout=0.7, announce_delay_min=100)
    assert 0 < retries.refused(session, refusal()) <= 0.7
    retries.pause()


@pytest.mark.parametrize(
    ("option", "value"),
    [("announce_attempts", 0), ("announce_timeout", 0), ("announce_delay_min", -1), ("announce_delay_max", "soon")],
)
def test_an_invalid_bound_raises_and_names_the_option(option, value):
    with pytest.raises(ValueError, match=option):
        GatewayConfig({option: value})


def test_refusals_for_outages_and_quotas_are_not_final():
    for code in (ReasonCode.UNSPECIFIED_ERROR, ReasonCode.QUOTA_EXCEEDED, ReasonCode.SERVER_BUSY):
        assert code not in FINAL_REFUSALS
