"""Checksums of packages have the form that Guava prints."""

import hashlib
import sys
import zlib
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client.emulator import checksums
from tb_mqtt_client.service.ota.files import is_checksum, known_algorithm, new_checksum

ALGORITHMS = ["MD5", "SHA256", "SHA384", "SHA512", "CRC32", "MURMUR3_32", "MURMUR3_128"]
FOX = b"The quick brown fox jumps over the lazy dog"


def checksum(algorithm, *parts):
    computed = new_checksum(algorithm)
    for part in parts:
        computed.update(part)
    return computed.hexdigest()


# The values are those of Guava's own tests.
@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("MD5", "9e107d9d372bb6826bd81d3542a419d6"),
        ("SHA256", "d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592"),
        ("CRC32", "39a34f41"),
        ("MURMUR3_32", "23f74f2e"),
        ("MURMUR3_128", "6c1b07bc7bbc4be347939ac4a93c437a"),
    ],
)
def test_known_values(algorithm, expected):
    assert checksum(algorithm, FOX) == expected


def test_checksums_of_no_data():
    assert [checksum(algorithm) for algorithm in ALGORITHMS] == [
        hashlib.md5(b"").hexdigest(),
        hashlib.sha256(b"").hexdigest(),
        hashlib.sha384(b"").hexdigest(),
        hashlib.sha512(b"").hexdigest(),
        "00000000",
        "00000000",
        "0" * 32,
    ]


@given(st.sampled_from(ALGORITHMS), st.lists(st.binary(max_size=40), max_size=10))
def test_the_checksum_does_not_depend_on_the_chunks(algorithm, chunks):
    """The checksum of the chunks is the one of the whole image, and has its full width."""
    computed = checksum(algorithm, *chunks)
    assert computed == checksum(algorithm, b"".join(chunks))
    assert len(computed) == len(checksum(algorithm))


@given(st.sampled_from(ALGORITHMS), st.binary(max_size=200))
def test_the_emulator_computes_the_same_checksums(algorithm, data):
    """The emulator has an independent implementation of Murmur3."""
    assert checksum(algorithm, data) == checksums.checksum(algorithm, data)


@pytest.mark.parametrize("algorithm", ["CRC32", "MURMUR3_32", "MURMUR3_128"])
def test_defect_60_contract_9_leading_zeros_are_written(algorithm):
    data = next(data for number in count() if checksum(algorithm, data := b"%d" % number).startswith("00"))
    assert len(checksum(algorithm, data)) == (32 if algorithm == "MURMUR3_128" else 8)
    if algorithm == "CRC32":
        value = f"{zlib.crc32(data):08x}"
        assert checksum(algorithm, data) == value[6:] + value[4:6] + value[2:4] + value[:2]


def test_hexadecimal_digits_in_upper_or_lower_case():
    computed = new_checksum("sha256")
    computed.update(FOX)
    assert is_checksum(computed, hashlib.sha256(FOX).hexdigest().upper())
    assert is_checksum(computed, f" {hashlib.sha256(FOX).hexdigest()}\n")
    assert not is_checksum(computed, hashlib.sha256(b"").hexdigest())
    assert not is_checksum(computed, "")


def test_unknown_algorithms():
    assert not known_algorithm("SHA1")
    with pytest.raises(ValueError, match=r"unknown checksum algorithm 'SHA1'; the known ones are MD5, SHA256"):
        new_checksum("SHA1")


@pytest.mark.parametrize("algorithm", ["MURMUR3_32", "murmur3_128"])
def test_defect_64_a_missing_package_is_named_and_not_installed(monkeypatch, algorithm):
    monkeypatch.setitem(sys.modules, "mmh3", None)
    with pytest.raises(ModuleNotFoundError, match=rf"^{algorithm.upper()} needs the package mmh3: pip install mmh3"):
        new_checksum(algorithm)
