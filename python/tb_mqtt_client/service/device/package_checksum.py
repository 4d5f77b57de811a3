"""Checksums as the platform writes them: Guava's ``HashCode.toString()`` (platform_contract.md, section 7).

That is the hex of the value's bytes. Those of CRC32 and Murmur3 are little-endian and have their full width, leading zeros
included; Murmur3 is the x86 variant with 32 bits or the x64 variant with 128, seed 0.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from importlib import import_module
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
