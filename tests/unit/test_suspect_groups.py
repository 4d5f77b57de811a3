"""Groups of suspect messages are halved until the message is found for which the server ends the connection."""

import asyncio
import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.service.delivery.suspects import STRIKES, Suspects, is_suspicious
from tb_mqtt_client.service.delivery.transport import SessionEnd
from tb_mqtt_client.service.delivery.work_item import WorkItem

CLOSED = SessionEnd("closed by the server", by_server=True)
SHUTTING_DOWN = SessionEnd("DISCONNECT", 0x8B, by_server=True)


class Sends:
    """Messages with sends, which are numbers, and a function that halves a message."""

    def __init__(self, now=0.0):
        self.now = now
        self.carried = {}
        self.others = itertools.count()
        """The number of other acknowledged messages with datapoints; it grows, unless a test changes that."""
        self.suspects = Suspects(self.halve, lambda: next(self.others), lambda: self.now)

    def item(self, sends):
        item = WorkItem(MqttPublishMessage("v1/devices/me/telemetry", b"{}"), [])
        self.carried[item] = list(sends)
        return item

    def halve(self, item, tears_sends):
        self.tears_sends = tears_sends
        sends = self.carried[item]
        middle = len(sends) // 2
        return [self.item(sends[:middle]), self.item(sends[middle:])] if len(sends) > 1 else []

    async def next_group(self):
        """Return the next group for a trial, and move the clock to its time."""
        waiting = asyncio.ensure_future(self.suspects.wait_due())
        for _ in range(3):
            await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
            self.now = min(group.not_before for group in self.suspects.groups)
            return await self.suspects.wait_due()
        return waiting.result()


async def isolate(sends, poison, end, *, worked=lambda: True, rounds=2000):
    """Publish groups until no suspect is left. Return acknowledged and rejected sends, and the number of ended sessions."""
    suspects, acknowledged, rejected, ends = sends.suspects, [], [], 0
    for _ in range(rounds):
        if suspects.is_empty():
            break
        group = await sends.next_group()
        assert suspects.begin(group, worked=worked())
        bad = [item for item in group.items if poison & set(sends.carried[item])]
        if bad:
            # The server handles sends in order, and acknowledges those before the bad one.
            for item in group.items[: group.items.index(bad[0])]:
                acknowledged += sends.carried[item]
                suspects.settled(item)
            ends += 1
            for item in suspects.failed(end):
                rejected += sends.carried[item]
        else:
            for item in list(group.items):
                acknowledged += sends.carried[item]
                suspects.settled(item)
            suspects.end()
    return acknowledged, rejected, ends


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    picks=st.sets(st.integers(0, 10**6), max_size=3),
    end=st.sampled_from([CLOSED, SHUTTING_DOWN]),
)
async def test_only_the_bad_sends_are_rejected(sizes, picks, end):
    sends = Sends()
    total = sum(sizes)
    poison = {pick % total for pick in picks}
    numbers = iter(range(total))
    sends.suspects.add([sends.item([next(numbers) for _ in range(size)]) for size in sizes])
    acknowledged, rejected, _ = await isolate(sends, poison, end)
    assert sends.suspects.is_empty()
    assert set(rejected) == poison
    assert sorted(acknowledged) == sorted(set(range(total)) - poison)


async def test_few_connections_end_for_one_bad_send_among_fifty():
    sends = Sends()
    sends.suspects.add([sends.item(range(51))])
    acknowledged, rejected, ends = await isolate(sends, {17}, CLOSED)
    assert (len(acknowledged), rejected) == (50, [17])
    assert ends <= 6 + STRIKES
    assert sends.now >= 60.0


@pytest.mark.parametrize("end", [CLOSED, SHUTTING_DOWN])
async def test_a_server_that_ends_every_connection_rejects_nothing(end):
    """For days, no session acknowledges a message."""
    sends = Sends()
    sends.suspects.add([sends.item([number]) for number in range(10)])
    _, rejected, ends = await isolate(sends, set(range(10)), end, worked=lambda: False, rounds=3000)
    assert (rejected, ends) == ([], 3000)
    assert sorted(number for item in sends.suspects.all() for number in sends.carried[item]) == list(range(10))
    # The trials of a message are then five minutes apart.
    assert sends.now > 3000 / 10 * 200


async def test_data_is_rejected_only_if_other_data_was_acknowledged_meanwhile():
    """For days, the server accepts announcements and requests, but cannot store data."""
    sends = Sends()
    sends.others = itertools.repeat(7)
    sends.suspects.add([sends.item([number]) for number in range(10)])
    _, rejected, ends = await isolate(sends, set(range(10)), CLOSED, rounds=3000)
    assert (rejected, ends) == ([], 3000)
    assert sends.now > 3000 / 10 * 200
    # The server accepts data again, apart from one message.
    sends.others = itertools.repeat(8)
    acknowledged, rejected, _ = await isolate(sends, {3}, CLOSED)
    assert (sorted(acknowledged), rejected) == ([0, 1, 2, 4, 5, 6, 7, 8, 9], [3])


async def test_a_message_without_datapoints_is_rejected_alone():
    sends = Sends()
    sends.others = itertools.repeat(0)
    item = WorkItem(MqttPublishMessage("v1/devices/me/claim", b"{}"), [])
    sends.carried[item] = [1]
    sends.suspects.add([item])
    assert (await isolate(sends, {1}, CLOSED))[1] == [1]


async def test_strikes_are_spread_over_a_minute():
    sends = Sends()
    sends.suspects.add([sends.item([1])])
    times = []
    for _ in range(STRIKES):
        group = await sends.next_group()
        times.append(sends.now)
        assert sends.suspects.begin(group, worked=True)
        rejected = sends.suspects.failed(CLOSED)
    assert times == [0.0, 30.0, 60.0]
    assert len(rejected) == 1


@pytest.mark.parametrize("code", [0x81, 0x82, 0x90, 0x95, 0x99])
async def test_a_reason_that_names_the_message_needs_no_second_strike(code):
    sends = Sends()
    sends.suspects.add([sends.item([1])])
    assert sends.suspects.begin(await sends.next_group(), worked=False)
    assert len(sends.suspects.failed(SessionEnd("DISCONNECT", code, by_server=True))) == 1


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (CLOSED, True),
        (SHUTTING_DOWN, True),
        (SessionEnd("no PUBACK", error=TimeoutError()), True),
        (SessionEnd("closed by this client"), False),
        (SessionEnd("taken over", 0x8E, by_server=True), False),
        (SessionEnd("busy", 0x89, by_server=True), False),
        (SessionEnd("no route", error=OSError(113, "No route to host")), False),
    ],
)
def test_only_some_ends_may_be_caused_by_a_message(end, expected):
    assert is_suspicious(end) is expected


@pytest.mark.parametrize("tells_reasons", [True, False])
async def test_a_send_is_split_only_if_the_server_cannot_give_a_reason(tells_reasons):
    """Its datapoints may exceed a limit, which would not justify a rejection."""
    sends = Sends()
    sends.suspects.add([sends.item([1])])
    assert sends.suspects.begin(await sends.next_group(), worked=True)
    assert sends.suspects.failed(SessionEnd("closed", by_server=True, tells_reasons=tells_reasons)) == []
    assert sends.tears_sends is not tells_reasons


async def test_a_trial_that_ends_for_another_reason_begins_again():
    sends = Sends()
    sends.suspects.add([sends.item([1]), sends.item([2])])
    group = await sends.next_group()
    assert sends.suspects.begin(group, worked=True)
    assert sends.suspects.failed(SessionEnd("closed by this client")) == []
    assert await sends.next_group() is group
    assert (group.failures, len(group.items)) == (0, 2)


async def test_a_suspect_can_be_removed_but_not_during_its_trial():
    sends = Sends()
    first, second = sends.item([1]), sends.item([2])
    sends.suspects.add([first, second])
    assert sends.suspects.remove_first(first.__eq__) is first
    assert sends.suspects.begin(await sends.next_group(), worked=True)
    assert sends.suspects.remove_first(second.__eq__) is None
    sends.suspects.end()
    assert sends.suspects.clear() == [second]
    assert sends.suspects.is_empty()


def fails(sends, item):
    """Let the platform fail once more; return whether the message is to blame for it."""
    sends.suspects.count_failure(item)
    return sends.suspects.is_to_blame(item)


def test_a_message_is_to_blame_for_a_failure_if_others_are_taken_for_a_minute():
    sends = Sends()
    item = sends.item([1])
    blamed = []
    for _ in range(5):
        blamed.append((fails(sends, item), item.strikes))
        sends.now += 25
    assert blamed == [(False, 0), (False, 1), (False, 2), (True, 3), (True, 4)]


def test_a_message_is_not_to_blame_in_less_than_a_minute():
    sends = Sends()
    item = sends.item([1])
    for _ in range(10):
        assert not fails(sends, item)
        sends.now += 6
    assert fails(sends, item)


def test_no_message_is_to_blame_while_the_server_takes_no_other():
    sends = Sends()
    sends.others = itertools.repeat(7)
    item = sends.item([1])
    for _ in range(100):
        assert not fails(sends, item)
        sends.now += 60
    assert item.strikes == 0
