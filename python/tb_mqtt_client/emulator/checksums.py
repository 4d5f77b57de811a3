"""Package checksums in the platform's text form (docs/platform_contract.md, section 7), implemented independently of the client.

Each is the hash in hexadecimal. The bytes of CRC32 and of the two Murmur3 hashes are little-endian; leading zeros are kept.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Final

_MASK_32: Final = 0xFFFFFFFF
_MASK_64: Final = 0xFFFFFFFFFFFFFFFF


def checksum(algorithm: str, data: bytes) -> str:
    """Return the checksum of the data. Raise `ValueError` if the platform does not have the algorithm."""
    if algorithm not in _ALGORITHMS:
        raise ValueError(f"checksum_algorithm must be one of {', '.join(_ALGORITHMS)}, not {algorithm!r}")
    return _ALGORITHMS[algorithm](data)


def murmur3_x86_32(data: bytes) -> int:
    """Return MurmurHash3_x86_32 of the data with seed 0."""
    state = 0
    body = len(data) // 4 * 4
    for offset in range(0, body, 4):
        state ^= _mix_32(int.from_bytes(data[offset : offset + 4], "little"))
        state = (_rotated(state, 13, 32) * 5 + 0xE6546B64) & _MASK_32
    # An empty tail leaves the state unchanged.
    state ^= _mix_32(int.from_bytes(data[body:], "little"))
    state ^= len(data)
    state = (state ^ state >> 16) * 0x85EBCA6B & _MASK_32
    state = (state ^ state >> 13) * 0xC2B2AE35 & _MASK_32
    return state ^ state >> 16


def murmur3_x64_128(data: bytes) -> tuple[int, int]:
    """Return MurmurHash3_x64_128 of the data with seed 0, as two halves of 64 bits."""
    low = high = 0
    body = len(data) // 16 * 16
    for offset in range(0, body, 16):
        low ^= _mix_low(int.from_bytes(data[offset : offset + 8], "little"))
        low = ((_rotated(low, 27, 64) + high) * 5 + 0x52DCE729) & _MASK_64
        high ^= _mix_high(int.from_bytes(data[offset + 8 : offset + 16], "little"))
        high = ((_rotated(high, 31, 64) + low) * 5 + 0x38495AB5) & _MASK_64
    tail = data[body:]
    high ^= _mix_high(int.from_bytes(tail[8:], "little")) ^ len(data)
    low ^= _mix_low(int.from_bytes(tail[:8], "little")) ^ len(data)
    low = (low + high) & _MASK_64
    high = (high + low) & _MASK_64
    low, high = _final_64(low), _final_64(high)
    low = (low + high) & _MASK_64
    return low, (high + low) & _MASK_64


def _mix_32(block: int) -> int:
    return _rotated(block * 0xCC9E2D51 & _MASK_32, 15, 32) * 0x1B873593 & _MASK_32


def _mix_low(block: int) -> int:
    return _rotated(block * 0x87C37B91114253D5 & _MASK_64, 31, 64) * 0x4CF5AD432745937F & _MASK_64


def _mix_high(block: int) -> int:
    return _rotated(block * 0x4CF5AD432745937F & _MASK_64, 33, 64) * 0x87C37B91114253D5 & _MASK_64


def _final_64(half: int) -> int:
    half = (half ^ half >> 33) * 0xFF51AFD7ED558CCD & _MASK_64
    half = (half ^ half >> 33) * 0xC4CEB9FE1A85EC53 & _MASK_64
    return half ^ half >> 33


def _rotated(value: int, bits: int, width: int) -> int:
    return (value << bits | value >> (width - bits)) & ((1 << width) - 1)


def _murmur3_128(data: bytes) -> str:
    low, high = murmur3_x64_128(data)
    return (low.to_bytes(8, "little") + high.to_bytes(8, "little")).hex()


_ALGORITHMS: Final[dict[str, Callable[[bytes], str]]] = {
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
    "SHA256": lambda data: hashlib.sha256(data).hexdigest(),
    "SHA384": lambda data: hashlib.sha384(data).hexdigest(),
    "SHA512": lambda data: hashlib.sha512(data).hexdigest(),
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "little").hex(),
    "MURMUR3_32": lambda data: murmur3_x86_32(data).to_bytes(4, "little").hex(),
    "MURMUR3_128": _murmur3_128,
}
