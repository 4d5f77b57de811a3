"""Devices as the platform knows them: received data, attributes, RPC and counters."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from tb_mqtt_client.emulator.values import StoredDatapoint, StoredValue, keys_are_valid, stored, ts_is_stored

DEFAULT_PROFILE: Final = "default"
DEFAULT_CLAIM_DURATION_MS: Final = 24 * 60 * 60 * 1000


# The telemetry of one timestamp: (milliseconds, {key: value}), nulls included.
Record: TypeAlias = tuple[int, dict[str, Any]]


class Datapoint(NamedTuple):
    """One telemetry value.

    Args:
        ts: The timestamp in milliseconds; the time of arrival if the client sent none.
        key: The key.
        value: The value as the client sent it.
    """

    ts: int
    key: str
    value: Any


class Claim(NamedTuple):
    """A claiming request.

    Args:
        secret_key: The secret key; empty if the client sent none.
        duration_ms: How long the device can be claimed, in milliseconds; 24 hours if the client sent no duration.
    """

    secret_key: str = ""
    duration_ms: int = DEFAULT_CLAIM_DURATION_MS


class RpcResponse(NamedTuple):
    """A reply to a server-side RPC.

    Args:
        id: The request id.
        payload: The payload as received; for a sub-device the JSON of its `data`.
    """

    id: int
    payload: bytes


@dataclass(eq=False)
class PendingRpc:
    """A server-side RPC request that has not ended."""

    id: int
    method: str
    params: Any
    oneway: bool
    # The payload of the reply; None for a one-way request.
    reply: asyncio.Future[bytes | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    # A persisted request stays in the platform's database until the client acknowledges it.
    persisted: bool = False
    sent: bool = False

    def end(self, payload: bytes | None) -> None:
        """Set the reply, unless the request has ended already."""
        if not self.reply.done():
            self.reply.set_result(payload)

    def describe(self) -> str:
        """Return the method and the request id, for error messages."""
        return f"{self.method!r} (id {self.id})"


@dataclass(slots=True)
class Counters:
    """Counts since the start, of one device or of all devices. Sizes are in bytes.

    Publishes and bytes of a gateway count for the gateway, the datapoints in them for the sub-devices.
    """

    # Sessions opened; a sub-device's session opens when the gateway announces the device or sends its data.
    connections: int = 0
    # Refused CONNECTs; counted only for all devices together.
    refused_connections: int = 0
    publishes: int = 0
    payload_bytes: int = 0
    pubacks: int = 0
    # PUBACKs with a reason code of 0x80 or higher, which MQTT 3.1.1 does not carry.
    refusals: int = 0
    largest_remaining_length: int = 0
    # Publishes with telemetry or attributes, and the sum of their remaining lengths.
    data_publishes: int = 0
    data_bytes: int = 0
    # As `telemetryMessages` counts: one per publish of a device, one per device entry of a gateway publish.
    data_messages: int = 0
    telemetry_datapoints: int = 0
    attribute_datapoints: int = 0
    downlinks: int = 0
    downlink_pubacks: int = 0

    @property
    def datapoints(self) -> int:
        """Number of non-null telemetry and attribute values, as `telemetryDataPoints` counts them."""
        return self.telemetry_datapoints + self.attribute_datapoints

    def as_dict(self) -> dict[str, int]:
        """Return all counts by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"datapoints": self.datapoints}


class Carrier(Protocol):
    """The connection of a device: its own, or the connection of its gateway."""

    # The number of the last downlink with QoS 1. The platform does not wrap it; packets carry its lower 16 bits.
    last_downlink_id: int
    ended: asyncio.Event

    def send(self, topic: str, payload: bytes) -> bool:
        """Send a downlink.

        Args:
            topic: The topic.
            payload: The payload.

        Returns:
            False if the topic needs a subscription that the client does not have, or the connection is closing.
        """

    def send_attributes(self, device: Device, values: dict[str, Any]) -> bool:
        """Send an attribute update to a device, through its gateway if it has one.

        Args:
            device: The device.
            values: Values by key, or `{"deleted": [...]}`.

        Returns:
            False if the client is not subscribed, or the connection is closing.
        """

    def send_rpc(self, device: Device, rpc: PendingRpc) -> bool:
        """Send an RPC request to a device, through its gateway if it has one.

        Args:
            device: The device.
            rpc: The request.

        Returns:
            False if the client is not subscribed, or the connection is closing.
        """

    def send_disconnect_notice(self, device: Device, reason: int) -> bool:
        """Notify a gateway of a problem with one of its sub-devices.

        Args:
            device: The sub-device.
            reason: The reason in the notice.

        Returns:
            False if the device has a connection of its own, or the gateway uses MQTT 3.1.1.
        """

    def taken_over(self, device: Device) -> None:
        """Release a device that has a newer session: close its own connection, or end its session in the gateway's connection."""

    def device_deleted(self, device: Device) -> None:
        """Release a deleted device: close its own connection, or end its session in the gateway's connection."""

    def write(self, packet: bytes) -> None:
        """Send bytes unchanged."""

    def close(self, reason_code: int | None = None) -> None:
        """Close the connection.

        Args:
            reason_code: The reason code of a DISCONNECT to send first; MQTT 3.1.1 clients do not get it.
        """

    def abort(self) -> None:
        """Close the connection immediately and discard unsent bytes."""


@dataclass(slots=True, eq=False)
class Device:
    """A device, gateway or sub-device, with the data that it sent and its state on the platform."""

    name: str
    is_gateway: bool = False
    profile: str = DEFAULT_PROFILE
    counters: Counters = field(default_factory=Counters)
    # The newest client attributes, without nulls and without messages that contained a key that the platform does not store.
    attributes: dict[str, Any] = field(default_factory=dict)
    # Set by the test or by an assigned package.
    shared_attributes: dict[str, Any] = field(default_factory=dict)
    # (ts, values) in order of arrival; empty with `keep_data=False`.
    records: deque[Record] = field(default_factory=deque)
    # The `metadata` that gateways sent with telemetry of this device, in order of arrival; empty with `keep_data=False`.
    metadata: deque[dict[str, Any]] = field(default_factory=deque)
    claims: list[Claim] = field(default_factory=list)
    rpc_responses: deque[RpcResponse] = field(default_factory=deque)
    # True once /provision/request has succeeded for the device, which is possible only once.
    provisioned: bool = False
    # The gateway that last announced the device.
    gateway: Device | None = field(default=None, repr=False)
    # The connection of the device: its own, or that of its gateway.
    session: Carrier | None = field(default=None, repr=False)

    @property
    def connected(self) -> bool:
        """True if the device has a session."""
        return self.session is not None

    @property
    def telemetry(self) -> list[Datapoint]:
        """The kept datapoints in order of arrival, without nulls; a new list on each access."""
        return [Datapoint(ts, key, value) for ts, values in self.records for key, value in values.items() if value is not None]

    @property
    def stored_telemetry(self) -> list[StoredDatapoint]:
        """The kept datapoints as the platform stores them, dropped ones included; a new list on each access."""
        found = []
        for ts, record in self.records:
            valid = keys_are_valid(record) and ts_is_stored(ts)
            for key, value in record.items():
                kind, as_stored = stored(value if valid else None)
                found.append(StoredDatapoint(ts, key, kind, as_stored))
        return found

    @property
    def stored_attributes(self) -> dict[str, StoredValue]:
        """The client attributes as the platform stores them."""
        return {key: stored(value) for key, value in self.attributes.items()}
