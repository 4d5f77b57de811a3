"""The firmware or software package that the platform assigned to the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any, Self

from tb_mqtt_client.constants.firmware import PackageKind

# Windows opens a device instead of a file for these names, with any extension.
_DEVICE_NAMES = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"}
)
LONGEST_FILE_NAME = 200
"""Bytes. File systems allow 255, and the name of a partial file is longer."""


class IncompletePackageError(ValueError):
    """An attribute that every package has is missing. The platform may still be storing it."""


@dataclass(frozen=True)
class AssignedPackage:
    """A package as the shared attributes describe it."""

    kind: PackageKind
    """Firmware or software."""
    title: str
    """The title of the package."""
    version: str
    """The version of the package."""
    size: int | None = None
    """The size of the image in bytes; ``None`` with a ``url``."""
    checksum: str | None = None
    """The checksum of the image as hexadecimal digits; ``None`` with a ``url``."""
    checksum_algorithm: str | None = None
    """The name of the checksum's algorithm, such as ``SHA256``; ``None`` with a ``url``."""
    tag: str | None = None
    """The tag of the package, if it has one."""
    url: str | None = None
    """The address from which the application downloads the image; ``None`` if the image is stored on the platform."""

    @classmethod
    def from_attributes(cls, kind: PackageKind, attributes: Mapping[str, Any]) -> Self | None:
        """Read a package from shared attributes.

        Args:
            kind: Firmware or software.
            attributes: The shared attributes, such as ``{"fw_title": "t", "fw_version": "1.0", ...}``; others are ignored.

        Returns:
            The package, or ``None`` if no package is assigned.

        Raises:
            IncompletePackageError: A required attribute is missing.
            ValueError: An attribute has an invalid value.
        """
        given = {name: attributes.get(f"{kind}_{name}") for name in ("title", "version", "tag", "url")}
        if given["title"] is None and given["version"] is None:
            return None
        title, version = (_text(f"{kind}_{name}", given[name]) for name in ("title", "version"))
        tag = None if given["tag"] is None else _text(f"{kind}_tag", given["tag"])
        if given["url"] is not None:
            return cls(kind, title, version, tag=tag, url=_text(f"{kind}_url", given["url"]))
        return cls(
            kind,
            title,
            version,
            size=_size(f"{kind}_size", attributes.get(f"{kind}_size")),
            checksum=_text(f"{kind}_checksum", attributes.get(f"{kind}_checksum")),
            checksum_algorithm=_text(f"{kind}_checksum_algorithm", attributes.get(f"{kind}_checksum_algorithm")),
            tag=tag,
        )

    @property
    def file_name(self) -> str:
        """The name of a file for the image, made of the title.

        Everything up to the last slash or backslash, and a drive letter, is removed, so that the file stays in its folder. A colon
        becomes ``_``, because Windows would write into a hidden stream of the file.

        Raises:
            ValueError: The title cannot be used as a file name.
        """
        name = PureWindowsPath(self.title).name.rstrip(". ").replace(":", "_")
        if not name or any(not character.isprintable() for character in name):
            raise ValueError(f"{self.kind}_title {self.title!r} cannot be used as a file name")
        if name.partition(".")[0].rstrip().upper() in _DEVICE_NAMES:
            raise ValueError(f"{self.kind}_title {self.title!r} is the name of a device on Windows")
        if len(name.encode()) > LONGEST_FILE_NAME:
            raise ValueError(f"{self.kind}_title is longer than {LONGEST_FILE_NAME} bytes, so it cannot be used as a file name")
        return name


def _text(key: str, value: Any) -> str:
    if value is None:
        raise IncompletePackageError(f"the attribute {key} is missing")
    if not isinstance(value, str) or not value:
        raise ValueError(f"the attribute {key} must be a non-empty str, not {value!r}")
    return value


def _size(key: str, value: Any) -> int:
    """Return a size in bytes. The platform sends an ``int``; a user may have entered the attribute as text."""
    if value is None:
        raise IncompletePackageError(f"the attribute {key} is missing")
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise ValueError(f"the attribute {key} must be a number of bytes, not {value!r}")
    return int(text)
