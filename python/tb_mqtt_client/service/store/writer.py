"""Puts data into a store without a client, for programs that end at once: the next client sends it."""

from __future__ import annotations

from typing import Any

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.option_values import Priority
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.telemetry_metadata import TelemetryMetadata
from tb_mqtt_client.entities.store import Store
from tb_mqtt_client.service.store.bounds import Bounds, full_error
from tb_mqtt_client.service.store.log import PRIORITIES
from tb_mqtt_client.service.store.native_log import open_log, owner_of

FILE_BYTES = 8 * 2**20
"""Bytes of one file of the log."""


class StoreWriter:
    """An open store, and data that is collected for it. Its methods wait for the disk."""

    def __init__(self, options: Store, config: DeviceConfig, *, waits: bool = False) -> None:
        """Open a store for writing; it is created if there is none.

        Args:
            options: Where the store is, and how much it may take.
            config: The platform and the credential that the data is for.
            waits: Whether to wait while another process has the store. This cannot be interrupted.

        Raises:
            StoreError: Another process has the store, or it is not a store of this platform and credential.
            OSError: The disk failed.
        """
        self._options = options
        self._round_floats = config.round_floats
        self._log = open_log(options.path, owner_of(config), FILE_BYTES, waits=waits)
        self._bounds = Bounds(options, self._log)
        self._collected: list[tuple[EncodedUplink, int, int]] = []
        """The sends with their priority and expiry, as the log has them."""
        self._devices: dict[tuple[str, str], DeviceIdentity] = {}
        self.written: int = 0
        """Datapoints that were written."""

    @property
    def in_store(self) -> int:
        """Datapoints in the store that no client has sent."""
        return self._log.backlog_datapoints

    def add_timeseries(
        self,
        data: Any,
        device: str | None,
        profile: str,
        priority: Priority = Priority.NORMAL,
        expires_ms: int = 0,
        *,
        metadata: TelemetryMetadata | None = None,
    ) -> None:
        """Collect timeseries.

        Args:
            data: What ``DeviceClient.send_timeseries`` accepts.
            device: The name of a sub-device; ``None`` for the connected device.
            profile: The profile of the sub-device, if it is new.
            priority: The priority with which the next client sends the data.
            expires_ms: When the data expires, in milliseconds since the epoch; 0 for never.
            metadata: Of a sub-device's timeseries, see ``GatewayClient.send_device_timeseries``.

        Raises:
            ValueError: The platform cannot store a key, a value or a time, or can never have this device.
        """
        described = None if metadata is None else (metadata.connector, metadata.received_ts)
        identity = self._identity(device, profile)
        encoded = EncodedUplink.timeseries(data, now_ms(), identity, self._round_floats, described)
        self._collect(encoded, priority, expires_ms)

    def add_attributes(
        self, data: Any, device: str | None, profile: str, priority: Priority = Priority.NORMAL, expires_ms: int = 0
    ) -> None:
        """Collect client attributes, see ``add_timeseries``."""
        self._collect(EncodedUplink.attributes(data, self._identity(device, profile), self._round_floats), priority, expires_ms)

    def _collect(self, encoded: EncodedUplink, priority: Priority, expires_ms: int) -> None:
        self._collected.append((encoded, PRIORITIES.index(priority), expires_ms))

    def _identity(self, name: str | None, profile: str) -> DeviceIdentity | None:
        if name is None:
            return None
        identity = self._devices.get((name, profile))
        if identity is None:
            device = DeviceConnectMessage.build(name, profile)
            identity = self._devices[name, profile] = DeviceIdentity(device.device_name, device.device_profile)
        return identity

    def write(self) -> None:
        """Write the collected data to disk, all of it or nothing.

        Raises:
            StoreFullError: It does not fit in the store.
            OSError: The disk failed, or has too little free space.
        """
        collected = self._collected
        if not collected:
            return
        nbytes = sum(uplink.nbytes for uplink, _, _ in collected)
        if not self._bounds.fits(nbytes):
            raise full_error(self._options)
        self._bounds.check(nbytes)
        accepted = now_ms()
        sends = [
            (uplink, number, accepted, priority, expires_ms)
            for number, (uplink, priority, expires_ms) in enumerate(collected, self._log.next_number)
        ]
        self._log.commit(sends, [])
        self._log.release([number for _, number, _, _, _ in sends])
        self.written += sum(uplink.datapoints for uplink, _, _ in collected)
        self._collected = []

    def close(self) -> None:
        """Close the store, so that a client can open it. Collected data that was not written is lost."""
        self._log.close()
