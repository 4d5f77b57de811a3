"""Something that is not a file, or a symbolic link to nothing, has a name that the store needs."""

import os
import socket

import pytest

from tb_mqtt_client import _native
from tb_mqtt_client._native import EncodedUplink, StoreLog

OWNER = "localhost:1883 0123"


def send_of(number):
    return (EncodedUplink.timeseries({"a": number}, 1000), number, 5, 0, 0)


def segment(number):
    return f"{number:020}.log"


@pytest.fixture
def store(tmp_path):
    """The directory of a closed store with one send in its first segment."""
    path = tmp_path / "store"
    log = StoreLog.open(path, OWNER)
    log.commit([send_of(1)], [])
    log.close()
    return path


def make_directory(path):
    path.mkdir()
    (path / "inside").write_text("kept")


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [make_directory, os.mkfifo, make_socket], ids=["directory", "pipe", "socket"])
@pytest.mark.parametrize("number", [2, 9])
def test_the_name_of_a_segment_that_something_else_has(store, monkeypatch, make, number):
    """It is moved aside with what is in it, counted once, and the store goes on."""
    monkeypatch.chdir(store)  # the address of a socket is short
    name = segment(number)
    make(store / name)
    reader = StoreLog.open(store, "", read_only=True)
    assert (reader.damaged_places, reader.obstacles, reader.backlog_sends) == (1, [name], 1)
    assert reader.verify()[3] == [(name, 0, 0, "it is not a file")]
    assert os.path.lexists(store / name)
    log = StoreLog.open(store, OWNER)
    assert (log.damaged_places, log.obstacles, log.backlog_sends) == (1, [name], 1)
    assert not os.path.lexists(store / name) or (store / name).is_file()  # the next segment
    [moved] = (store / "quarantine").iterdir()
    assert moved.name == f"{name}.0"
    assert make is not make_directory or (moved / "inside").read_text() == "kept"
    log.commit([send_of(log.next_number)], [])
    log.close()
    log = StoreLog.open(store, OWNER)
    assert (log.damaged_places, log.obstacles, log.backlog_sends) == (0, [], 2)
    log.close()


def test_a_directory_in_place_of_a_segment(store):
    """What was in the segment is counted as lost."""
    for number in (2, 3):
        log = StoreLog.open(store, OWNER)
        log.commit([send_of(number)], [])
        log.close()
    (store / segment(2)).unlink()
    (store / segment(2)).mkdir()
    log = StoreLog.open(store, OWNER)
    assert (log.obstacles, log.lost_sends, log.backlog_sends) == ([segment(2)], 1, 2)
    log.close()
    log = StoreLog.open(store, OWNER)
    assert (log.damaged_places, log.backlog_sends) == (0, 2)
    log.close()


def test_an_obstacle_that_cannot_be_moved(store):
    """Without a quarantine, a new segment gets another name."""
    (store / segment(2)).mkdir()
    (store / "quarantine").write_text("a file")
    log = StoreLog.open(store, OWNER)
    assert (log.obstacles, log.backlog_sends) == ([segment(2)], 1)
    log.commit([send_of(2)], [])
    log.close()
    assert (store / segment(3)).is_file()
    log = StoreLog.open(store, OWNER)
    assert (log.obstacles, log.backlog_sends) == ([segment(2)], 2)
    log.close()


def test_a_header_that_is_a_directory(store):
    """The store knows its owner from its segments, and gets a new header."""
    (store / "store.json").unlink()
    (store / "store.json").mkdir()
    with pytest.raises(_native.StoreOwnerError):
        StoreLog.open(store, "another")
    log = StoreLog.open(store, OWNER)
    assert (log.damaged_places, log.backlog_sends) == (1, 1)
    log.close()
    assert (store / "store.json").is_file()
    assert (store / "quarantine" / "store.json.0").is_dir()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["directory", "pipe"])
def test_a_lock_that_is_not_a_file(store, make):
    (store / "lock").unlink()
    make(store / "lock")
    text = f"^{store}/lock is not a file, and the store needs one of this name: move it away$"
    with pytest.raises(_native.NotAStoreError, match=text):
        StoreLog.open(store, OWNER)


@pytest.mark.parametrize("name", [".", "lock", "store.json", segment(1), segment(7)])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_symbolic_link_to_nothing(store, tmp_path, name, read_only):
    """What it leads to may be on a disk that is not mounted, so nothing is changed."""
    link = store if name == "." else store / name
    moved = tmp_path / "moved"
    if link.exists():
        link.rename(moved)
    link.symlink_to(tmp_path / "disk" / "there")
    before = sorted(tmp_path.rglob("*"))
    if name == "lock" and read_only:
        StoreLog.open(store, OWNER, read_only=True).close()
        return
    text = f"^{link} is a symbolic link to {tmp_path}/disk/there, which does not exist: mount or create"
    with pytest.raises(_native.NotAStoreError, match=text):
        StoreLog.open(store, OWNER, read_only=read_only)
    assert sorted(tmp_path.rglob("*")) == before
    if moved.exists():
        (tmp_path / "disk").mkdir()
        moved.rename(tmp_path / "disk" / "there")
        log = StoreLog.open(store, OWNER, read_only=read_only)
        assert (log.damaged_places, log.backlog_sends) == (0, 1)
        log.close()


def test_a_symbolic_link_to_nothing_above_the_store(tmp_path):
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(_native.NotAStoreError, match=f"^{tmp_path}/link is a symbolic link to gone, which does not exist"):
        StoreLog.open(tmp_path / "link" / "queues" / "store", OWNER)
    assert os.listdir(tmp_path) == ["link"]


def test_a_file_above_the_store(tmp_path):
    (tmp_path / "file").write_text("")
    text = f"^{tmp_path}/file/store is not a store: {tmp_path}/file is a file, not a directory; choose"
    with pytest.raises(_native.NotAStoreError, match=text):
        StoreLog.open(tmp_path / "file" / "store", OWNER)
