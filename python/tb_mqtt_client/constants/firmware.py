"""Names of firmware and software updates (docs/platform_contract.md, section 7)."""

from enum import Enum, StrEnum
from typing import Final


class FirmwareStates(Enum):
    """What a device says about its update. IDLE is its own: the platform has no word for it."""

    IDLE = "IDLE"
    DOWNLOADING = "DOWNLOADING"
    DOWNLOADED = "DOWNLOADED"
    VERIFIED = "VERIFIED"
    UPDATING = "UPDATING"
    UPDATED = "UPDATED"
    FAILED = "FAILED"


class PackageKind(StrEnum):
    """Which of a device's two packages. Its value begins the names of its topics, attributes and telemetry."""

    FIRMWARE = "fw"
    SOFTWARE = "sw"


FW_TITLE_ATTR: Final = "fw_title"
FW_VERSION_ATTR: Final = "fw_version"
FW_CHECKSUM_ATTR: Final = "fw_checksum"
FW_CHECKSUM_ALG_ATTR: Final = "fw_checksum_algorithm"
FW_SIZE_ATTR: Final = "fw_size"
FW_STATE_ATTR: Final = "fw_state"

REQUIRED_SHARED_KEYS: Final = [FW_CHECKSUM_ATTR, FW_CHECKSUM_ALG_ATTR, FW_SIZE_ATTR, FW_TITLE_ATTR, FW_VERSION_ATTR]
"""Of a firmware whose image the platform has."""


def package_keys(kind: PackageKind) -> list[str]:
    """The shared attributes that describe a package."""
    names = ("checksum", "checksum_algorithm", "size", "title", "version", "tag", "url")
    return [f"{kind}_{name}" for name in names]
