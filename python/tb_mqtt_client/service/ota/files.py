"""Writes an image to the disk.

The rule: a file with the final name is complete and verified. Until then the image is in a temporary file next to it, which
``discard`` removes. Methods that wait for the disk belong in a thread; ``discard`` may be called while another one runs there.
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
    """Computes the checksum of data that arrives in parts, with the interface of ``hashlib``."""

    def update(self, data: bytes, /) -> None:
        """Add data."""

    def hexdigest(self) -> str:
        """Return the checksum of all added data, in lower case."""


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
            text = f"{algorithm} needs the package mmh3: pip install mmh3"
            raise ModuleNotFoundError(text, name="mmh3") from missing
        self._hasher: Any = getattr(mmh3, hasher)(seed=0)

    def update(self, data: bytes, /) -> None:
        self._hasher.update(data)

    def hexdigest(self) -> str:
        digest: bytes = self._hasher.digest()
        return digest.hex()


_ALGORITHMS: dict[str, Callable[[], Checksum]] = {
    # The checksum only detects damage in transfer; it does not authenticate the image.
    "MD5": lambda: hashlib.md5(usedforsecurity=False),
    "SHA256": hashlib.sha256,
    "SHA384": hashlib.sha384,
    "SHA512": hashlib.sha512,
    "CRC32": _Crc32,
    "MURMUR3_32": lambda: _Murmur3("MURMUR3_32", "mmh3_32"),
    "MURMUR3_128": lambda: _Murmur3("MURMUR3_128", "mmh3_x64_128"),
}


def known_algorithm(algorithm: str) -> bool:
    """Return whether the platform has this algorithm. Its name may be in upper or lower case."""
    return algorithm.upper() in _ALGORITHMS


def new_checksum(algorithm: str) -> Checksum:
    """Return a checksum without data.

    Raises:
        ValueError: The algorithm is unknown.
        ModuleNotFoundError: The algorithm needs a Python package that is not installed.
    """
    make = _ALGORITHMS.get(algorithm.upper())
    if make is None:
        raise ValueError(f"unknown checksum algorithm {algorithm!r}; the known ones are {', '.join(_ALGORITHMS)}")
    return make()


def is_checksum(checksum: Checksum, expected: str) -> bool:
    """Return whether all added data has this checksum. Its hexadecimal digits may be in upper or lower case."""
    return checksum.hexdigest() == expected.strip().lower()


class PackageFile:
    """Collects an image chunk by chunk in a temporary file, and computes its checksum."""

    def __init__(self, folder: Path, name: str, checksum: Checksum) -> None:
        """Choose a temporary name, without creating the file.

        Args:
            folder: The folder of the temporary and of the final file.
            name: The final name.
            checksum: A checksum without data.
        """
        self._target = folder / name
        self._checksum = checksum
        # A cancelled update does not wait for the thread that writes, so the running method holds this lock.
        self._lock = Lock()
        self._file: FileIO | None = None
        self._kept = self._discarded = False
        self.path: Path = folder / f".{name}.{secrets.token_hex(4)}.part"
        """The current path of the image."""
        self.received: int = 0
        """The number of appended bytes."""

    def open(self) -> None:
        """Create the temporary file, unless the image was discarded.

        Raises:
            OSError: The file cannot be created.
        """
        with self._lock:
            if not self._discarded:
                # Mode "x" refuses a name that exists, even as a link.
                self._file = self.path.open("xb", buffering=0)

    def append(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            OSError: The bytes cannot be written.
            ValueError: The file is not open.
        """
        with self._lock:
            file = self._opened()
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            self._checksum.update(data)
            self.received += len(data)

    def is_intact(self, expected_checksum: str) -> bool:
        """Return whether the appended data has this checksum."""
        return is_checksum(self._checksum, expected_checksum)

    def keep(self) -> Path:
        """Move the image to its final name, and replace an older file with that name. Return the final path.

        Raises:
            OSError: The file cannot be written or moved.
            ValueError: The file is not open.
        """
        with self._lock:
            file = self._opened()
            os.fsync(file.fileno())
            file.close()
            self.path.replace(self._target)
            self._kept, self.path = True, self._target
            _sync_folder(self._target.parent)
        return self._target

    def read(self) -> bytes:
        """Return the whole image."""
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
    """Make the new name survive a power failure, on systems that can synchronize folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some file systems do not support it. The content of the image is already on the disk.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
