"""Firmware and software packages in the emulator (docs/platform_contract.md, section 7)."""

import hashlib
import json

import pytest
from raw_mqtt import raw_client

from tb_mqtt_client.emulator import Emulator, OtaPackage
from tb_mqtt_client.emulator.checksums import checksum, murmur3_x64_128, murmur3_x86_32

DATA = bytes(range(256)) * 4
ATTRIBUTES = "v1/devices/me/attributes"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"a", 0x3C2569B2),
        (b"abc", 0xB3DD93FA),
        (b"hello", 0x248BFA47),
        (b"hello, world", 0x149BBB7F),
        (b"The quick brown fox jumps over the lazy dog", 0x2E4FF723),
        (b"\xff\xff\xff\xff", 0x76293B50),
        (b"\x21\x43\x65\x87", 0xF55B516B),
        (b"\0\0\0", 0x85F0B427),
    ],
)
def test_murmur3_32(data, expected):
    """Compare with published vectors of MurmurHash3_x86_32, seed 0."""
    assert murmur3_x86_32(data) == expected


@pytest.mark.parametrize(
    ("data", "low", "high"),
    [
        (b"", 0, 0),
        (b"hello", 0xCBD8A7B341BD9B02, 0x5B1E906A48AE1D19),
        (b"hello, world", 0x342FAC623A5EBC8E, 0x4CDCBC079642414D),
        (b"19 Jan 2038 at 3:14:07 AM", 0xB89E5988B737AFFC, 0x664FC2950231B2CB),
        (b"The quick brown fox jumps over the lazy dog.", 0xCD99481F9EE902C9, 0x695DA1A38987B6E7),
    ],
)
def test_murmur3_128(data, low, high):
    """Compare with published vectors of MurmurHash3_x64_128, seed 0."""
    assert murmur3_x64_128(data) == (low, high)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("MD5", hashlib.md5(b"hello").hexdigest()),
        ("SHA256", hashlib.sha256(b"hello").hexdigest()),
        ("SHA384", hashlib.sha384(b"hello").hexdigest()),
        ("SHA512", hashlib.sha512(b"hello").hexdigest()),
        # CRC32("hello") is 0x3610A686
        ("CRC32", "86a61036"),
        ("MURMUR3_32", "47fa8b24"),
        ("MURMUR3_128", "029bbd41b3a7d8cb191dae486a901e5b"),
    ],
)
def test_the_text_form_of_checksums(algorithm, expected):
    """The text is hexadecimal; the bytes of CRC32 and Murmur3 are little-endian."""
    assert checksum(algorithm, b"hello") == expected


@pytest.mark.parametrize(("algorithm", "digits"), [("CRC32", 8), ("MURMUR3_32", 8), ("MURMUR3_128", 32)])
def test_leading_zeros_are_kept(algorithm, digits):
    found = [checksum(algorithm, str(number).encode()) for number in range(2000)]
    assert {len(one) for one in found} == {digits}
    assert any(one.startswith("0") for one in found)


def attributes_of(package):
    return {
        f"{package.kind}_title": package.title,
        f"{package.kind}_version": package.version,
        f"{package.kind}_size": len(DATA),
        f"{package.kind}_checksum_algorithm": "SHA256",
        f"{package.kind}_checksum": hashlib.sha256(DATA).hexdigest(),
    }


@pytest.mark.parametrize("kind", ["fw", "sw"])
async def test_assignment_deletes_first_then_updates(emulator, kind):
    package = OtaPackage("title", "1.0", DATA, kind=kind)
    async with raw_client(emulator) as client:
        await client.connect()
        assert not await emulator.assign_package("device", package)
        await client.subscribe(ATTRIBUTES)
        assert await emulator.assign_package("device", package)
        assert await client.message() == (ATTRIBUTES, {"deleted": [f"{kind}_tag", f"{kind}_url"]})
        assert await client.message() == (ATTRIBUTES, attributes_of(package))
        assert emulator.device("device").shared_attributes == attributes_of(package)
        assert await emulator.unassign_package("device", kind)
        topic, message = await client.message()
        names = ("title", "version", "ts", "state", "size", "checksum", "checksum_algorithm", "url", "tag")
        assert (topic, set(message["deleted"])) == (ATTRIBUTES, {f"{kind}_{name}" for name in names})
        assert emulator.device("device").shared_attributes == {}


async def test_a_package_with_a_tag_and_one_with_a_url(emulator):
    async with raw_client(emulator) as client:
        await client.connect()
        await client.subscribe(ATTRIBUTES)
        await emulator.assign_package("device", OtaPackage("t", "1", DATA, tag="t 1"))
        assert await client.message() == (ATTRIBUTES, {"deleted": ["fw_url"]})
        assert (await client.message())[1]["fw_tag"] == "t 1"
        await emulator.assign_package("device", OtaPackage("t", "2", url="http://localhost/image"))
        assert await client.message() == (ATTRIBUTES, {"deleted": ["fw_tag", "fw_size", "fw_checksum", "fw_checksum_algorithm"]})
        assert (await client.message())[1] == {"fw_title": "t", "fw_version": "2", "fw_url": "http://localhost/image"}
        assert not {"fw_size", "fw_tag"} & set(emulator.device("device").shared_attributes)


@pytest.mark.parametrize("kind", ["fw", "sw"])
async def test_chunks(emulator, kind):
    """The chunk size is remembered per request id; a chunk past the end is empty."""
    await emulator.assign_package("device", OtaPackage("t", "1", DATA, kind=kind))
    async with raw_client(emulator) as client:
        await client.connect()
        for number, (size, expected) in enumerate([("1000", DATA[:1000]), ("", DATA[1000:]), ("", b""), ("0", b"")]):
            topic, chunk = await client.request(f"v2/{kind}/request/5/chunk/{number}", size)
            assert topic == f"v2/{kind}/response/5/chunk/{number}"
            assert chunk == expected
        for payload in ("", "0"):
            assert (await client.request(f"v2/{kind}/request/6/chunk/0", payload))[1] == DATA


async def test_a_package_sent_in_one_chunk_may_exceed_the_payload_limit(emulator):
    await emulator.assign_package("device", OtaPackage("t", "1", bytes(200_000)))
    async with raw_client(emulator) as client:
        await client.connect()
        assert (await client.request("v2/fw/request/1/chunk/0", ""))[1] == bytes(200_000)


async def test_a_request_id_keeps_its_package(emulator):
    """A reused request id gets the old package until the connection closes."""
    await emulator.assign_package("device", OtaPackage("t", "1", b"old"))
    async with raw_client(emulator) as client:
        await client.connect()
        assert (await client.request("v2/fw/request/1/chunk/0", "10"))[1] == b"old"
        await emulator.assign_package("device", OtaPackage("t", "2", b"new"))
        assert (await client.request("v2/fw/request/1/chunk/0", "10"))[1] == b"old"
        assert (await client.request("v2/fw/request/2/chunk/0", "10"))[1] == b"new"
    async with raw_client(emulator) as client:
        await client.connect()
        assert (await client.request("v2/fw/request/1/chunk/0", "10"))[1] == b"new"


async def test_an_evicted_cache(emulator):
    """A known request id gets empty chunks; a new one loads the data again."""
    await emulator.assign_package("device", OtaPackage("t", "1", DATA))
    async with raw_client(emulator) as client:
        await client.connect()
        assert (await client.request("v2/fw/request/1/chunk/0", "100"))[1] == DATA[:100]
        emulator.evict_package_cache()
        assert (await client.request("v2/fw/request/1/chunk/1", ""))[1] == b""
        assert (await client.request("v2/fw/request/2/chunk/1", "100"))[1] == DATA[100:200]


@pytest.mark.parametrize("kind", ["fw", "sw"])
@pytest.mark.parametrize(
    ("package", "payload", "error"),
    [
        (None, "100", b"NOT_FOUND"),
        ({"url": "http://localhost"}, "100", b"FAILURE"),
        ({"data": DATA}, "65537", b"PAYLOAD_TOO_LARGE"),
    ],
)
async def test_errors_close_the_connection(emulator, kind, package, payload, error):
    """The error is published on v2/fw/error, also for software, and the connection closes without a PUBACK."""
    if package is not None:
        await emulator.assign_package("device", OtaPackage("t", "1", kind=kind, **package))
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish(f"v2/{kind}/request/1/chunk/0", payload)
        assert await client.message() == ("v2/fw/error", error)
        assert await client.read() == (0xE0, b"\x83\0")
        assert await client.read() is None


@pytest.mark.parametrize("payload", ["x", "1.5", "99999999999"])
async def test_the_chunk_size_must_be_a_number(emulator, payload):
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v2/fw/request/1/chunk/0", payload)
        assert await client.read() == (0xE0, b"\x8b\0")


@pytest.mark.parametrize("topic", ["v2/fw/request/x/chunk/0", "v2/fw/request/1/chunk/x", "v2/fw/request/1"])
async def test_invalid_topics(emulator, topic):
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish(topic, "10")
        assert await client.read() == (0x40, b"\0\x01\x90\0")


async def test_a_package_of_a_sub_device(emulator):
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/connect", '{"device":"A"}')
        await client.read()
        package = OtaPackage("t", "1", DATA)
        await emulator.assign_package("A", package)
        deleted = {"device": "A", "data": {"deleted": ["fw_tag", "fw_url"]}}
        assert await client.message() == ("v1/gateway/attributes", deleted)
        assert await client.message() == ("v1/gateway/attributes", {"device": "A", "data": attributes_of(package)})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "either data or a url"),
        ({"data": b"", "url": "x"}, "either data or a url"),
        ({"data": b"", "kind": "hw"}, "kind must be"),
        ({"data": b"", "checksum_algorithm": "SHA1"}, "must be one of MD5"),
    ],
)
def test_invalid_packages(options, match):
    with pytest.raises(ValueError, match=match):
        OtaPackage("t", "1", **options)


async def test_the_chunk_size_limit_is_the_payload_limit(emulator):
    async with Emulator(max_payload_size=1000, accept_any_token=True) as small, raw_client(small) as client:
        await client.connect()
        await small.assign_package("TOKEN", OtaPackage("t", "1", DATA))
        assert (await client.request("v2/fw/request/1/chunk/0", "1000"))[1] == DATA[:1000]
        client.publish("v2/fw/request/2/chunk/0", json.dumps(1001))
        assert await client.message() == ("v2/fw/error", b"PAYLOAD_TOO_LARGE")
