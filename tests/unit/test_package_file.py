"""A file with the final name of an image is complete and verified, or does not exist."""

import asyncio
import hashlib
import stat
import threading

import pytest

from tb_mqtt_client.service.ota.files import PackageFile, new_checksum


@pytest.fixture
def file(tmp_path):
    file = PackageFile(tmp_path, "image.bin", new_checksum("SHA256"))
    file.open()
    yield file
    file.discard()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_kept_image(file, tmp_path):
    for chunk in (b"first", b"", b"second"):
        file.append(chunk)
    assert (file.received, file.path.read_bytes()) == (11, b"firstsecond")
    assert "image.bin" not in names(tmp_path)
    assert file.is_intact(hashlib.sha256(b"firstsecond").hexdigest())
    assert not file.is_intact("0" * 64)
    assert file.keep() == file.path == tmp_path / "image.bin"
    assert file.read() == b"firstsecond"
    file.discard()
    assert names(tmp_path) == ["image.bin"]


def test_a_discarded_image(file, tmp_path):
    file.append(b"part")
    file.discard()
    file.discard()
    assert names(tmp_path) == []


def test_an_older_image_stays_until_the_new_one_is_complete(file, tmp_path):
    (tmp_path / "image.bin").write_bytes(b"old")
    file.append(b"new")
    assert (tmp_path / "image.bin").read_bytes() == b"old"
    file.keep()
    assert (tmp_path / "image.bin").read_bytes() == b"new"


def test_a_link_is_replaced_and_not_followed(file, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    (tmp_path / "image.bin").symlink_to(elsewhere)
    file.append(b"new")
    file.keep()
    assert elsewhere.read_bytes() == b"precious"
    assert not (tmp_path / "image.bin").is_symlink()


def test_permissions_are_the_ones_of_any_new_file(file, tmp_path):
    other = tmp_path / "other"
    other.touch()
    assert stat.S_IMODE(file.path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_a_missing_folder(tmp_path):
    file = PackageFile(tmp_path / "missing", "image.bin", new_checksum("MD5"))
    with pytest.raises(FileNotFoundError):
        file.open()
    file.discard()


def test_discarded_before_the_thread_opens_the_file(tmp_path):
    file = PackageFile(tmp_path, "image.bin", new_checksum("MD5"))
    file.discard()
    file.open()
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match="not open"):
        file.append(b"late")


async def test_discarded_while_a_thread_writes(tmp_path):
    """``discard`` waits for the running write, and removes the file."""
    writing, go_on = threading.Event(), threading.Event()

    class Slow:
        def update(self, _data):
            writing.set()
            go_on.wait(10)

        def hexdigest(self):
            return ""

    file = PackageFile(tmp_path, "image.bin", Slow())
    file.open()
    write = asyncio.ensure_future(asyncio.to_thread(file.append, b"x"))
    await asyncio.to_thread(writing.wait, 10)
    discard = asyncio.ensure_future(asyncio.to_thread(file.discard))
    go_on.set()
    await asyncio.gather(write, discard)
    assert names(tmp_path) == []
