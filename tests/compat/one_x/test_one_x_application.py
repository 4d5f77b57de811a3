"""What the IoT Gateway sees of this package: lost connections, packs that it sends again, and data that is refused."""

import asyncio
import itertools
import time

import pytest
from one_x_platform import FAST, SECONDS, Calls

from tb_gateway_mqtt import TBGatewayMqttClient
from tb_mqtt_client.emulator import ConnectVerdict, RateLimits, SessionLimits, Verdict
from tb_mqtt_client.entities.connection_event import ConnectionLost
from tb_mqtt_client.one_x import application, connection


class Application:
    """Takes the callbacks of the client as the IoT Gateway does, and sends packs as it does."""

    def __init__(self, platform):
        self.client = TBGatewayMqttClient(platform.host, platform.port, "GATEWAY", None, self, quality_of_service=1)
        self.connects, self.disconnects = Calls(), Calls()
        paho = self.client._client
        connect, disconnect = paho._on_connect, paho._on_disconnect
        paho._on_connect = lambda *arguments: (connect(*arguments), self.connects(*arguments))
        paho._on_disconnect = lambda *arguments: (disconnect(*arguments), self.disconnects(*arguments))
        self.client.connect(**FAST)

    def send_pack(self, pack):
        return [self.client.gw_send_telemetry(device, records) for device, records in pack.items()]


@pytest.fixture
def app(platform_thread):
    app = Application(platform_thread)
    yield app
    app.client.disconnect()


def pack(first, count=10):
    """Return records of three devices."""
    return {
        f"meter {number}": [{"ts": ts, "values": {"a": ts, "b": number}} for ts in range(first, first + count)]
        for number in range(3)
    }


def expected(first, count=10):
    return {
        name: sorted((record["ts"], key, value) for record in records for key, value in record["values"].items())
        for name, records in pack(first, count).items()
    }


def stored(platform, names=("meter 0", "meter 1", "meter 2")):
    return {name: sorted(platform.stored(name)) for name in names}


def cut_the_connection(platform):
    platform.run(platform.emulator.disconnect_device("GATEWAY"))


async def end_the_hole(emulator):
    """Cut the connection, before another message is acknowledged on it."""
    emulator.on_publish = None
    await emulator.disconnect_device("GATEWAY")


def test_a_connection_that_comes_back_is_not_reported(platform_thread, app):
    cut_the_connection(platform_thread)
    assert app.client.gw_send_telemetry("meter", {"ts": 1, "values": {"a": 1}}).get() == 0
    assert app.client.is_connected()
    assert (len(app.connects.all), app.disconnects.all) == (1, [])


def test_a_connection_that_stays_away_is_reported_once(platform_thread, app, monkeypatch):
    monkeypatch.setattr(application, "GRACE", 0.01)
    platform_thread.run(platform_thread.emulator.stop())
    _, _, flags, reason, _ = app.disconnects.wait(1)
    assert (flags.is_disconnect_packet_from_server, reason.value) == (False, 0x80)
    assert not app.client.is_connected()
    app.client.disconnect()
    assert len(app.disconnects.all) == 1


def test_the_end_of_an_earlier_grace_reports_nothing(platform_thread, app, monkeypatch):
    taken, take_session = Calls(), app.client._take_session
    monkeypatch.setattr(app.client, "_take_session", lambda event: (take_session(event), taken(event)))
    cut_the_connection(platform_thread)
    # The thread for callbacks knows of the next session later than the client has it.
    taken.wait(1)
    # As if the 30 s of the first loss ended while the client is connected again.
    app.client._end_grace(1, ConnectionLost("closed", None))
    assert app.client.is_connected()


def test_a_refusal_for_wrong_credentials_is_reported_at_once(platform_thread, app):
    platform_thread.emulator.on_connect = lambda _: ConnectVerdict.refuse(0x86)
    cut_the_connection(platform_thread)
    app.disconnects.wait(1)
    *_, reason, _ = app.connects.wait(2)[1]
    assert reason.value == 0x86
    assert not app.client.is_connected()


def test_a_pack_that_is_sent_again_while_it_is_on_its_way_arrives_once(platform_thread, app):
    platform_thread.emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic == "v1/gateway/telemetry" else None
    app.send_pack(pack(1))
    again = app.send_pack(pack(1))
    # A pack may also have more than the last one.
    more = app.send_pack(pack(1, 12))
    assert [info.is_settled() for info in again] == [False] * 3
    platform_thread.run(end_the_hole(platform_thread.emulator))
    assert [info.get() for info in [*again, *more]] == [0] * 6
    assert stored(platform_thread) == expected(1, 12)


def test_a_pack_whose_results_were_not_read_arrives_once(platform_thread, app):
    for info in app.send_pack(pack(1)):
        for message in info.message_info:
            message.wait_for_publish(SECONDS)
    assert [info.get() for info in app.send_pack(pack(1))] == [0] * 3
    assert stored(platform_thread) == expected(1)
    # What the application knows to be delivered is sent again: it may have a reason.
    assert [info.get() for info in app.send_pack(pack(1))] == [0] * 3
    assert {name: len(points) for name, points in stored(platform_thread).items()} == dict.fromkeys(expected(1), 40)


def test_a_pack_of_which_only_a_part_is_done_arrives_once(platform_thread, app):
    assert [app.client.gw_connect_device(name).get() for name in pack(1)] == [0] * 3
    ignored = Calls(Verdict.ignore())
    platform_thread.emulator.on_publish = lambda publish: ignored(publish) if b"meter 1" in publish.payload else None
    app.client.gw_send_telemetry("meter 1", pack(1)["meter 1"])
    # The others are not in the same message.
    ignored.wait(1)
    done = {name: app.client.gw_send_telemetry(name, pack(1)[name]) for name in ("meter 0", "meter 2")}
    for info in done.values():
        for message in info.message_info:
            message.wait_for_publish(1)
    assert [info.get() for info in done.values()] == [0, 0]
    again = app.send_pack(pack(1))
    platform_thread.run(end_the_hole(platform_thread.emulator))
    while any(info.get() for info in again):
        pass
    assert stored(platform_thread) == expected(1)


@pytest.mark.parametrize(("settled", "code"), [(itertools.count(), 0), (itertools.repeat(5), -1)], ids=["progress", "none"])
def test_get_waits_longer_only_while_the_platform_acknowledges(platform_thread, app, monkeypatch, settled, code):
    """Without progress, the application must be able to end soon."""
    connection = app.client._connection
    monkeypatch.setattr(connection, "get_timeout", 0.01)
    monkeypatch.setattr(connection, "more_with_progress", SECONDS)
    monkeypatch.setattr(connection, "_settled", lambda: next(settled))

    def delay(publish):
        if publish.topic != "v1/gateway/telemetry":
            return None
        return Verdict.delay(0.5) if code == 0 else Verdict.ignore()

    platform_thread.emulator.on_publish = delay
    assert app.client.gw_send_telemetry("meter", {"ts": 1, "values": {"a": 1}}).get() == code


def test_telemetry_arrives_once_if_only_the_attributes_of_its_pack_are_late(platform_thread, app, monkeypatch):
    """The application reads all results, those of attributes last, and sends the whole pack again."""
    monkeypatch.setattr(app.client._connection, "get_timeout", 0.01)
    withheld = []

    def withhold(publish):
        if publish.topic != "v1/gateway/attributes":
            return None
        withheld.append(publish)
        return Verdict.ignore()

    platform_thread.emulator.on_publish = withhold
    telemetry, attributes = app.send_pack(pack(1)), app.client.gw_send_attributes("meter 1", {"serial": 5})
    for one in (one for info in telemetry for one in info.message_info):
        one.wait_for_publish(SECONDS)
    assert [info.get() for info in telemetry] == [0] * 3
    assert attributes.get() == -1
    again, attributes = app.send_pack(pack(1)), app.client.gw_send_attributes("meter 1", {"serial": 5})
    platform_thread.run(end_the_hole(platform_thread.emulator))
    for one in attributes.message_info:
        one.wait_for_publish(SECONDS)
    assert [info.get() for info in [*again, attributes]] == [0] * 4
    assert stored(platform_thread) == expected(1)
    assert withheld
    assert platform_thread.emulator.device("meter 1").attributes == {"serial": 5}
    # The application is done with the pack: nothing is kept of it.
    assert not app.client._application._sent


def test_attributes_that_are_sent_again_while_they_are_in_flight_are_one_message(platform_thread, app):
    """Otherwise each attempt of the application would delay the result that it waits for."""
    received = []

    def late(publish):
        if publish.topic.endswith("gateway/attributes"):
            received.append(publish.json())
            return Verdict.delay(0.3)
        return None

    platform_thread.emulator.on_publish = late
    first = app.client.gw_send_attributes("meter", {"a": 1})
    while not received:
        app.client._connection.runtime.run(lambda: asyncio.sleep(0.01))
    again = app.client.gw_send_attributes("meter", {"a": 1})
    other = app.client.gw_send_attributes("meter", {"a": True})
    back = app.client.gw_send_attributes("meter", {"a": 1})
    assert [info.get() for info in (first, again, other, back)] == [0] * 4
    assert app.client.gw_send_attributes("meter", {"a": 1}).get() == 0
    assert received[0] == {"meter": {"a": 1}}
    # The values between, and the same ones that are sent after the acknowledgement, are sent.
    assert received[-1] == {"meter": {"a": 1}}
    assert 3 <= len(received) <= 4
    assert platform_thread.emulator.device("meter").attributes == {"a": 1}


def test_telemetry_arrives_once_if_the_attributes_of_its_pack_are_acknowledged_after_get(platform_thread, app, monkeypatch):
    """The application reads the attributes as late, and the telemetry as done: it sends both again."""
    monkeypatch.setattr(connection, "MOMENT", 0.01)
    app.client._connection.get_timeout = app.client._connection.more_with_progress = 0.01
    platform_thread.emulator.on_publish = lambda publish: Verdict.delay(0.2) if publish.topic.endswith("/attributes") else None
    attributes = app.client.gw_send_attributes("meter 0", {"serial": 1})
    assert attributes.get() != 0
    while not attributes.is_settled():
        app.client._connection.runtime.run(lambda: asyncio.sleep(0.01))
    for _ in range(2):
        infos = app.send_pack(pack(1))
        while not all(info.is_settled() for info in infos):
            app.client._connection.runtime.run(lambda: asyncio.sleep(0.01))
        assert [info.get() for info in infos] == [0] * 3
    assert app.client.gw_send_attributes("meter 0", {"serial": 1}).get() == 0
    assert stored(platform_thread) == expected(1)
    assert not app.client._application._sent


TIGHT = SessionLimits(gateway_rate_limits=RateLimits(messages="100:1", telemetry_messages="5:1"))


@pytest.mark.parametrize("platform_thread", [{"limits": TIGHT}], indirect=True)
def test_a_pack_is_done_although_its_results_come_later_than_get_waits(platform_thread, app, monkeypatch):
    """The application sends it again each time, and the limits allow fewer messages than it makes attempts."""
    app.client._connection.get_timeout = app.client._connection.more_with_progress = 0.01
    monkeypatch.setattr(connection, "MOMENT", 0.01)
    received = []
    platform_thread.emulator.on_publish = lambda publish: received.append(publish.topic)
    end, codes = time.monotonic() + SECONDS, [4]
    while any(codes) and time.monotonic() < end:
        infos = [app.client.gw_send_attributes(f"meter {number}", {"serial": number}) for number in range(3)]
        infos += app.send_pack(pack(1))
        codes = [info.get() for info in infos]
    assert codes == [0] * 6
    assert received.count("v1/gateway/attributes") <= 3
    assert stored(platform_thread) == expected(1)


def test_another_value_of_the_same_time_and_key_is_sent(platform_thread, app):
    values = [1, True, 1.0, "1", 1]
    for value in values:
        # Its result is not read: the platform has the value, and the application does not know it.
        [message] = app.client.gw_send_telemetry("meter", {"ts": 1, "values": {"a": value}}).message_info
        message.wait_for_publish(SECONDS)
    assert platform_thread.values("meter") == [("a", value) for value in values]


def test_data_without_a_time_is_always_sent(platform_thread, app):
    infos = [app.client.gw_send_telemetry("meter", {"a": 1}) for _ in range(2)]
    infos += [app.client.send_telemetry([{"ts": 1, "values": {"own": 1}}]) for _ in range(2)]
    assert [info.get() for info in infos] == [0] * 4
    assert platform_thread.values("meter") == [("a", 1)] * 2
    assert platform_thread.values("gateway") == [("own", 1)]


def test_refused_data_is_reported_once_and_leaves_the_storage(platform_thread, app, caplog):
    platform_thread.emulator.on_publish = lambda publish: Verdict.refuse(0x99) if b'"bad"' in publish.payload else None
    for ts in range(3):
        records = [{"ts": ts, "values": {"bad": 1}}]
        assert app.client.gw_send_telemetry("meter", records).get() == 0
        assert app.client.gw_send_telemetry("meter", [{"ts": ts, "values": {"": 1, "good": 2}}]).get() == 0
        assert app.client.gw_send_attributes("meter", {"bad": 1}).get() == 0
    lines = [record.getMessage() for record in caplog.records if "never takes" in record.getMessage()]
    assert len(lines) == 2
    assert "meter" in lines[0]
    assert "'bad'" in lines[0]
    assert "meter" in lines[1]
    assert "''" in lines[1]
    assert app.client._application.refusals.datapoints == 9
    assert platform_thread.values("meter") == [("good", 2)] * 3


def test_sends_of_the_application_do_not_raise_for_data(platform_thread, app, caplog):
    """The application would skip the rest of its pack."""
    bad = {"bad": {1, 2}, "good": 1}
    infos = []
    for ts in range(2):
        infos += [app.client.gw_send_telemetry("meter", {"ts": ts, "values": bad}), app.client.gw_send_attributes("meter", bad)]
        infos += [app.client.send_telemetry({"ts": ts, "values": bad}), app.client.send_attributes(bad)]
        infos += [app.client.gw_send_telemetry(name, {"ts": ts, "values": {"a": 1}}) for name in ("", 5)]
    assert [info.get() for info in infos] == [0] * 12
    assert platform_thread.values("meter") == platform_thread.values("gateway") == [("good", 1)] * 2
    assert platform_thread.emulator.device("meter").attributes == {"good": 1}
    lines = [record.getMessage() for record in caplog.records if "never takes" in record.getMessage()]
    # Each device and key once.
    assert len(lines) == len(set(lines)) == 4
    assert sum("'bad': a value of type set cannot be written as JSON" in line for line in lines) == 2
    assert app.client._application.refusals.datapoints == 12


def test_the_loss_of_nothing_and_the_double_of_nothing_in_a_hole_with_a_reset(platform_thread, app):
    """Acknowledgements stop, the application sends its pack again and again, and the connection is cut at last."""
    app.client._connection.get_timeout = 0.05
    ignored = Calls()

    def swallow(publish):
        if publish.topic != "v1/gateway/telemetry":
            return None
        ignored(publish)
        return Verdict.ignore()

    results = []
    for first in range(0, 100, 10):
        if first == 50:
            platform_thread.emulator.on_publish = swallow
        tries = 0
        while any(results := [info.get() for info in app.send_pack(pack(first))]):
            tries += 1
            if tries == 3:
                platform_thread.run(end_the_hole(platform_thread.emulator))
        assert results == [0] * 3
    assert ignored.all
    assert stored(platform_thread) == expected(0, 100)
    assert app.disconnects.all == []
