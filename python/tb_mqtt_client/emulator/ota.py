"""Firmware and software packages and their assignment to devices (docs/platform_contract.md, section 7)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from tb_mqtt_client.emulator import attributes
from tb_mqtt_client.emulator.checksums import checksum
from tb_mqtt_client.emulator.devices import Device

OtaKind: TypeAlias = Literal["fw", "sw"]

# The attributes that unassigning a package deletes.
_ALL_KEYS: Final = ("title", "version", "ts", "state", "size", "checksum", "checksum_algorithm", "url", "tag")


class OtaError(Exception):
    """A chunk cannot be served. The platform publishes the message on v2/fw/error, also for software, and disconnects."""


@dataclass(frozen=True, eq=False)
class OtaPackage:
    """A firmware or software package, with either data or a URL.

    Args:
        title: The title.
        version: The version.
        data: The content.
        kind: ``"fw"`` for firmware or ``"sw"`` for software.
        checksum_algorithm: The algorithm of the checksum, for example ``"SHA256"`` or ``"CRC32"``.
        tag: The tag, or None.
        url: The location of a package that is kept elsewhere.

    Raises:
        ValueError: The package has both data and a URL or neither, or the kind or the checksum algorithm is unknown.
    """

    title: str
    version: str
    data: bytes | None = None
    kind: OtaKind = "fw"
    checksum_algorithm: str = "SHA256"
    tag: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("fw", "sw"):
            raise ValueError(f"kind must be 'fw' or 'sw', not {self.kind!r}")
        if (self.data is None) == (self.url is None):
            raise ValueError("a package needs either data or a url")
        checksum(self.checksum_algorithm, b"")

    def shared_attributes(self) -> dict[str, Any]:
        """Return the shared attributes that announce the package.

        Returns:
            The values by key, for example ``fw_title``.
        """
        values: dict[str, Any] = {"title": self.title, "version": self.version}
        if self.tag:
            values["tag"] = self.tag
        if self.data is None:
            values["url"] = self.url
        else:
            values["size"] = len(self.data)
            values["checksum_algorithm"] = self.checksum_algorithm
            values["checksum"] = checksum(self.checksum_algorithm, self.data)
        return {f"{self.kind}_{key}": value for key, value in values.items()}

    def absent_attributes(self) -> list[str]:
        """Return the attributes that a previous package may have set and this package does not have.

        Returns:
            The keys, for example ``fw_url``.
        """
        absent = [] if self.tag else ["tag"]
        absent += ["url"] if self.data is not None else ["size", "checksum", "checksum_algorithm"]
        return [f"{self.kind}_{key}" for key in absent]


class Packages:
    """The packages assigned to devices, and the platform's cache of package data."""

    def __init__(self) -> None:
        self._assigned: dict[tuple[Device, str], OtaPackage] = {}
        self._cached: set[OtaPackage] = set()

    async def assign(
        self, device: Device, package: OtaPackage, *, update_first: bool, gap: float, missing: Collection[str]
    ) -> bool:
        """Send the deletion and the update in one of the two orders. Return False if the device is not subscribed.

        During the `gap` seconds between them, attribute requests find neither the keys in `missing` nor keys that are not
        stored yet, because the platform stores one attribute after the other.
        """
        self._assigned[device, package.kind] = package
        values = package.shared_attributes()
        device.shared_attributes.update((key, value) for key, value in values.items() if key not in missing)
        for key in missing:
            device.shared_attributes.pop(key, None)
        if update_first:
            sent = attributes.send_update(device, values)
        else:
            attributes.delete_shared(device, package.absent_attributes())
        if gap:
            await asyncio.sleep(gap)
        if update_first:
            device.shared_attributes.update(values)
            attributes.delete_shared(device, package.absent_attributes())
        else:
            sent = attributes.set_shared(device, values)
        return sent

    def unassign(self, device: Device, kind: str) -> bool:
        """Unassign a package and delete its attributes. Return False if the device is not subscribed."""
        self._assigned.pop((device, kind), None)
        return attributes.delete_shared(device, [f"{kind}_{key}" for key in _ALL_KEYS])

    def request(self, device: Device, kind: str) -> OtaPackage:
        """Return the assigned package and load its data into the cache. Raise `OtaError` if it cannot be served."""
        package = self._assigned.get((device, kind))
        if package is None:
            raise OtaError("NOT_FOUND")
        if package.data is None:
            raise OtaError("FAILURE")
        self._cached.add(package)
        return package

    def chunk(self, package: OtaPackage, size: int, number: int) -> bytes:
        """Return a chunk; it is empty past the end of the data or if the package is not in the cache."""
        data = package.data if package in self._cached and package.data is not None else b""
        return data[size * number : size * (number + 1)] if size > 0 else data

    def evict(self) -> None:
        """Empty the cache."""
        self._cached.clear()

    def forget(self, device: Device) -> None:
        """Forget the assignments of a deleted device."""
        self._assigned = {key: package for key, package in self._assigned.items() if key[0] is not device}
