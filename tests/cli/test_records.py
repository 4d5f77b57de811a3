"""Every line of input becomes a record, or is reported with the reason why it is not one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client import Priority, TelemetryMetadata
from tb_mqtt_client.cli.details import Details
from tb_mqtt_client.cli.reading import numbered_lines
from tb_mqtt_client.cli.records import BadLine, Fields, Record, from_arguments, from_csv, from_ndjson, typed

PLAIN, WITH_DEVICE, ATTRIBUTES = Fields(), Fields("device"), Fields(timeless=True)


def numbered(data):
    chunks = iter([data, b""])
    return numbered_lines(lambda: next(chunks))


def ndjson(text, fields=PLAIN):
    return list(from_ndjson(numbered(text if isinstance(text, bytes) else text.encode()), fields))


def rows(text, fields=PLAIN, delimiter=","):
    return list(from_csv(numbered(text if isinstance(text, bytes) else text.encode()), fields, delimiter))


@pytest.mark.parametrize(
    ("line", "ts", "values"),
    [
        ('{"a":1,"b":"x"}', None, {"a": 1, "b": "x"}),
        ('{"ts":1700000000000,"values":{"a":1}}', 1700000000000, {"a": 1}),
        ('{"ts":1700000000000,"a":1}', 1700000000000, {"a": 1}),
        ('{"ts":"2026-01-31T12:00:00Z","a":1}', 1769860800000, {"a": 1}),
        ('{"ts":null,"a":null}', None, {"a": None}),
        ('{"values":{"a":1}}', None, {"a": 1}),
        ('{"values":{"a":1},"b":2}', None, {"values": {"a": 1}, "b": 2}),
        ('{"values":3}', None, {"values": 3}),
        ('\ufeff{"a":1}', None, {"a": 1}),
        ('{"a":1}\r', None, {"a": 1}),
    ],
)
def test_ndjson_record_is_parsed(line, ts, values):
    assert ndjson(line) == [Record(1, None, ts, values)]


def test_ndjson_record_names_its_sub_device():
    assert ndjson('{"device":"A","ts":5,"values":{"a":1}}\n{"device":"B","b":2}', WITH_DEVICE) == [
        Record(1, "A", 5, {"a": 1}),
        Record(2, "B", None, {"b": 2}),
    ]


def test_ndjson_record_in_the_form_of_an_export():
    line = (
        '{"device":"A","ts":5,"profile":"meter","metadata":{"connector":"opc","receivedTs":4},"priority":"high",'
        '"expires":"2026-01-31T12:00:00Z","values":{"a":1}}'
    )
    details = Details("meter", TelemetryMetadata("opc", 4), Priority.HIGH, 1769860800000)
    assert ndjson(line, WITH_DEVICE) == [Record(1, "A", 5, {"a": 1}, details)]
    assert ndjson('{"priority":"low","values":{"a":1}}') == [Record(1, None, None, {"a": 1}, Details(priority=Priority.LOW))]


def test_fields_of_an_export_are_values_in_another_form():
    [record] = ndjson('{"priority":"high","profile":"p","expires":5,"metadata":{"x":1},"values":3}')
    assert record.values == {"priority": "high", "profile": "p", "expires": 5, "metadata": {"x": 1}, "values": 3}
    assert record.details == Details()


@pytest.mark.parametrize(
    ("line", "fields", "reason"),
    [
        (b"{", PLAIN, "it is not valid JSON"),
        (b'{"a":1} x', PLAIN, "it is not valid JSON (Extra data"),
        (b"[1]", PLAIN, "it is JSON, but not an object: an array"),
        (b"3", PLAIN, "it is JSON, but not an object: a number"),
        (b'{"a":"\xff"}', PLAIN, "it is not UTF-8"),
        (b"[" * 100_000, PLAIN, "it is not valid JSON"),
        (b"{}", PLAIN, "it has no values"),
        (b'{"ts":1}', PLAIN, "it has no values"),
        (b'{"ts":1,"values":{}}', PLAIN, "it has no values"),
        (b'{"ts":"soon","a":1}', PLAIN, "the field 'ts': 'soon' is not a valid time"),
        (b'{"ts":"2026-01-31T12:00:00","a":1}', PLAIN, "has no offset from UTC"),
        (b'{"ts":1.5,"a":1}', PLAIN, "the field 'ts': 1.5 is not a whole number of milliseconds"),
        (b'{"ts":true,"a":1}', PLAIN, "the field 'ts': True is not a valid time"),
        (b'{"a":1}', WITH_DEVICE, "the field 'device' with the device's name is missing"),
        (b'{"device":7,"a":1}', WITH_DEVICE, "must be a name, not 7"),
        (b'{"device":"","a":1}', WITH_DEVICE, "must be a name, not ''"),
        (b'{"device":"A"}', WITH_DEVICE, "it has no values"),
        (b'{"ts":1,"a":1}', ATTRIBUTES, "the field 'ts': attributes have no time"),
        (b'{"priority":"urgent","values":{"a":1}}', PLAIN, "the field 'priority' must be one of high, normal, low, not 'urgent'"),
        (b'{"priority":["high"],"values":{"a":1}}', PLAIN, "the field 'priority' must be one of high"),
        (b'{"expires":"soon","values":{"a":1}}', PLAIN, "the field 'expires': 'soon' is not a valid time"),
        (b'{"profile":"p","values":{"a":1}}', PLAIN, "the field 'profile' is only for records of sub-devices"),
        (b'{"metadata":{},"values":{"a":1}}', PLAIN, "the field 'metadata' is only for records of sub-devices"),
        (b'{"device":"D","profile":7,"values":{"a":1}}', WITH_DEVICE, "the field 'profile' must be a name, not 7"),
        (b'{"device":"D","metadata":7,"values":{"a":1}}', WITH_DEVICE, "the field 'metadata' must be an object with connector"),
        (b'{"device":"D","metadata":{"connector":"c"},"values":{"a":1}}', WITH_DEVICE, "the field 'metadata' must be an object"),
        (
            b'{"device":"D","metadata":{"connector":"c","receivedTs":-1},"values":{"a":1}}',
            WITH_DEVICE,
            "the field 'metadata': received_ts must be",
        ),
        (b'{"metadata":{},"values":{"a":1}}', ATTRIBUTES, "the field 'metadata': attributes have no metadata"),
    ],
)
def test_bad_ndjson_line_is_reported_with_the_reason(line, fields, reason):
    [good, bad, after] = ndjson(b'{"device":"D","a":1}\n\n' + line + b'\n{"device":"D","a":2}\n', fields)
    assert isinstance(bad, BadLine)
    assert bad.line == 3
    assert reason in bad.reason
    assert (good.line, after.line) == (1, 4)


def test_csv_rows_are_parsed():
    text = """device,ts,temperature,state,list,empty
A,1700000000000,21.5,on,"[1, 2]",
"B, the 2nd",2026-01-31T12:00:00+02:00,-3,"true","7",
"""
    assert rows(text, WITH_DEVICE) == [
        Record(2, "A", 1700000000000, {"temperature": 21.5, "state": "on", "list": [1, 2]}),
        Record(3, "B, the 2nd", 1769853600000, {"temperature": -3, "state": True, "list": 7}),
    ]


def test_csv_cells_of_device_and_time_are_not_parsed_as_json():
    assert rows("device,ts,a\n7,12,1\ntrue,,2\n", WITH_DEVICE) == [Record(2, "7", 12, {"a": 1}), Record(3, "true", None, {"a": 2})]


@pytest.mark.parametrize("text", ["a;b\r\n1;2\r\n", "\ufeffa;b\n1;2", "a; b \n1;2\n\n"])
def test_csv_dialects_are_parsed(text):
    assert rows(text, delimiter=";") == [Record(2, None, None, {"a": 1, "b": 2})]


def test_csv_cell_may_contain_a_newline():
    assert rows('a,b\n"x\ny",1\n2,3\n') == [Record(2, None, None, {"a": "x\ny", "b": 1}), Record(4, None, None, {"a": 2, "b": 3})]


@pytest.mark.parametrize(
    ("row", "fields", "reason"),
    [
        (b"1,2", PLAIN, "it has 2 cells, and the header has 3"),
        (b"1,2,3,4", PLAIN, "it has 4 cells, and the header has 3"),
        (b",,", PLAIN, "it has no values"),
        (b'"a"x,2,3', PLAIN, "expected after"),
        (b"1,2,\xff", PLAIN, "it is not UTF-8"),
        (b"1,,x", WITH_DEVICE, "the field 'device' with the device's name is missing"),
        (b"soon,A,3", PLAIN, "the field 'ts': 'soon' is not a valid time"),
    ],
)
def test_bad_csv_row_is_reported_with_the_reason(row, fields, reason):
    [good, bad, after] = rows(b"ts,device,c\n5,A,1\n" + row + b"\n6,B,2\n", fields)
    assert isinstance(bad, BadLine)
    assert bad.line == 3
    assert reason in bad.reason
    assert (good.line, after.line) == (2, 4)


def test_unclosed_quote_is_reported_with_all_its_lines():
    assert rows('a,b\n1,2\n"3,4\n5,6\n7,8\n')[1:] == [BadLine(3, "unexpected end of data (the row ends in line 5)")]


@pytest.mark.parametrize(
    ("text", "fields", "reason"),
    [
        ("a,,b\n", PLAIN, "no name for column 2"),
        ("a,b,a\n", PLAIN, "the column 'a' twice"),
        ("a,b\n1,2\n", WITH_DEVICE, "no column 'device' for the device; its columns: a, b"),
        ("a,b\n1,2\n", Fields(ts="when"), "no column 'when' for the time; its columns: a, b"),
        ('"a"b\n', PLAIN, "line 1: "),
    ],
)
def test_unusable_csv_header_is_an_error(text, fields, reason):
    with pytest.raises(ValueError, match=reason):
        rows(text, fields)


def test_empty_input_has_no_records():
    assert (ndjson(""), ndjson("\n \n"), rows(""), rows("a,b\n")) == ([], [], [], [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("21.5", 21.5), ("-7", -7), ("true", True), ("null", None), ('"7"', "7"), ("[1]", [1]), ('{"a":1}', {"a": 1}),
        ("on", "on"), ("", ""), ("007", "007"), ("1,5", "1,5"), ("{a", "{a"), ("nan", "nan"), ("1" * 30, int("1" * 30)),
        ("[" * 100_000, "[" * 100_000),
    ],
)  # fmt: skip
def test_typed_parses_json_and_keeps_other_texts(text, value):
    assert typed(text) == value
    assert type(typed(text)) is type(value)


def test_arguments_become_values():
    assert from_arguments(["a=1", "b=x=y", "c="]) == {"a": 1, "b": "x=y", "c": ""}


@pytest.mark.parametrize("arguments", [["a"], ["=1"], ["a=1", "a=2"]])
def test_unusable_arguments_are_an_error(arguments):
    with pytest.raises(ValueError, match=r"must be KEY=VALUE|is given twice"):
        from_arguments(arguments)


@given(st.lists(st.binary().filter(lambda line: b"\n" not in line), min_size=1), st.integers(1, 10))
def test_lines_do_not_depend_on_how_the_input_is_cut(lines, size):
    """Every byte is returned exactly once and in order, and lines are numbered from 1."""
    data = b"\n".join(lines)
    chunks = iter([data[start : start + size] for start in range(0, len(data), size)] + [b""])
    found = list(numbered_lines(lambda: next(chunks)))
    assert b"".join(line for _, line in found) == data
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert all(line.endswith(b"\n") for _, line in found[:-1])


def test_too_long_line_is_refused(monkeypatch):
    monkeypatch.setattr("tb_mqtt_client.cli.reading.LONGEST_LINE", 10)
    chunks = iter([b"x\n", b"123456", b"7890a", b""])
    with pytest.raises(ValueError, match="line 2 is longer than 10 bytes"):
        list(numbered_lines(lambda: next(chunks)))
