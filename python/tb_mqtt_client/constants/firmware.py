"""Names of firmware and software updates (docs/platform_contract.md, section 7)."""

from enum import Enum, StrEnum
from typing import Final


class FirmwareStates(Enum):
    """States of an update, as a device reports them to the platform. ``IDLE``, which the platform does not define, is SDK 2.0's."""

    IDLE = "IDLE"
    DOWNLOADING = "DOWNLOADING"
    DOWNLOADED = "DOWNLOADED"
    VERIFIED = "VERIFIED"
    UPDATING = "UPDATING"
    UPDATED = "UPDATED"
    FAILED = "FAILED"


class PackageKind(StrEnum):
    """The two kinds of packages of a device. The value is the prefix of their topics, attributes and telemetry keys."""

    FIRMWARE = "fw"
    SOFTWARE = "sw"


FW_TITLE_ATTR: Final = "fw_title"
FW_VERSION_ATTR: Final = "fw_version"
FW_CHECKSUM_ATTR: Final = "fw_checksum"
FW_CHECKSUM_ALG_ATTR: Final = "fw_checksum_algorithm"
FW_SIZE_ATTR: Final = "fw_size"
FW_STATE_ATTR: Final = "fw_state"

REQUIRED_SHARED_KEYS: Final = [FW_CHECKSUM_ATTR, FW_CHECKSUM_ALG_ATTR, FW_SIZE_ATTR, FW_TITLE_ATTR, FW_VERSION_ATTR]
"""Shared attributes of a firmware whose image is stored on the platform."""


def package_keys(kind: PackageKind) -> list[str]:
    """Return the keys of the shared attributes that describe a package, such as ``fw_title``."""
    names = ("checksum", "checksum_algorithm", "size", "title", "version", "tag", "url")
    return [f"{kind}_{name}" for name in names]
