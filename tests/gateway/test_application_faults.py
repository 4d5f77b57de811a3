"""The official IoT Gateway on this package while the network, the server or the application fails: nothing is lost or doubled.

The connector sends the same data in each case, and the datapoints that arrived are counted. `make gateway-test` sets GATEWAY_WHEEL.
"""

import json
import random
import sqlite3
import time
from collections import Counter

import pytest
from gateway_application import count, datapoints, doubled, has_everything

from faulty_link import FaultyLink
from tb_mqtt_client.emulator import RateLimits, SessionLimits, Verdict

TELEMETRY = "v1/gateway/telemetry"
UNDER_LOAD = {"rounds": 60}


@pytest.fixture
def loaded(platform_thread, start):
    """Return a function that starts the application, and waits until a part of its data has arrived."""

    def loaded(share=0.2, **options):
        application = start(**UNDER_LOAD | options)
        needed = share * application.load["devices"] * len(application.expected)
        application.wait_until(lambda: count(platform_thread, application) >= needed)
        return application

    return loaded


def assert_nothing_is_lost_or_doubled(platform, application, twice=0):
    application.wait_until(lambda: has_everything(platform, application))
    assert application.interrupt() == 0
    assert doubled(platform, application) == twice


def session_of(platform):
    return platform.emulator.device("GATEWAY").session


@pytest.mark.parametrize("way", ["reset", "closed"])
def test_the_connection_is_cut_under_load(platform_thread, loaded, way):
    application = loaded()
    order = random.Random(1)

    async def cut():
        session = session_of(platform_thread)
        if session is not None:
            session.abort() if way == "reset" else session.close()

    for _ in range(5):
        time.sleep(order.uniform(0.1, 0.5))
        platform_thread.run(cut())
    assert_nothing_is_lost_or_doubled(platform_thread, application)


@pytest.mark.parametrize("seconds", [5, 25])
def test_the_server_is_gone(platform_thread, loaded, seconds):
    application = loaded()
    platform_thread.run(platform_thread.emulator.stop())
    time.sleep(seconds)
    platform_thread.run(platform_thread.emulator.start())
    assert_nothing_is_lost_or_doubled(platform_thread, application)


@pytest.mark.parametrize("hole", [1, 15])
def test_nothing_passes_and_then_the_connection_is_reset(platform_thread, loaded, hole):
    """In the longer hole, the application gives up several times, and sends its pack again."""
    ignored = []

    def swallow(publish):
        if publish.topic != TELEMETRY:
            return None
        ignored.append(publish)
        return Verdict.ignore()

    application = loaded()
    platform_thread.emulator.on_publish = swallow
    application.wait_until(lambda: ignored)
    time.sleep(hole)

    async def cut():
        # No message may be stored whose acknowledgement is lost.
        platform_thread.emulator.on_publish = None
        session_of(platform_thread).abort()

    platform_thread.run(cut())
    assert_nothing_is_lost_or_doubled(platform_thread, application)


def test_nothing_passes_for_3_seconds(platform_thread, loaded):
    link = FaultyLink(platform_thread.host, platform_thread.port)
    platform_thread.run(link.__aenter__())
    try:
        application = loaded(link=link)

        async def pause(pauses):
            link.freeze() if pauses else link.thaw()

        platform_thread.run(pause(True))
        time.sleep(3)
        platform_thread.run(pause(False))
        assert_nothing_is_lost_or_doubled(platform_thread, application)
    finally:
        platform_thread.run(link.__aexit__())


def test_acknowledgements_are_late(platform_thread, loaded):
    """Each takes longer than the application waits, so that it sends its pack again."""
    application = loaded()
    delayed = Counter()

    def delay(publish):
        if publish.topic == TELEMETRY and delayed["messages"] < 3:
            delayed["messages"] += 1
            return Verdict.delay(7)
        return None

    platform_thread.emulator.on_publish = delay
    application.wait_until(lambda: delayed["messages"] == 3)
    assert_nothing_is_lost_or_doubled(platform_thread, application)


def test_messages_are_refused_for_a_quota(platform_thread, loaded):
    application = loaded()
    refused = Counter()

    def refuse(publish):
        if publish.topic == TELEMETRY and refused["messages"] < 3:
            refused["messages"] += 1
            return Verdict.refuse(0x97)
        return None

    platform_thread.emulator.on_publish = refuse
    assert_nothing_is_lost_or_doubled(platform_thread, application)
    assert refused["messages"] == 3


def test_refused_data_leaves_the_storage_and_is_reported_once(platform_thread, start):
    platform_thread.emulator.on_publish = lambda publish: (
        Verdict.refuse(0x99) if b'"load 7"' in publish.payload and b'"key' in publish.payload else None
    )
    application = start()
    others = [name for name in application.names if name != "load 7"]
    application.wait_until(lambda: has_everything(platform_thread, application, others))
    assert application.interrupt() == 0
    assert doubled(platform_thread, application) == 0
    lines = [line for line in logged(application) if "never takes data" in line]
    assert lines
    assert all("load 7" in line for line in lines)
    # Each key at most once.
    assert len(lines) <= application.load["keys"]


def logged(application):
    texts = [path.read_text() for path in (application.folder / "logs").glob("*.log*")]
    return [line for text in [*texts, application.output] for line in text.splitlines()]


LIMITED = {"devices": 20, "rounds": 10}
"""2,000 datapoints: a few seconds with the limits of the tests."""


def test_announced_limits_are_kept(platform_thread, start):
    platform_thread.emulator.limits = SessionLimits(
        gateway_rate_limits=RateLimits(messages="50:1", telemetry_messages="20:1", telemetry_datapoints="500:1")
    )
    application = start(**LIMITED)
    application.wait_until(lambda: has_everything(platform_thread, application))
    assert application.interrupt() == 0
    # A refusal would be the cause of data that arrives twice.
    assert (platform_thread.emulator.counters.refusals, doubled(platform_thread, application)) == (0, 0)


class Refusals:
    """Counts for each datapoint in how many refused messages it was."""

    def __init__(self, emulator):
        self.of_point = Counter()
        self._published = {}
        emulator.on_publish, emulator.on_send = self._publish, self._send

    def _publish(self, publish):
        if publish.topic == TELEMETRY:
            self._published[publish.packet_id] = publish

    def _send(self, sending):
        publish = self._published.pop(int.from_bytes(sending.packet[2:4]), None) if sending.kind == "PUBACK" else None
        # Without a reason code, the message was accepted.
        if publish is not None and sending.packet[4:5] >= b"\x80":
            for name, records in publish.json().items():
                for record in records:
                    self.of_point.update((name, record["ts"], key, value) for key, value in record["values"].items())


def test_limits_of_the_tenant_are_learned(platform_thread, start):
    """The platform stores the devices of a message up to the limit and refuses the message: only these devices arrive again."""
    platform_thread.emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_datapoints="500:1"))
    refusals = Refusals(platform_thread.emulator)
    application = start(**LIMITED)
    application.wait_until(lambda: has_everything(platform_thread, application))
    assert application.interrupt() == 0
    for name, points in datapoints(platform_thread, application).items():
        for point, times in Counter(points).items():
            assert times - 1 <= refusals.of_point[(name, *point)], (name, point)


@pytest.mark.parametrize("is_stored", [False, True])
def test_the_server_dies_with_a_message(platform_thread, loaded, is_stored):
    """Only a message that was stored without being acknowledged is stored twice: no client can know that."""
    last = []

    def die(publish):
        if publish.topic != TELEMETRY or last:
            return None
        last.append(publish.json())
        return Verdict.cut(store=is_stored)

    application = loaded()
    platform_thread.emulator.on_publish = die
    application.wait_until(lambda: last)
    platform_thread.run(platform_thread.emulator.stop())
    time.sleep(2)
    platform_thread.run(platform_thread.emulator.start())
    of_message = sum(len(record["values"]) for records in last[0].values() for record in records)
    assert_nothing_is_lost_or_doubled(platform_thread, application, twice=of_message if is_stored else 0)


def test_the_application_is_killed_with_sqlite(platform_thread, loaded):
    """What its storage has at that time is delivered by the next process; what had arrived may arrive twice."""
    application = loaded(storage="sqlite")
    application.kill()
    before = datapoints(platform_thread, application)
    kept = rows(application.folder / "data" / "data.db")
    assert kept
    application.load["rounds"] = 0
    application.start()
    application.wait_until(lambda: all(points <= set(platform_thread.stored(name)) for name, points in kept.items()))
    assert application.interrupt() == 0
    after = datapoints(platform_thread, application)
    for name, points in before.items():
        # Nothing arrives twice but what the storage still had.
        again = Counter(after[name]) - Counter(set(after[name]))
        assert set(again) <= set(points) & kept.get(name, set())


def rows(path):
    """Return the telemetry in the storage by device."""
    found = {}
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        for (message,) in database.execute("SELECT message FROM messages"):
            event = json.loads(message)
            points = {(one["ts"], key, value) for one in event.get("telemetry", []) for key, value in one["values"].items()}
            found.setdefault(event["deviceName"], set()).update(points)
    database.close()
    return found


def test_the_application_ends_while_the_server_is_silent(platform_thread, loaded):
    application = loaded()
    ignored = []
    platform_thread.emulator.on_publish = lambda publish: (ignored.append(publish), Verdict.ignore())[1]
    application.wait_until(lambda: ignored)
    assert application.interrupt() == 0


def test_the_application_ends_while_the_server_is_gone(platform_thread, loaded):
    application = loaded()
    platform_thread.run(platform_thread.emulator.stop())
    time.sleep(1)
    assert application.interrupt() == 0
