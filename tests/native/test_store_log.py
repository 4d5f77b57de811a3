"""Sends that are committed to a `StoreLog` come back equal, once, until they are settled."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client import _native
from tb_mqtt_client._native import AttributeEntry, DeviceIdentity, EncodedUplink, StoreLog, TimeseriesEntry

OWNER = "localhost:1883 0123"

keys = st.sampled_from(["a", "b", 'c"', "é", "longer key"])
values = st.integers(-(10**30), 10**30) | st.text(max_size=20) | st.none() | st.floats(0, 1) | st.lists(st.booleans(), max_size=3)
times = st.none() | st.integers(-(2**62), 253_402_300_799_999)
devices = st.none() | st.builds(DeviceIdentity, st.text("abé\n", min_size=1, max_size=3), st.sampled_from(["default", "other", ""]))
telemetry = st.builds(
    lambda data, now, device, rounds, metadata: EncodedUplink.timeseries(data, now, device, rounds, device and metadata),
    st.lists(st.dictionaries(keys, values, min_size=1), min_size=1, max_size=4),
    st.integers(0, 10**13),
    devices,
    st.booleans(),
    st.none() | st.tuples(st.text(max_size=5), st.integers(0, 10**13)),
)
attributes = st.builds(EncodedUplink.attributes, st.dictionaries(keys, values, min_size=1), devices, st.booleans())
collected = st.builds(
    EncodedUplink.of_entries,
    st.lists(st.builds(AttributeEntry, keys, values), max_size=3),
    st.lists(st.builds(TimeseriesEntry, keys, values, times), max_size=3),
    times,
    devices,
)
uplinks = telemetry | attributes | collected
sends = st.lists(
    st.tuples(uplinks, st.integers(1, 3), st.integers(-(2**63), 2**63 - 1), st.integers(0, 3), st.integers(-(2**63), 2**63 - 1)),
    max_size=12,
)


def described(uplink):
    """All that an uplink has, metadata included, which is visible only in a payload."""
    packed = _native.pack_timeseries([uplink], gateway=uplink.has_device, max_size=10**6, now_ms=7)
    return (
        uplink.device,
        uplink.main_ts,
        uplink.conversions,
        uplink.nbytes,
        [(repr(entry), entry.ts) for entry in uplink.timeseries_entries()],
        [repr(entry) for entry in uplink.attribute_entries()],
        [payload.data for payload in packed.payloads],
    )


def numbered(given_sends):
    """Give sends rising numbers with gaps."""
    number = 0
    for uplink, gap, *rest in given_sends:
        number += gap
        yield (uplink, number, *rest)


def all_of(log, *, max_sends=3):
    found = []
    for lanes in (["attributes"], ["high", "normal", "low"]):
        while part := log.read(200, max_sends, lanes):
            found += part
    return sorted(found, key=lambda send: send[1])


@given(given_sends=sends, data=st.data(), max_segment_bytes=st.sampled_from([1, 500, 2**23]))
def test_sends_come_back_equal(tmp_path_factory, given_sends, data, max_segment_bytes):
    """Unsettled sends of every kind are read after the next opening as they were committed, and settled ones are not."""
    path = tmp_path_factory.mktemp("store")
    log = StoreLog.open(path, OWNER, max_segment_bytes=max_segment_bytes)
    given_sends = list(numbered(given_sends))
    cut = data.draw(st.integers(0, len(given_sends)))
    numbers = [send[1] for send in given_sends]
    settled = data.draw(st.sets(st.sampled_from(numbers))) if numbers else set()
    early = {number for number in settled if number % 2}
    log.commit(given_sends[:cut], sorted(early))
    log.commit(given_sends[cut:], [])
    log.commit([], sorted(settled - early, reverse=True))
    log.close()
    expected = [send for send in given_sends if send[1] not in settled]
    log = StoreLog.open(path, OWNER)
    assert (log.recovered.sends, log.recovered.damaged_places) == (len(expected), 0)
    assert log.recovered.datapoints == log.backlog_datapoints == sum(send[0].datapoints for send in expected)
    assert log.recovered.bytes == sum(send[0].nbytes for send in expected)
    assert log.recovered.attribute_sends == sum(send[0].attribute_count > 0 for send in expected)
    assert log.verify()[3] == []
    found = all_of(log)
    assert [(described(send[0]), *send[1:]) for send in found] == [(described(send[0]), *send[1:]) for send in expected]
    assert log.backlog_sends == log.backlog_datapoints == log.backlog_bytes == 0
    log.close()


def send_of(number, **values):
    return (EncodedUplink.timeseries(values or {"a": number}, 1000), number, 5, 0, 0)


@pytest.fixture
def log(tmp_path):
    log = StoreLog.open(tmp_path / "store", OWNER)
    yield log
    log.close()


def test_released_sends_are_read_and_held_again(log):
    log.commit([send_of(number) for number in range(1, 6)], [])
    assert log.backlog_sends == 0
    assert log.read(10**6, 10, ["normal"]) == []
    log.release([4, 2, 9])
    assert log.backlog_sends == 2
    assert [send[1] for send in log.read(10**6, 1, ["normal"])] == [2]
    log.release([2, 1])
    assert [send[1] for send in log.read(10**6, 10, ["normal"])] == [1, 2, 4]
    assert log.read(10**6, 10, ["normal"]) == []


def test_oldest_sends_are_dropped(log, tmp_path):
    log.commit([(EncodedUplink.attributes({"a": 1}), 1, 7, 0, 0), send_of(2), send_of(3), send_of(4)], [])
    log.release([1, 2, 3, 4])
    assert log.backlog_oldest_ms == 5
    nbytes = send_of(2)[0].nbytes
    assert log.drop_oldest(nbytes + 1) == [(1, 1, False), (2, 1, False)]
    log.close()
    log = StoreLog.open(tmp_path / "store", OWNER)
    assert [send[1] for send in all_of(log)] == [3, 4]
    assert log.drop_oldest(10**9) == []
    log.close()


def with_terms(number, priority=0, expires=0, accepted=5, *, attributes=False):
    uplink = EncodedUplink.attributes({"a": number}) if attributes else EncodedUplink.timeseries({"a": number}, 1000)
    return (uplink, number, accepted, priority, expires)


def test_priorities_are_read_and_dropped_apart(log, tmp_path):
    log.commit(
        [with_terms(1), with_terms(2, 2), with_terms(3, 1), with_terms(4, 1, attributes=True), with_terms(5, 1), with_terms(6)], []
    )
    log.close()
    log = StoreLog.open(tmp_path / "store", OWNER)
    assert [send[1] for send in log.read(10**6, 10, ["high"])] == [3, 5]
    assert [send[1] for send in log.read(10**6, 10, ["attributes"])] == [4]
    log.release([3, 4, 5])
    assert [send[1] for send in log.read(10**6, 3, ["normal", "high", "low"])] == [1, 2, 3]
    log.release([1, 2, 3])
    assert [dropped[0] for dropped in log.drop_oldest(10**6)] == [2, 1, 4, 6, 3, 5]
    with pytest.raises(ValueError, match='attributes, high, normal and low, not "urgent"'):
        log.read(1, 1, ["urgent"])
    log.close()


def test_sends_that_have_expired_are_dropped(log, tmp_path):
    log.commit([with_terms(1), with_terms(2, expires=70), with_terms(3, expires=60), with_terms(4, expires=50), with_terms(5)], [])
    assert log.backlog_expires_ms is None
    log.release([1, 2, 3, 5])
    assert log.backlog_expires_ms <= 60
    assert log.drop_due(49, (0, 0), 10) == []
    assert log.drop_due(65, (0, 0), 10) == [(3, 1, True)]
    assert log.backlog_expires_ms == 70
    log.release([4])
    assert log.backlog_expires_ms <= 50
    log.close()
    log = StoreLog.open(tmp_path / "store", OWNER)
    assert (log.backlog_sends, log.backlog_expires_ms) == (4, 50)
    assert log.drop_due(100, (0, 0), 1) == [(2, 1, True)]
    assert log.drop_due(100, (0, 0), 10) == [(4, 1, True)]
    assert log.backlog_expires_ms is None
    assert [send[1] for send in all_of(log)] == [1, 5]
    log.close()


def test_sends_that_are_too_old_are_dropped(log):
    log.commit([with_terms(number, accepted=number * 10) for number in range(1, 6)], [])
    log.release([1, 2, 3, 4, 5])
    assert log.drop_due(0, (20, 40), 10) == []
    assert log.drop_due(0, (10, 40), 10) == [(1, 1, False), (2, 1, False), (3, 1, False)]
    assert log.backlog_oldest_ms == 40


def test_a_missing_file_is_counted_once(log, tmp_path):
    log.commit([send_of(1)], [])
    log.close()
    for number in (2, 3):
        log = StoreLog.open(tmp_path / "store", OWNER)
        log.commit([send_of(number)], [])
        log.close()
    (tmp_path / "store" / f"{2:020}.log").unlink()
    log = StoreLog.open(tmp_path / "store", OWNER)
    assert (log.damaged_places, log.lost_sends, log.lost_datapoints, log.backlog_sends) == (1, 1, 1, 2)
    note = tmp_path / "store" / "quarantine" / f"{2:020}.log.0.missing"
    assert "are missing" in note.read_text()
    log.close()
    log = StoreLog.open(tmp_path / "store", OWNER)
    assert (log.damaged_places, log.backlog_sends) == (0, 2)
    log.close()


def test_a_store_in_use(log, tmp_path):
    with pytest.raises(_native.StoreInUseError, match=f"in use by process {os.getpid()}: stop it"):
        StoreLog.open(tmp_path / "store", OWNER)
    script = f"from tb_mqtt_client._native import StoreLog; StoreLog.open({str(tmp_path / 'store')!r}, {OWNER!r})"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert f"StoreInUseError: the store {tmp_path}/store is in use by process {os.getpid()}" in other.stderr


def test_a_reader_needs_no_lock(log, tmp_path):
    log.commit([send_of(1)], [])
    reader = StoreLog.open(tmp_path / "store", "", read_only=True)
    assert (reader.owner, reader.recovered.sends) == (OWNER, 1)
    assert [send[1] for send in all_of(reader)] == [1]
    assert reader.devices() == [(None, 1, 1, send_of(1)[0].nbytes, 5)]
    with pytest.raises(ValueError, match="opened only to read it"):
        reader.commit([send_of(2)], [])
    with pytest.raises(ValueError, match="opened only to read it"):
        reader.drop_oldest(1)


def test_another_owner(log, tmp_path):
    log.close()
    with pytest.raises(_native.StoreOwnerError, match=r"data for another platform or another credential.*choose another path"):
        StoreLog.open(tmp_path / "store", "other")
    StoreLog.open(tmp_path / "store", OWNER).close()


@pytest.mark.parametrize(("found", "version"), [(3, "a newer"), (1, "the older")])
def test_another_format(log, tmp_path, found, version):
    log.close()
    (tmp_path / "store" / "store.json").write_text(f'{{"format":{found},"owner":"x","more":[]}}\n')
    with pytest.raises(
        _native.StoreFormatError, match=f"has format {found}, and this version reads only 2: install {version} version"
    ):
        StoreLog.open(tmp_path / "store", OWNER)


def test_other_files_are_not_a_store(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    for path, reason in [(tmp_path, 'other files, such as "photo.jpg"'), (tmp_path / "photo.jpg", "it is a file")]:
        with pytest.raises(_native.NotAStoreError, match=f"{reason}.*; choose a new or empty directory"):
            StoreLog.open(path, OWNER)
    with pytest.raises(_native.NotAStoreError, match="it does not exist"):
        StoreLog.open(tmp_path / "none", OWNER, read_only=True)
    assert os.listdir(tmp_path) == ["photo.jpg"]


def test_the_error_of_the_file_system_has_its_number():
    with pytest.raises(OSError, match="cannot create") as error:
        StoreLog.open("/proc/none", OWNER)
    assert error.value.errno == errno.ENOENT
    assert isinstance(error.value, FileNotFoundError)


@pytest.mark.parametrize(
    ("sends", "error", "text"),
    [
        ([send_of(2), send_of(2)], ValueError, r"rising numbers from 1 on, but sends\[1\] has 2 after 2"),
        ([send_of(0)], ValueError, r"sends\[0\] has 0"),
        ([(send_of(1)[0], 1, 0, 4, 0)], ValueError, r"priority of sends\[0\] must be at most 3, not 4"),
        ([send_of(1)[:4]], TypeError, r"sends\[0\] must be of type tuple of \(EncodedUplink, number"),
        ([("x", 1, 0, 0, 0)], TypeError, r"must be of type EncodedUplink, not str"),
        ([(send_of(1)[0], -1, 0, 0, 0)], OverflowError, "negative"),
    ],
)
def test_invalid_sends(log, sends, error, text):
    with pytest.raises(error, match=text):
        log.commit(sends, [])
    assert log.next_number == 1


def test_a_closed_log(log):
    log.close()
    log.close()
    with pytest.raises(ValueError, match="was closed"):
        log.commit([], [])
    assert log.backlog_sends == 0


def test_threads_share_a_log(log, tmp_path):
    """Threads wait for each other, and properties can be read meanwhile."""
    per_thread, turns = 50, threading.Barrier(4)
    seen = []

    def work(first):
        turns.wait()
        for number in range(first, first + per_thread):
            log.commit([send_of(number)], [])
            seen.append((log.disk_bytes, log.next_number))

    threads = [threading.Thread(target=work, args=(1 + index * per_thread,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    again = StoreLog.open(tmp_path / "store", OWNER)
    assert [send[1] for send in all_of(again, max_sends=1000)] == list(range(1, 4 * per_thread + 1))
    again.close()


def test_damage_is_moved_aside_and_reported_once(log, tmp_path):
    """A damaged commit is lost; the others are kept, and the damaged bytes are in the quarantine."""
    for number in range(1, 4):
        log.commit([send_of(number, key="x" * 1000)], [])
    log.close()
    store = tmp_path / "store"
    (segment,) = store.glob("*.log")
    content = bytearray(segment.read_bytes())
    content[1700] ^= 1
    segment.write_bytes(content)
    again = StoreLog.open(store, OWNER)
    assert again.recovered.damaged_places == 1
    assert [send[1] for send in all_of(again)] == [1, 3]
    again.close()
    assert len(list(Path(store, "quarantine").iterdir())) == 1
    third = StoreLog.open(store, OWNER)
    assert (third.recovered.damaged_places, third.recovered.sends) == (0, 2)
    third.close()
