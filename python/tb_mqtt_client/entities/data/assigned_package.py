"""The firmware or software that the platform has assigned to the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any, Self

from tb_mqtt_client.constants.firmware import PackageKind

# Windows opens a device instead of a file for these, whatever the extension.
_DEVICE_NAMES = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"}
)
LONGEST_FILE_NAME = 200
"""Bytes: file systems take 255, and a file that is not whole has a longer name."""


class IncompletePackageError(ValueError):
    """An attribute that every package has is missing. The platform may be about to store it."""


@dataclass(frozen=True)
class AssignedPackage:
    """What the shared attributes say of a package. One with a ``url`` is fetched there by the application."""

    kind: PackageKind
    title: str
    version: str
    size: int | None = None
    """Bytes of the image; ``None`` with a ``url``."""
    checksum: str | None = None
    checksum_algorithm: str | None = None
    tag: str | None = None
    url: str | None = None

    @classmethod
    def from_attributes(cls, kind: PackageKind, attributes: Mapping[str, Any]) -> Self | None:
        """From ``{"fw_title": ..., "fw_version": ..., ...}`` (``sw_...`` alike); ``None`` when nothing is assigned.

        Raises:
            IncompletePackageError: An attribute is missing.
            ValueError: An attribute has a value that it cannot have.
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
        """The title as the name of a file, which stays in its folder whatever the title is.

        What stands before the last slash or backslash, or after a drive letter's colon, is no part of a name; a colon becomes a
        ``_``, since Windows would write into a stream that is hidden. Raises ``ValueError`` when no name is left.
        """
        name = PureWindowsPath(self.title).name.rstrip(". ").replace(":", "_")
        if not name or any(not character.isprintable() for character in name):
            raise ValueError(f"{self.kind}_title {self.title!r} is no name for a file")
        if name.partition(".")[0].rstrip().upper() in _DEVICE_NAMES:
            raise ValueError(f"{self.kind}_title {self.title!r} is the name of a device")
        if len(name.encode()) > LONGEST_FILE_NAME:
            raise ValueError(f"{self.kind}_title is longer than {LONGEST_FILE_NAME} bytes, which is no name for a file")
        return name


def _text(key: str, value: Any) -> str:
    if value is None:
        raise IncompletePackageError(f"the attribute {key} is missing")
    if not isinstance(value, str) or not value:
        raise ValueError(f"the attribute {key} must be a text that is not empty, not {value!r}")
    return value


def _size(key: str, value: Any) -> int:
    """The platform sends a number; what was typed in as text is one too."""
    if value is None:
        raise IncompletePackageError(f"the attribute {key} is missing")
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise ValueError(f"the attribute {key} must be a number of bytes, not {value!r}")
    return int(text)
