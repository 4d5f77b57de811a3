"""What SDK 1.x documents of its limits, codes and checksums, as tables; see docs/differences-1x.md for what differs."""

import hashlib
import subprocess
import sys
import zlib

import pytest

import sdk_utils
from tb_device_mqtt import GreedyTokenBucket, RateLimit, TBFirmwareState, TBPublishInfo, TBSendMethod

WINDOWS = {
    "10:1": {1: 8},
    "10:1,60:60": {1: 8, 60: 48},
    "10:1;60:60": {1: 8, 60: 48},
    " 10 : 1 , 60:60 ": {1: 8, 60: 48},
    "60:60,10:1": {1: 8, 60: 48},
    "1:1": {1: 1},
    "": {},
    "0:0": {},
    "10:0": {},
    "nonsense": {},
    "nonsense,10:1": {1: 8},
}


@pytest.mark.parametrize(("text", "windows"), WINDOWS.items())
def test_windows_of_a_limit(text, windows):
    limit = RateLimit(text)
    shown = {int(seconds): one["capacity"] for seconds, one in limit.__dict__["rateLimits"].items()}
    assert shown == windows
    assert limit.has_limit() is bool(windows)
    assert limit.get_minimal_limit() == min(windows.values(), default=0)
    assert limit.__dict__["no_limit"] is not bool(windows)


def test_a_wrong_window_is_logged(caplog):
    RateLimit("nonsense,10:1")
    assert "'nonsense'" in caplog.text


@pytest.mark.parametrize(("percentage", "capacity"), [(100, 10), (80, 8), (50, 5), (5, 1)])
def test_the_share_of_a_limit(percentage, capacity):
    assert RateLimit("10:1", "name", percentage).get_minimal_limit() == capacity


def test_a_limit_is_reached_counted_and_copied():
    limit = RateLimit("10:1000,60:60000", "messages", 100)
    assert limit.check_limit_reached() is False
    limit.increase_rate_limit_counter(10)
    assert limit.check_limit_reached() == (10, 1000)
    copied = RateLimit(limit.__dict__)
    assert (copied.name, copied.percentage, copied.check_limit_reached()) == ("messages", 100, (10, 1000))
    # What was used stays used.
    limit.set_limit("20:1000", 100)
    assert limit.check_limit_reached(11) == (20, 1000)
    assert limit.check_limit_reached(10) is False
    assert limit.reach_limit()[0] == 0
    assert limit.check_limit_reached() == (20, 1000)


@pytest.mark.parametrize("word", ["DEFAULT_MESSAGES_RATE_LIMIT", "DEFAULT_TELEMETRY_RATE_LIMIT", "DEFAULT_TELEMETRY_DP_RATE_LIMIT"])
@pytest.mark.parametrize(
    ("host", "is_cloud"),
    [
        ("thingsboard.cloud", True),
        ("mqtt.thingsboard.cloud", True),
        ("demo.thingsboard.io", True),
        ("tb.my.cloud", True),
        ("localhost", False),
        ("thingsboard.example.com", False),
    ],
)
def test_the_default_depends_on_the_host(word, host, is_cloud):
    of_cloud = "10:1,300:60" if "_DP_" in word else "10:1,60:60"
    wanted = of_cloud if is_cloud else "0:0"
    assert RateLimit.get_rate_limit_by_host(host, word) == RateLimit.get_dp_rate_limit_by_host(host, word) == wanted
    assert RateLimit.get_rate_limits_by_host(host, word, "5:1") == (wanted, "5:1")


def test_a_bucket():
    bucket = GreedyTokenBucket(10, 100_000)
    assert (bucket.capacity, bucket.duration) == (10, 100_000)
    assert bucket.consume(4)
    assert bucket.can_consume(6)
    assert not bucket.consume(7)
    assert bucket.get_remaining_tokens() == pytest.approx(6, abs=0.1)


class PahoMessage:
    """A message of paho: ``wait_for_publish`` raises for one that was not sent."""

    def __init__(self, rc, mid):
        self.rc, self.mid = rc, mid

    def wait_for_publish(self, timeout=None): ...


@pytest.mark.parametrize(
    ("messages", "rc", "mid"),
    [
        ([], 0, []),
        ([PahoMessage(0, 1)], 0, [1]),
        ([PahoMessage(0, 1), PahoMessage(4, 2), PahoMessage(7, 3)], 4, [1, 2, 3]),
        (PahoMessage(0, 5), 0, 5),
        (PahoMessage(15, 5), 15, 5),
    ],
)
def test_a_result_has_the_first_code_that_is_not_0(messages, rc, mid):
    info = TBPublishInfo(messages)
    assert (info.rc(), info.mid(), info.get()) == (rc, mid, rc)


def test_values_of_enumerations():
    assert {one.name: one.value for one in TBSendMethod} == {"SUBSCRIBE": 0, "PUBLISH": 1, "UNSUBSCRIBE": 2}
    states = {"IDLE", "DOWNLOADING", "DOWNLOADED", "VERIFIED", "UPDATING", "UPDATED", "FAILED"}
    assert {one.value for one in TBFirmwareState} == states
    assert set(TBPublishInfo.ERRORS_DESCRIPTION) == set(range(-1, 17))


IMAGE = b"image" * 100
CHECKSUMS = {
    "MD5": hashlib.md5(IMAGE).hexdigest(),
    "sha256": hashlib.sha256(IMAGE).hexdigest().upper(),
    "SHA384": hashlib.sha384(IMAGE).hexdigest(),
    "SHA512": hashlib.sha512(IMAGE).hexdigest(),
    # The platform writes the bytes of this one in the other order.
    "CRC32": zlib.crc32(IMAGE).to_bytes(4, "little").hex(),
}


@pytest.mark.parametrize(("algorithm", "checksum"), CHECKSUMS.items())
def test_checksums_of_firmware(algorithm, checksum):
    assert sdk_utils.verify_checksum(IMAGE, algorithm, checksum) is True
    assert sdk_utils.verify_checksum(IMAGE + b"x", algorithm, checksum) is False


@pytest.mark.parametrize("arguments", [(None, "MD5", "00"), (IMAGE, None, "00"), (IMAGE, "MD5", None), (IMAGE, "ROT13", "00")])
def test_a_checksum_that_cannot_be_verified_is_false(arguments):
    assert sdk_utils.verify_checksum(*arguments) is False


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("package",), ["--upgrade", "package"]),
        (("package", "Upgrade"), ["--upgrade", "package"]),
        (("package", "1.2"), ["package==1.2"]),
    ],
)
def test_a_package_is_installed_with_pip_of_the_same_environment(monkeypatch, arguments, wanted):
    commands = []
    monkeypatch.setattr(subprocess, "check_call", lambda command, **_: commands.append(command))
    sdk_utils.install_package(*arguments)
    assert commands == [[sys.executable, "-m", "pip", "install", *wanted]]
