"""Every datapoint is sent exactly once and in order; no payload exceeds its limits, and each is as full as possible."""

import json
import threading

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from tb_mqtt_client import _native

# Few names, keys and timestamps, so that they meet; characters that take more bytes than one.
NAMES = [None, ("A", "default"), ("A", "other"), ('B"é', "default"), ("C", "default")]
small_keys = st.sampled_from(["a", "b", 'c"', "é", "longer key"])
small_values = (
    st.integers(-1000, 10**12) | st.text(max_size=30).filter(lambda text: text.isprintable()) | st.none() | st.floats(0, 1)
)
entries = st.tuples(small_keys, small_values, st.none() | st.integers(0, 3))
calls = st.lists(
    st.tuples(st.integers(1, 4), st.lists(entries, max_size=6), st.lists(entries, max_size=4), st.none() | st.integers(5, 6)),
    min_size=1,
    max_size=8,
)
limits = st.fixed_dictionaries(
    {"max_size": st.integers(30, 300), "max_datapoints": st.integers(0, 5), "max_devices": st.integers(0, 3)}
)
unlimited = st.fixed_dictionaries({"max_size": st.just(10**6), "max_datapoints": st.just(0), "max_devices": st.just(0)})


def uplink(implementation, device, series, attributes, main_ts):
    identity = NAMES[device] and implementation.DeviceIdentity(*NAMES[device])
    return implementation.EncodedUplink.of_entries(
        [implementation.AttributeEntry(key, value) for key, value, _ in attributes],
        [implementation.TimeseriesEntry(*entry) for entry in series],
        main_ts,
        identity,
    )


def both(given_calls, gateway):
    """Make equal uplinks in both implementations; those of a device itself have no identity."""
    chosen = [call if gateway else (0, *call[1:]) for call in given_calls]
    return [[uplink(implementation, *call) for call in chosen] for implementation in (_native, reference)]


def contents(payloads):
    return [(one.data, one.datapoints, one.devices, one.sources) for one in payloads]


@pytest.mark.parametrize("kind", ["timeseries", "attributes"])
@pytest.mark.parametrize("gateway", [True, False])
@given(given_calls=calls, limit=limits | unlimited)
def test_same_payloads_as_the_reference(kind, gateway, given_calls, limit):
    """Bytes, counts, sources and oversized datapoints are those of the reference."""
    natives, references = both(given_calls, gateway)
    packed = getattr(_native, f"pack_{kind}")(natives, gateway=gateway, **limit)
    expected = getattr(reference, f"pack_{kind}")(references, gateway=gateway, **limit)
    assert contents(packed.payloads) == contents(expected.payloads)
    assert packed.oversized == expected.oversized


@pytest.mark.parametrize("kind", ["timeseries", "attributes"])
@given(given_calls=calls, limit=limits | unlimited)
def test_items_of_the_sources_and_whether_each_uplink_is_in_one_payload(kind, given_calls, limit):
    uplinks, references = both(given_calls, True)
    packed = getattr(_native, f"pack_{kind}")(uplinks, gateway=True, **limit)
    expected = getattr(reference, f"pack_{kind}")(references, gateway=True, **limit)
    items = [object() for _ in uplinks]
    for payload, wanted in zip(packed.payloads, expected.payloads, strict=True):
        found, shares = payload.of_sources(items)
        assert [items.index(item) for item in found] == [index for index, _ in wanted.sources]
        counts = [count for _, count in wanted.sources]
        assert shares == (counts[0] if len(set(counts)) == 1 else counts)
        with pytest.raises(IndexError):
            payload.of_sources(items[: max(index for index, _ in wanted.sources)])
    sources = [index for payload in expected.payloads for index, _ in payload.sources]
    assert packed.is_one_to_one is (sorted(sources) == list(range(len(uplinks))) and not expected.oversized)


@pytest.mark.parametrize("kind", ["timeseries", "attributes"])
@given(given_calls=calls, limit=limits)
def test_limits_hold_and_every_datapoint_is_acknowledged(kind, given_calls, limit):
    """No payload exceeds a limit, its size is its length, and each datapoint of an uplink is acknowledged exactly once."""
    uplinks, _ = both(given_calls, True)
    packed = getattr(_native, f"pack_{kind}")(uplinks, gateway=True, **limit)
    acknowledged = [0] * len(uplinks)
    for payload in packed.payloads:
        assert len(payload.data) <= limit["max_size"]
        assert payload.datapoints <= (limit["max_datapoints"] or payload.datapoints)
        assert payload.devices <= (limit["max_devices"] or payload.devices)
        assert len(orjson.loads(payload.data)) == payload.devices
        for index, datapoints in payload.sources:
            acknowledged[index] += datapoints
    for index, _, size in packed.oversized:
        assert size > limit["max_size"]
        acknowledged[index] += 1
    assert acknowledged == [getattr(one, f"{kind.removesuffix('s') if kind == 'attributes' else kind}_count") for one in uplinks]


@given(st.integers(1000, 60_000), st.integers(1, 300), st.integers(1, 12), st.booleans())
def test_payloads_are_full(size, calls_count, keys_count, gateway):
    """If there is more data, another record, or another datapoint of a record larger than a payload, does not fit."""
    device = _native.DeviceIdentity("device") if gateway else None
    uplinks = [
        _native.EncodedUplink.timeseries({"ts": ts, "values": {f"k{key}": 1 for key in range(keys_count)}}, 0, device)
        for ts in range(1000, 1000 + calls_count)
    ]
    packed = _native.pack_timeseries(uplinks, gateway=gateway, max_size=size)
    record = len(json.dumps({"ts": 1000, "values": {f"k{key}": 1 for key in range(keys_count)}}, separators=(",", ":"))) + 1
    around = len('{"device":[]}') if gateway else len("[]")
    # A datapoint that needs a new record weighs about 35 bytes.
    slack = record if record + around <= size else 45
    assert all(len(payload.data) >= size - slack for payload in packed.payloads[:-1])
    records = []
    for payload in packed.payloads:
        document = orjson.loads(payload.data)
        records += document["device"] if gateway else document
    written = [(record["ts"], key) for record in records for key in record["values"]]
    assert written == [(ts, f"k{key}") for ts in range(1000, 1000 + calls_count) for key in range(keys_count)]


@pytest.mark.parametrize("kind", ["timeseries", "attributes"])
@given(given_calls=calls, limit=limits)
def test_split_as_the_reference(kind, given_calls, limit):
    """Splitting cuts where packing with one device per payload cuts, and keeps oversized datapoints."""
    limit = {name: limit[name] for name in ("max_size", "max_datapoints")}
    natives, references = both(given_calls, True)
    parts = getattr(_native, f"split_{kind}")(natives, gateway=True, **limit)
    expected = getattr(reference, f"split_{kind}")(references, gateway=True, **limit)

    def read(part):
        found = part.timeseries_entries() if kind == "timeseries" else part.attribute_entries()
        return [(entry.ts, _native.dumps(entry.key).decode(), _native.dumps(entry.value).decode()) for entry in found]

    assert [(read(part), sources) for part, sources in parts] == expected


# Device, when the connector received it, and datapoints of one call: (key, value, ts).
received_calls = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.none() | st.tuples(st.sampled_from(["modbus", 'o"pc é']), st.integers(0, 10**13)),
        st.lists(st.tuples(small_keys, small_values, st.none() | st.integers(0, 2)), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=8,
)


def encoded_with_metadata(implementation, device, metadata, points):
    data = [{"ts": ts, "values": {key: value}} for key, value, ts in points]
    return implementation.EncodedUplink.timeseries(data, None, implementation.DeviceIdentity(*NAMES[device]), metadata=metadata)


@given(given_calls=received_calls, limit=limits | unlimited, now=st.integers(0, 10**13))
def test_metadata_as_the_reference(given_calls, limit, now):
    """An uplink with metadata has records of its own, without values of other uplinks, and newer values follow older ones."""
    natives, references = ([encoded_with_metadata(one, *call) for call in given_calls] for one in (_native, reference))
    packed = _native.pack_timeseries(natives, gateway=True, now_ms=now, **limit)
    expected = reference.pack_timeseries(references, gateway=True, now_ms=now, **limit)
    assert contents(packed.payloads) == contents(expected.payloads)
    assert packed.oversized == expected.oversized


def test_metadata_without_a_device_or_a_time_of_publishing():
    with pytest.raises(ValueError, match=r"^metadata must come with a device"):
        _native.EncodedUplink.timeseries({"a": 1}, 0, None, metadata=("c", 1))
    for wrong in (("c",), ("c", 1.5), (b"c", 1), ("c", 2**63), "c"):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            _native.EncodedUplink.timeseries({"a": 1}, 0, _native.DeviceIdentity("A"), metadata=wrong)
    uplink = _native.EncodedUplink.timeseries({"a": 1}, 0, _native.DeviceIdentity("A"), metadata=("c", 1))
    for packing in (_native.pack_timeseries, _native.split_timeseries):
        with pytest.raises(ValueError, match=r"uplinks\[0\] has metadata"):
            packing([uplink], gateway=True, max_size=1000)
    assert _native.pack_attributes([uplink], gateway=True, max_size=1000).payloads == []


def test_datapoints_of_another_device():
    uplink = _native.EncodedUplink.timeseries({"a": 1}, 7, _native.DeviceIdentity("A"), metadata=("c", 1))
    moved = uplink.with_device(_native.DeviceIdentity("B", "p"))
    assert (moved.device, uplink.device) == (_native.DeviceIdentity("B", "p"), _native.DeviceIdentity("A"))
    [payload] = _native.pack_timeseries([moved], gateway=True, max_size=1000, now_ms=2).payloads
    metadata = b'"metadata":{"connector":"c","receivedTs":1,"publishedTs":2}'
    assert payload.data == b'{"B":[{"ts":7,"values":{"a":1},' + metadata + b"}]}"


# Device, and what one send has: dicts and entries, without a time or with one.
unstamped_calls = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.lists(
            st.tuples(
                st.booleans(), st.dictionaries(small_keys, st.integers(0, 10**12), min_size=1, max_size=3), st.none() | st.just(1)
            ),
            min_size=1,
            max_size=4,
        ),
    ),
    min_size=1,
    max_size=10,
)


def encoded_without_times(implementation, device, parts):
    data = []
    for as_entries, values, ts in parts:
        if as_entries:
            data += [implementation.TimeseriesEntry(key, value, ts) for key, value in values.items()]
        else:
            data.append(values if ts is None else {"ts": ts, "values": values})
    return implementation.EncodedUplink.timeseries(data, None, implementation.DeviceIdentity(*NAMES[device]))


@given(given_calls=unstamped_calls, limit=limits | unlimited, tighter=limits)
def test_values_without_a_time_meet_in_no_payload(given_calls, limit, tighter):
    """The platform gives all of a payload the same time, and would keep the last value of a key."""
    natives, references = ([encoded_without_times(one, *call) for call in given_calls] for one in (_native, reference))
    packed = _native.pack_timeseries(natives, gateway=True, **limit)
    expected = reference.pack_timeseries(references, gateway=True, **limit)
    assert contents(packed.payloads) == contents(expected.payloads)
    assert packed.oversized == expected.oversized
    sent = {}
    for payload, expected_payload in zip(packed.payloads, expected.payloads, strict=True):
        assert contents(payload.split(**tighter)) == contents(expected_payload.split(**tighter))
        found = [
            (device, key, value)
            for device, records in json.loads(payload.data).items()
            for record in records
            if "ts" not in record
            for key, value in record.items()
        ]
        assert len({(device, key) for device, key, _ in found}) == len(found)
        for device, key, value in found:
            sent.setdefault((device, key), []).append(value)
    if packed.oversized or limit["max_size"] < 10**6:
        return
    given_values = {}
    for device, parts in given_calls:
        for _, values, ts in parts:
            for key, value in values.items() if ts is None else ():
                # Two profiles of one name are two devices, whose order is not defined.
                given_values.setdefault((NAMES[device][0], key), []).append(value)
    assert {place: sorted(values) for place, values in sent.items()} == {
        place: sorted(values) for place, values in given_values.items()
    }


def test_values_without_a_time_are_sent_in_order_and_with_those_of_other_devices():
    sends = [("A", {"t": 1}), ("B", {"t": 1}), ("A", {"h": 5}), ("B", {"t": 2}), ("A", {"t": 2, "p": 1}), ("A", {"t": 3})]
    uplinks = [_native.EncodedUplink.timeseries(values, None, _native.DeviceIdentity(name)) for name, values in sends]
    packed = _native.pack_timeseries(uplinks, gateway=True, max_size=1000, max_devices=0)
    assert contents(packed.payloads) == [
        (b'{"A":[{"t":1,"h":5}],"B":[{"t":1}]}', 3, 2, [(0, 1), (2, 1), (1, 1)]),
        (b'{"B":[{"t":2}],"A":[{"t":2,"p":1}]}', 3, 2, [(3, 1), (4, 2)]),
        (b'{"A":[{"t":3}]}', 1, 1, [(5, 1)]),
    ]


def test_a_time_that_is_given_later_is_that_of_datapoints_without_one():
    data = [{"a": 1}, {"ts": 3, "values": {"a": 2}}, {"a": 4}]
    stamped = _native.EncodedUplink.timeseries(data, None).with_main_ts(7)
    [payload] = _native.pack_timeseries([stamped], gateway=False, max_size=1000).payloads
    assert (payload.data, payload.sources) == (b'[{"ts":7,"values":{"a":4}},{"ts":3,"values":{"a":2}}]', [(0, 3)])


def test_times_of_a_monotonic_clock_become_timestamps():
    data = [{"a": 1}, {"ts": 1000, "values": {"b": 2}}, {"ts": 999, "values": {"c": 3}}, {"ts": 2001, "values": {"d": 4}}, {"e": 5}]
    sent = _native.EncodedUplink.timeseries(data, None)
    assert not sent.awaits_clock
    waits = sent.on_monotonic_clock(70)
    corrects = sent.on_monotonic_clock(70, (1000, 2000, 950))
    assert waits.awaits_clock
    assert corrects.awaits_clock
    assert not sent.awaits_clock
    offset = 1_700_000_000_000

    def stamps(uplink):
        return [(entry.key, entry.ts) for entry in uplink.timeseries_entries()]

    later = offset + 70
    stamped = waits.with_clock_offset(offset)
    assert stamps(stamped) == [("a", later), ("b", 1000), ("c", 999), ("d", 2001), ("e", later)]
    assert not stamped.awaits_clock
    assert stamps(corrects.with_clock_offset(offset)) == [("a", later), ("b", offset + 50), ("c", 999), ("d", 2001), ("e", later)]
    assert stamps(sent.with_clock_offset(offset)) == stamps(sent)


def test_only_data_without_a_right_time_awaits_the_clock():
    device = _native.DeviceIdentity("A")
    own = _native.EncodedUplink.timeseries({"ts": 5, "values": {"a": 1}}, None, device, metadata=("c", 1))
    assert not own.on_monotonic_clock(1).awaits_clock
    assert own.on_monotonic_clock(1, (5, 5, 4)).with_clock_offset(100).timeseries_entries()[0].ts == 101
    assert not _native.EncodedUplink.attributes({"a": 1}).on_monotonic_clock(1).awaits_clock
    assert not own.with_main_ts(3).on_monotonic_clock(1, (6, 9, 4)).awaits_clock
    with pytest.raises(ValueError, match="now must be a monotonic time"):
        own.on_monotonic_clock(2**61)


def test_keys_that_need_a_time():
    """The platform would read them as the time, the values or the metadata of a record."""
    device = _native.DeviceIdentity("A")
    for key, of_device, of_sub_device in (
        ("ts", "ts", "ts"),
        ("values", "values", "values"),
        ("metadata", None, "metadata"),
        ("Ts", None, None),
    ):
        for ts in (None, 5):
            data = [_native.TimeseriesEntry("a", 1), _native.TimeseriesEntry(key, 1, ts)]
            uplinks = [_native.EncodedUplink.timeseries(data, None, one) for one in (None, device)]
            expected = [of_device, of_sub_device] if ts is None else [None, None]
            assert [one.key_that_needs_ts() for one in uplinks] == expected
            assert [one.with_main_ts(9).key_that_needs_ts() for one in uplinks] == [None, None]
            assert _native.EncodedUplink.timeseries(data, 9, device).key_that_needs_ts() is None
    assert _native.EncodedUplink.attributes({"ts": 1}, device).key_that_needs_ts() is None


def test_an_entry_after_a_dict_may_have_a_key_of_the_dict():
    for values in ({"a": 1}, {"a": 1, "b": 2}):
        uplink = _native.EncodedUplink.timeseries([values, _native.TimeseriesEntry("a", 3)], 5)
        [payload] = _native.pack_timeseries([uplink], gateway=False, max_size=1000).payloads
        assert json.loads(payload.data) == [{"ts": 5, "values": values | {"a": 3}}]
        assert (payload.datapoints, payload.sources) == (len(values), [(0, len(values) + 1)])


def test_the_last_value_wins_within_one_payload_only():
    uplinks = [_native.EncodedUplink.timeseries({"ts": 1, "values": {"a": value, "b": value}}, 0) for value in range(3)]
    [payload] = _native.pack_timeseries(uplinks, gateway=False, max_size=1000).payloads
    assert payload.data == b'[{"ts":1,"values":{"a":2,"b":2}}]'
    assert (payload.datapoints, payload.sources) == (2, [(0, 2), (1, 2), (2, 2)])
    payloads = _native.pack_timeseries(uplinks, gateway=False, max_size=1000, max_datapoints=1).payloads
    assert [one.data for one in payloads] == [
        b'[{"ts":1,"values":{"a":0}}]',
        b'[{"ts":1,"values":{"b":0}}]',
        b'[{"ts":1,"values":{"a":1}}]',
        b'[{"ts":1,"values":{"b":1}}]',
        b'[{"ts":1,"values":{"a":2}}]',
        b'[{"ts":1,"values":{"b":2}}]',
    ]


def test_an_oversized_later_value_leaves_its_payload_open():
    series = [("a", 0, 1), ("a", "x" * 50, 1), ("a", None, 1)]
    uplinks, references = both([(0, series, [], None)], False)
    packed = _native.pack_timeseries(uplinks, gateway=False, max_size=40)
    assert [(one.data, one.sources) for one in packed.payloads] == [(b'[{"ts":1,"values":{"a":null}}]', [(0, 2)])]
    assert packed.oversized == [(0, "a", 78)] == reference.pack_timeseries(references, gateway=False, max_size=40).oversized


def test_two_profiles_of_one_name_never_share_a_payload():
    uplinks = [
        _native.EncodedUplink.timeseries({"ts": 1, "values": {"k": 1}}, 0, _native.DeviceIdentity(name, profile))
        for name, profile in [("B", "x"), ("A", "x"), ("C", "x"), ("A", "y")]
    ]
    payloads = _native.pack_timeseries(uplinks, gateway=True, max_size=1000, max_devices=0).payloads
    assert [list(orjson.loads(payload.data)) for payload in payloads] == [["B", "A", "C"], ["A"]]


def test_bad_arguments():
    own = _native.EncodedUplink.timeseries({"a": 1}, 0)
    with pytest.raises(ValueError, match=r"uplinks\[0\] has no device"):
        _native.pack_timeseries([own], gateway=True, max_size=100)
    for wrong in ([1], None):
        with pytest.raises(TypeError):
            _native.pack_timeseries(wrong, gateway=False, max_size=100)
    with pytest.raises((ValueError, OverflowError)):
        _native.pack_timeseries([own], gateway=False, max_size=-1)
    assert _native.pack_timeseries([], gateway=True, max_size=0).payloads == []


def test_threads_pack_the_same():
    """Several threads get the payloads that one thread gets."""
    uplinks = [_native.EncodedUplink.timeseries([{"ts": ts, "values": {"a": ts}}], 0) for ts in range(2000)]
    expected = [payload.data for payload in _native.pack_timeseries(uplinks, gateway=False, max_size=5000).payloads]
    found = []

    def work():
        for _ in range(10):
            again = [_native.EncodedUplink.timeseries([{"ts": ts, "values": {"a": ts}}], 0) for ts in range(2000)]
            packed = _native.pack_timeseries(again, gateway=False, max_size=5000)
            found.append([payload.data for payload in packed.payloads] == expected)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 40


@pytest.mark.parametrize("kind", ["timeseries", "attributes"])
@given(given_calls=calls, limit=limits | unlimited)
def test_a_payload_cut_by_device_is_complete(kind, given_calls, limit):
    """A refused payload is sent again device by device: no datapoint is lost or attributed to the wrong uplink."""
    uplinks, _ = both(given_calls, True)
    for payload in getattr(_native, f"pack_{kind}")(uplinks, gateway=True, **limit).payloads:
        parts = payload.split(10**6, 0, 1)
        whole = [pair for part in parts for pair in orjson.loads(part.data).items()]
        assert whole == list(orjson.loads(payload.data).items())
        assert b"{" + b",".join(part.data[1:-1] for part in parts) + b"}" == payload.data
        assert [device for part in parts for device in part.device_identities()] == payload.device_identities()
        assert [part.devices for part in parts] == [1] * payload.devices
        assert sum(part.datapoints for part in parts) == payload.datapoints
        sources = iter(payload.sources)
        for part in parts:
            [device] = part.device_identities()
            own = [next(sources) for _ in part.sources]
            assert {uplinks[index].device for index, _ in own} == {device}
            assert [acknowledged for _, acknowledged in own] == [acknowledged for _, acknowledged in part.sources]
        assert list(sources) == []


def test_the_payload_of_a_device_has_no_identities():
    [payload] = _native.pack_timeseries([_native.EncodedUplink.timeseries({"a": 1}, 0)], gateway=False, max_size=99).payloads
    assert payload.device_identities() == []


def both_packed(given_calls, kind, gateway):
    """Return the payloads of uplinks in both implementations, as few as possible."""
    natives, references = both(given_calls, gateway)
    limit = {"gateway": gateway, "max_size": 10**6, "max_devices": 0}
    return [
        getattr(one, f"pack_{kind}")(uplinks, **limit).payloads for one, uplinks in ((_native, natives), (reference, references))
    ]


@pytest.mark.parametrize("kind", ["timeseries", "attributes"])
@pytest.mark.parametrize("gateway", [True, False])
@given(given_calls=calls, limit=limits, tighter=limits)
def test_a_payload_is_cut_as_by_the_reference_and_again(kind, gateway, given_calls, limit, tighter):
    """Bytes, counts, devices and sources of the parts are those of the reference, and of the parts of the parts, too."""
    wholes, expected_wholes = both_packed(given_calls, kind, gateway)
    for whole, expected_whole in zip(wholes, expected_wholes, strict=True):
        parts, expected = whole.split(**limit), expected_whole.split(**limit)
        assert contents(parts) == contents(expected)
        for part, expected_part in zip(parts, expected, strict=True):
            assert contents(part.split(**tighter)) == contents(expected_part.split(**tighter))


@pytest.mark.parametrize("kind", ["timeseries", "attributes"])
@pytest.mark.parametrize("gateway", [True, False])
@given(given_calls=calls, limit=limits)
def test_parts_of_a_payload_hold_it_within_the_limits(kind, gateway, given_calls, limit):
    """Every datapoint is in one part, in order; counts of a source add up; only a part with a single datapoint exceeds the size."""

    def datapoints(payload):
        document = orjson.loads(payload.data)
        for device, entry in document.items() if gateway else [("", document)]:
            for record in entry if kind == "timeseries" else [entry]:
                values = record["values"] if "ts" in record else record
                yield from ((device, record.get("ts"), key, value) for key, value in values.items())

    wholes, _ = both_packed(given_calls, kind, gateway)
    for whole in wholes:
        parts = whole.split(**limit)
        assert [one for part in parts for one in datapoints(part)] == list(datapoints(whole))
        shared_out = [0] * len(whole.sources)
        for part in parts:
            assert len(part.data) <= limit["max_size"] or part.datapoints == 1
            assert part.datapoints <= (limit["max_datapoints"] or part.datapoints)
            assert part.devices <= (limit["max_devices"] or part.devices)
            assert len(part.device_identities()) == (part.devices if gateway else 0)
            assert sum(count for _, count in part.sources) >= part.datapoints
            for place, count in part.sources:
                shared_out[place] += count
        assert shared_out == [count for _, count in whole.sources]


@given(given_calls=received_calls, limit=limits, now=st.integers(0, 10**13))
def test_parts_keep_the_metadata_of_their_records(given_calls, limit, now):
    payloads = []
    for implementation in (_native, reference):
        uplinks = [encoded_with_metadata(implementation, *call) for call in given_calls]
        unlimited_limits = {"gateway": True, "max_size": 10**6, "max_devices": 0}
        payloads.append(implementation.pack_timeseries(uplinks, now_ms=now, **unlimited_limits).payloads)
    for whole, expected in zip(*payloads, strict=True):
        assert contents(whole.split(**limit)) == contents(expected.split(**limit))


def test_a_part_acknowledges_only_its_uplinks():
    """The second uplink replaces a value of the first and adds one: parts have the sources of their datapoints, replaced or not."""
    calls_of_one_time = [{"a": 1, "b": 1}, {"b": 2, "c": 2}, {"d": 3}]
    uplinks = [_native.EncodedUplink.timeseries({"ts": 1, "values": values}, 0) for values in calls_of_one_time]
    [whole] = _native.pack_timeseries(uplinks, gateway=False, max_size=1000).payloads
    assert (whole.datapoints, whole.sources) == (4, [(0, 2), (1, 2), (2, 1)])
    assert contents(whole.split(1000, max_datapoints=2)) == [
        (b'[{"ts":1,"values":{"a":1}}]', 1, 1, [(0, 1)]),
        (b'[{"ts":1,"values":{"b":2,"c":2}}]', 2, 1, [(0, 1), (1, 2)]),
        (b'[{"ts":1,"values":{"d":3}}]', 1, 1, [(2, 1)]),
    ]


def test_a_key_named_ts_does_not_make_a_record_with_a_timestamp():
    """Parts are cut by the structure of the payload, not by text that looks like a record."""
    entries_of_one = [_native.TimeseriesEntry("ts", 5), _native.TimeseriesEntry("values", {"a": 1, "b": [1, {"c": "}"}]})]
    uplink_of_one = _native.EncodedUplink.of_entries([], entries_of_one)
    [whole] = _native.pack_timeseries([uplink_of_one], gateway=False, max_size=1000).payloads
    parts = [b'[{"ts":5}]', b'[{"values":{"a":1,"b":[1,{"c":"}"}]}}]']
    assert [part.data for part in whole.split(1000, max_datapoints=1)] == parts
    assert [part.data for part in whole.split(1000)] == [whole.data]


# Device, and keys with times, of which some are given twice.
record_calls = st.lists(
    st.tuples(st.integers(1, 4), st.lists(st.tuples(small_keys, st.integers(0, 2)), min_size=1, max_size=7)),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("shared_keys", [True, False])
@given(given_calls=record_calls, limit=limits)
def test_a_record_of_one_uplink_is_never_divided(shared_keys, given_calls, limit):
    """Datapoints of one uplink, device and timestamp are in one payload if they fit in one, and in one part when it is cut."""

    def of_call(index, wanted_ts=None):
        device, points = given_calls[index]
        data = [
            {"ts": ts, "values": {key if shared_keys else f"{key}{index}": 10 * index + ts}}
            for key, ts in points
            if wanted_ts in (None, ts)
        ]
        return _native.EncodedUplink.timeseries(data, 0, _native.DeviceIdentity(*NAMES[device]))

    def carriers(payloads, index, ts):
        documents = [orjson.loads(payload.data) for payload in payloads]
        records = [[record for records in document.values() for record in records] for document in documents]
        return sum(any(10 * index + ts in record["values"].values() for record in carried) for carried in records)

    uplinks = [of_call(index) for index in range(len(given_calls))]
    packed = _native.pack_timeseries(uplinks, gateway=True, **limit).payloads
    wholes = _native.pack_timeseries(uplinks, gateway=True, max_size=10**6, max_devices=0).payloads
    parts = [part for whole in wholes for part in whole.split(**limit)]
    for index, (_, points) in enumerate(given_calls):
        for ts in {ts for _, ts in points}:
            alone = _native.pack_timeseries([of_call(index, ts)], gateway=True, **limit)
            if len(alone.payloads) == 1 and not alone.oversized:
                assert carriers(packed, index, ts) <= 1
                # Calls that replace values of each other can be tied into more than fits in a part.
                assert shared_keys or carriers(parts, index, ts) == 1
