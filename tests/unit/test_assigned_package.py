"""Packages described by shared attributes, and file names made of their titles."""

import copy
import pickle
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client.constants.firmware import REQUIRED_SHARED_KEYS, FirmwareStates, PackageKind, package_keys
from tb_mqtt_client.entities.data.assigned_package import AssignedPackage

IMAGE = {
    "fw_title": "title",
    "fw_version": "1.0",
    "fw_size": 5,
    "fw_checksum": "abc",
    "fw_checksum_algorithm": "SHA256",
}


def firmware(**attributes):
    return AssignedPackage.from_attributes(PackageKind.FIRMWARE, IMAGE | attributes)


def named(title):
    return AssignedPackage(PackageKind.FIRMWARE, title, "1").file_name


def test_names():
    assert {state.name: state.value for state in FirmwareStates} == {
        name: name for name in ("IDLE", "DOWNLOADING", "DOWNLOADED", "VERIFIED", "UPDATING", "UPDATED", "FAILED")
    }
    assert REQUIRED_SHARED_KEYS == ["fw_checksum", "fw_checksum_algorithm", "fw_size", "fw_title", "fw_version"]
    assert package_keys(PackageKind.FIRMWARE)[:5] == REQUIRED_SHARED_KEYS
    assert package_keys(PackageKind.SOFTWARE)[5:] == ["sw_tag", "sw_url"]


def test_a_firmware_image():
    assert firmware(fw_tag="stable") == AssignedPackage(PackageKind.FIRMWARE, "title", "1.0", 5, "abc", "SHA256", "stable")


def test_a_software_image():
    attributes = {key.replace("fw", "sw"): value for key, value in IMAGE.items()}
    package = AssignedPackage.from_attributes(PackageKind.SOFTWARE, attributes | {"fw_title": "another"})
    assert (package.kind, package.title) == (PackageKind.SOFTWARE, "title")


@pytest.mark.parametrize("attributes", [{}, {"fw_size": 5, "fw_tag": "x"}, {"sw_title": "t", "sw_version": "1"}])
def test_no_package_is_assigned(attributes):
    assert AssignedPackage.from_attributes(PackageKind.FIRMWARE, attributes) is None


def test_contract_9_ota_a_url_needs_no_size_and_no_checksum():
    package = AssignedPackage.from_attributes(PackageKind.FIRMWARE, {"fw_title": "t", "fw_version": "1", "fw_url": "u"})
    assert package == AssignedPackage(PackageKind.FIRMWARE, "t", "1", url="u")
    assert firmware(fw_url="u").size is None


@pytest.mark.parametrize("size", [5, "5", "005"])
def test_defect_61_sizes_may_be_texts(size):
    assert firmware(fw_size=size).size == 5


@pytest.mark.parametrize("key", REQUIRED_SHARED_KEYS)
def test_the_error_names_a_missing_attribute(key):
    with pytest.raises(ValueError, match=f"^the attribute {key} is missing$"):
        firmware(**{key: None})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fw_title", ""),
        ("fw_title", 5),
        ("fw_version", []),
        ("fw_tag", ""),
        ("fw_checksum", 12),
        ("fw_checksum_algorithm", {}),
        ("fw_url", 5),
        ("fw_size", True),
        ("fw_size", -1),
        ("fw_size", 0),
        ("fw_size", "0"),
        ("fw_size", 1.5),
        ("fw_size", "1e3"),
        ("fw_size", "٥"),
        ("fw_size", ""),
    ],
)
def test_the_error_names_an_invalid_attribute(key, value):
    with pytest.raises(ValueError, match=f"^the attribute {key} must be"):
        firmware(**{key: value})


def test_packages_can_be_copied_and_pickled():
    assert copy.deepcopy(firmware()) == pickle.loads(pickle.dumps(firmware())) == firmware()


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("firmware.bin", "firmware.bin"),
        ("with blank é", "with blank é"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\windows\\system32\\a.dll", "a.dll"),
        ("C:evil.exe", "evil.exe"),
        ("C:\\evil.exe", "evil.exe"),
        ("\\\\server\\share\\evil.exe", "evil.exe"),
        ("sensor: main", "sensor_ main"),
        ("file.txt:stream", "file.txt_stream"),
        (".hidden", ".hidden"),
        ("CONSOLE", "CONSOLE"),
        ("folder/", "folder"),
        ("name. .", "name"),
    ],
)
def test_defect_63_only_the_base_name_of_a_title_is_used(title, name):
    assert named(title) == name


@pytest.mark.parametrize(
    "title",
    [
        "..", ".", "/", "\\", "../..", "a/..", "C:", "C:\\", "...", " ", ". .", "\0", "a\0b", "a\nb", "\x7f", "a\ud800", "CON",
        "nul.txt", "com1", "LPT9.bin", "aux .x", "x" * 201, "é" * 101, "\\\\server\\share",
    ],
)  # fmt: skip
def test_defect_63_titles_that_are_not_file_names_are_refused(title):
    with pytest.raises(ValueError, match=r"^fw_title"):
        named(title)


@given(st.text(min_size=1))
def test_defect_63_the_file_stays_in_its_folder(title):
    """Any title is refused or makes one component of a path, on POSIX and on Windows."""
    try:
        name = named(title)
    except ValueError:
        return
    folder = Path("/folder")
    assert (folder / name).parent == folder
    assert PurePosixPath(name).name == PureWindowsPath(name).name == name
    assert not PureWindowsPath(name).drive
    assert name not in {".", ".."}
    assert not set(name) & {"/", "\\", "\0", ":"}
