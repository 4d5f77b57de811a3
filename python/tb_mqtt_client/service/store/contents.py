"""The contents of a store, read without a client and without changing anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tb_mqtt_client._native import EncodedUplink, StoreLog, pack_timeseries
from tb_mqtt_client.service.store.log import ATTRIBUTES, HIGH, LOW, NORMAL

QUARANTINE = "quarantine"
"""The folder of a store with the bytes that could not be read."""
LARGEST_PAYLOAD = 2**40
"""Bytes of a payload into which any send fits."""
READ_BYTES = 2**20
"""Encoded bytes that are read at a time."""
READ_SENDS = 10_000
"""Sends that are read at a time."""


class StoredRecord(NamedTuple):
    """Datapoints of a send with one time and different keys."""

    device: str | None
    """The name of the sub-device; ``None`` for the connected device."""
    ts: int | None
    """Milliseconds since the epoch; ``None`` for attributes, and for telemetry that the platform is to stamp."""
    values: dict[str, Any]


class StoredSend(NamedTuple):
    """A send that is in a store, and not settled."""

    uplink: EncodedUplink
    number: int
    accepted_ms: int
    """When it was accepted, in milliseconds since the epoch."""
    priority: int
    """An index of ``PRIORITIES``."""
    expires_ms: int
    """When it expires, in milliseconds since the epoch; 0 for never."""

    @property
    def device(self) -> str | None:
        """The name of the sub-device; ``None`` for the connected device."""
        device = self.uplink.device
        return None if device is None else device.name

    @property
    def profile(self) -> str | None:
        """The profile of the sub-device; ``None`` for the connected device."""
        device = self.uplink.device
        return None if device is None else device.profile

    def metadata(self) -> dict[str, Any] | None:
        """Return ``connector`` and ``receivedTs`` of the timeseries of a sub-device; ``None`` if they have no metadata."""
        uplink = self.uplink
        if not uplink.has_device or not uplink.timeseries_count:
            return None
        # Only packed records show it.
        [payload, *_] = pack_timeseries([uplink], gateway=True, max_size=LARGEST_PAYLOAD, now_ms=0).payloads
        [[record, *_]] = json.loads(payload.data).values()
        if "ts" not in record or "metadata" not in record:
            return None
        return {name: value for name, value in record["metadata"].items() if name != "publishedTs"}

    def timeseries(self) -> Iterator[StoredRecord]:
        """Yield the timeseries of the send as records, in order."""
        uplink, device = self.uplink, self.device
        ts: int | None = None
        values: dict[str, Any] = {}
        for entry in uplink.timeseries_entries():
            entry_ts = uplink.main_ts if entry.ts is None else entry.ts
            if values and (entry_ts != ts or entry.key in values):
                yield StoredRecord(device, ts, values)
                values = {}
            ts = entry_ts
            values[entry.key] = entry.value
        if values:
            yield StoredRecord(device, ts, values)

    def attributes(self) -> StoredRecord | None:
        """Return the attributes of the send, or ``None`` if it has none."""
        values = {entry.key: entry.value for entry in self.uplink.attribute_entries()}
        return StoredRecord(self.device, None, values) if values else None


class StoredDevice(NamedTuple):
    """The sends of one device that are in a store."""

    name: str | None
    """The name of the sub-device; ``None`` for the connected device."""
    profile: str | None
    sends: int
    datapoints: int
    nbytes: int
    oldest_ms: int | None
    """When the oldest of them was accepted, in milliseconds since the epoch."""


class Fault(NamedTuple):
    """A part of a file that cannot be read."""

    file: str
    offset: int
    nbytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of reading every byte of a store."""

    files: int
    frames: int
    """Parts of the files whose checksum is correct."""
    nbytes: int
    """Bytes of these parts."""
    faults: list[Fault]


class StoreContents:
    """Reads a store, and does not change it: a client may use it at the same time.

    The contents are those at the time of opening. Data that the client sends afterwards may still be in them.
    """

    def __init__(self, path: str) -> None:
        """Open a store of any platform and credential.

        Args:
            path: The directory.

        Raises:
            OSError: The path has no store, or the store has a newer format or cannot be read.
        """
        self.path = path
        self._log = StoreLog.open(path, "", read_only=True)
        self.owner: str = self._log.owner
        """The platform and the credential that the data is for."""
        recovered = self._log.recovered
        self.sends: int = recovered.sends
        self.datapoints: int = recovered.datapoints
        self.nbytes: int = recovered.bytes
        """Encoded bytes of the datapoints."""
        self.oldest_ms: int | None = recovered.oldest_ms
        self.disk_bytes: int = self._log.disk_bytes
        """Bytes of the files."""
        self.damaged_places: int = self._log.damaged_places
        """The number of unreadable parts that were found while opening; `verify` does not list them again, except `obstacles`."""
        self.obstacles: list[str] = self._log.obstacles
        """Those of these places that are not files; `verify` lists them."""
        self.damaged_bytes: int = self._log.damaged_bytes
        """Bytes of these parts."""

    def __enter__(self) -> StoreContents:
        """Return this object."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self._log.close()

    def quarantined(self) -> tuple[int, int]:
        """Return the number of files with bytes that could not be read when the store was opened by a client, and their bytes."""
        folder = Path(self.path) / QUARANTINE
        try:
            sizes = [entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()]
        except FileNotFoundError:
            return 0, 0
        return len(sizes), sum(sizes)

    def devices(self) -> list[StoredDevice]:
        """Return the totals of each device, by name; the connected device is the first."""
        return [
            StoredDevice(
                None if device is None else device.name,
                None if device is None else device.profile,
                sends,
                datapoints,
                nbytes,
                oldest,
            )
            for device, sends, datapoints, nbytes, oldest in self._log.devices()
        ]

    def batches(self, *, attributes: bool) -> Iterator[list[StoredSend]]:
        """Yield the sends with attributes, or those without, oldest first and many at a time. Each send is yielded once."""
        lanes = (ATTRIBUTES,) if attributes else (HIGH, NORMAL, LOW)
        while sends := self._log.read(READ_BYTES, READ_SENDS, lanes):
            yield [StoredSend._make(send) for send in sends]

    def verify(self) -> Verification:
        """Read every byte of the files, and check the checksums and the form of the datapoints."""
        files, frames, nbytes, faults = self._log.verify()
        return Verification(files, frames, nbytes, [Fault(*fault) for fault in faults])
