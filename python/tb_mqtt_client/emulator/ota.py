"""Firmware and software packages, and what the platform sends when one is assigned (docs/platform_contract.md, section 7)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from tb_mqtt_client.emulator import attributes
from tb_mqtt_client.emulator.checksums import checksum
from tb_mqtt_client.emulator.devices import Device

OtaKind: TypeAlias = Literal["fw", "sw"]

# What un-assignment deletes.
_ALL_KEYS: Final = ("title", "version", "ts", "state", "size", "checksum", "checksum_algorithm", "url", "tag")


class OtaError(Exception):
    """What the platform says on v2/fw/error, of software too, before it closes the connection."""


@dataclass(frozen=True, eq=False)
class OtaPackage:
    """A package: its ``data``, or the ``url`` where it is kept, which is then all that the platform has.

    Raises `ValueError` for anything else, and for a checksum algorithm that the platform does not have.
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
            raise ValueError("a package has either data or a url")
        checksum(self.checksum_algorithm, b"")

    def shared_attributes(self) -> dict[str, Any]:
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
        """Keys that an earlier package may have left, and this one does not have."""
        absent = [] if self.tag else ["tag"]
        absent += ["url"] if self.data is not None else ["size", "checksum", "checksum_algorithm"]
        return [f"{self.kind}_{key}" for key in absent]


class Packages:
    """Which package each device has, and the data cache of the platform."""

    def __init__(self) -> None:
        self._assigned: dict[tuple[Device, str], OtaPackage] = {}
        self._cached: set[OtaPackage] = set()

    async def assign(
        self, device: Device, package: OtaPackage, *, update_first: bool, gap: float, missing: Collection[str]
    ) -> bool:
        """Send the deletion and the update, in this order or the other. Returns False when the device is not subscribed.

        For the seconds of `gap` between them, requests find neither the keys in `missing` nor those that a changed package
        still lacks: the platform stores one attribute after the other.
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
        self._assigned.pop((device, kind), None)
        return attributes.delete_shared(device, [f"{kind}_{key}" for key in _ALL_KEYS])

    def request(self, device: Device, kind: str) -> OtaPackage:
        """Find a package and load its data into the cache. Raises `OtaError`."""
        package = self._assigned.get((device, kind))
        if package is None:
            raise OtaError("NOT_FOUND")
        if package.data is None:
            raise OtaError("FAILURE")
        self._cached.add(package)
        return package

    def chunk(self, package: OtaPackage, size: int, number: int) -> bytes:
        """Past the end, and of a package that the cache has lost, nothing."""
        data = package.data if package in self._cached and package.data is not None else b""
        return data[size * number : size * (number + 1)] if size > 0 else data

    def evict(self) -> None:
        self._cached.clear()

    def forget(self, device: Device) -> None:
        self._assigned = {key: package for key, package in self._assigned.items() if key[0] is not device}
