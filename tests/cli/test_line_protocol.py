"""InfluxDB's line protocol: what becomes a key, a value and a time, and which lines are bad."""

import pytest

from tb_mqtt_client.cli.line_protocol import from_line_protocol
from tb_mqtt_client.cli.records import BadLine, Fields, Record
from tb_mqtt_client.cli.times import Unit


def parse(line, **fields):
    [item] = from_line_protocol([(1, line if isinstance(line, bytes) else line.encode())], Fields(**fields))
    return item


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("cpu usage=3", {"cpu.usage": 3.0}),
        ("cpu usage=3i,idle=-97i,ticks=5u", {"cpu.usage": 3, "cpu.idle": -97, "cpu.ticks": 5}),
        ("cpu a=t,b=False,c=1e3", {"cpu.a": True, "cpu.b": False, "cpu.c": 1000.0}),
        ("cpu,host=b,core=0 usage=3", {"cpu.0.b.usage": 3.0}),
        (r"my\ room,floor=ground\ floor air\ temp=21.5", {"my room.ground floor.air temp": 21.5}),
        (r'log text="a \"b\", c=d \\ e"', {"log.text": r'a "b", c=d \ e'}),
        ('log text=""', {"log.text": ""}),
    ],
)
def test_values(line, values):
    assert parse(line) == Record(1, None, None, values)
    assert [type(value) for value in parse(line).values.values()] == [type(value) for value in values.values()]


@pytest.mark.parametrize(
    ("time", "unit", "ts"),
    [
        ("1700000000123456789", None, 1700000000123),
        ("1700000000123456", Unit.MICROSECONDS, 1700000000123),
        ("1700000000123", Unit.MILLISECONDS, 1700000000123),
        ("1700000000", Unit.SECONDS, 1700000000000),
    ],
)
def test_times(time, unit, ts):
    assert parse(f"cpu usage=3 {time}", ts_unit=unit).ts == ts


def test_tag_of_the_sub_device_is_not_a_part_of_the_key():
    assert parse(r"room,device=boiler\ 1,floor=2 t=1", device="device") == Record(1, "boiler 1", None, {"room.2.t": 1.0})


def test_comments_and_blank_lines_are_skipped():
    assert list(from_line_protocol([(1, b"# comment\n"), (2, b"\n"), (3, b"  \n")], Fields())) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("cpu", "it has 1 parts"),
        ("cpu usage=3 1 2", "it has 4 parts"),
        ("cpu usage", "is not NAME=VALUE"),
        ("cpu =3", "is not NAME=VALUE"),
        ("cpu,host usage=3", "is not NAME=VALUE"),
        ("cpu usage=three", "not a number, a boolean or a quoted text"),
        ('cpu usage="three', "no closing quote"),
        ("cpu usage=3 --5", "is not a time"),
        ("cpu usage=3 soon", "is not a time"),
        (b"cpu usage=\xff", "not UTF-8"),
    ],
)
def test_bad_lines(line, reason):
    bad = parse(line)
    assert isinstance(bad, BadLine)
    assert reason in bad.reason


def test_missing_device_and_time_of_attributes_are_bad():
    assert "the tag 'device'" in parse("room t=1", device="device").reason
    assert "attributes have no time" in parse("room t=1 1700000000000000000", timeless=True).reason
