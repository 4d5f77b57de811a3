"""An image on its way to the disk.

The rule: what stands under the final name is whole and verified. Until then the image is in a file beside it, which is gone
when it is given up. Methods that wait for the disk belong into a thread; ``discard`` may be called while another one runs there.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import zlib
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any, Protocol


class Checksum(Protocol):
    """Grows with the data. Those of ``hashlib`` are of this form."""

    def update(self, data: bytes, /) -> None:
        """Add data."""

    def hexdigest(self) -> str:
        """The checksum of all data so far, in lower case."""


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return self._value.to_bytes(4, "little").hex()


class _Murmur3:
    def __init__(self, algorithm: str, hasher: str) -> None:
        try:
            mmh3 = import_module("mmh3")
        except ModuleNotFoundError as missing:
            text = f"{algorithm} needs the package mmh3: pip install 'tb-mqtt-client[firmware]'"
            raise ModuleNotFoundError(text, name="mmh3") from missing
        self._hasher: Any = getattr(mmh3, hasher)(seed=0)

    def update(self, data: bytes, /) -> None:
        self._hasher.update(data)

    def hexdigest(self) -> str:
        digest: bytes = self._hasher.digest()
        return digest.hex()


_ALGORITHMS: dict[str, Callable[[], Checksum]] = {
    # Whether the transfer was right is asked here, nothing about who made the image.
    "MD5": lambda: hashlib.md5(usedforsecurity=False),
    "SHA256": hashlib.sha256,
    "SHA384": hashlib.sha384,
    "SHA512": hashlib.sha512,
    "CRC32": _Crc32,
    "MURMUR3_32": lambda: _Murmur3("MURMUR3_32", "mmh3_32"),
    "MURMUR3_128": lambda: _Murmur3("MURMUR3_128", "mmh3_x64_128"),
}


def known_algorithm(algorithm: str) -> bool:
    """Whether the platform has this algorithm; its name in either case."""
    return algorithm.upper() in _ALGORITHMS


def new_checksum(algorithm: str) -> Checksum:
    """A checksum of no data. Raises ``ValueError`` for an unknown algorithm, ``ModuleNotFoundError`` when it needs a package."""
    make = _ALGORITHMS.get(algorithm.upper())
    if make is None:
        raise ValueError(f"unknown checksum algorithm {algorithm!r}, known are {', '.join(_ALGORITHMS)}")
    return make()


def is_checksum(checksum: Checksum, expected: str) -> bool:
    """Whether all data so far has this checksum; hex in either case."""
    return checksum.hexdigest() == expected.strip().lower()


class PackageFile:
    """Grows chunk by chunk, and its checksum with it."""

    def __init__(self, folder: Path, name: str, checksum: Checksum) -> None:
        self._target = folder / name
        self._checksum = checksum
        # Held by the method that runs, since who gives up does not wait for the thread that writes.
        self._lock = Lock()
        self._file: FileIO | None = None
        self._kept = self._discarded = False
        self.path = folder / f".{name}.{secrets.token_hex(4)}.part"
        """Where the image is."""
        self.received = 0
        """Bytes so far."""

    def open(self) -> None:
        """Make the file. Raises ``OSError`` when there can be none."""
        with self._lock:
            if not self._discarded:
                # A name that exists, even as a link, is refused.
                self._file = self.path.open("xb", buffering=0)

    def append(self, data: bytes) -> None:
        """Write the next bytes."""
        with self._lock:
            file = self._opened()
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            self._checksum.update(data)
            self.received += len(data)

    def is_intact(self, expected_checksum: str) -> bool:
        """Whether what was written has this checksum."""
        return is_checksum(self._checksum, expected_checksum)

    def keep(self) -> Path:
        """Put the image under its final name, where it stays, in the place of an older one."""
        with self._lock:
            file = self._opened()
            os.fsync(file.fileno())
            file.close()
            self.path.replace(self._target)
            self._kept, self.path = True, self._target
            _sync_folder(self._target.parent)
        return self._target

    def read(self) -> bytes:
        """The whole image."""
        with self._lock:
            return self.path.read_bytes()

    def discard(self) -> None:
        """Remove the image unless it was kept."""
        with self._lock:
            self._discarded = True
            if self._file is not None:
                self._file.close()
                if not self._kept:
                    self.path.unlink(missing_ok=True)

    def _opened(self) -> FileIO:
        if self._file is None:
            raise ValueError("the file is not open")
        return self._file


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power failure, where folders can be synchronized."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some file systems cannot, and the image itself is safe.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
