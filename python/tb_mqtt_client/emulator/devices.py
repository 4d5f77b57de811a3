"""Devices as the platform knows them: what came from each, what it has on the server, and the counts."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from tb_mqtt_client.emulator.values import StoredDatapoint, StoredValue, keys_are_valid, stored, ts_is_stored

DEFAULT_PROFILE: Final = "default"
DEFAULT_CLAIM_DURATION_MS: Final = 24 * 60 * 60 * 1000


# One timestamp of telemetry: (milliseconds, {key: value}); nulls are still in it.
Record: TypeAlias = tuple[int, dict[str, Any]]


class Datapoint(NamedTuple):
    """One value of telemetry; `ts` in milliseconds, the arrival if the client gave none."""

    ts: int
    key: str
    value: Any


class Claim(NamedTuple):
    """A claim as it came; what the client left out has the platform's default (an empty key, 24 hours)."""

    secret_key: str = ""
    duration_ms: int = DEFAULT_CLAIM_DURATION_MS


class RpcResponse(NamedTuple):
    """An answer to an RPC of the server; the payload verbatim, of a device behind a gateway the JSON of its `data`."""

    id: int
    payload: bytes


@dataclass(eq=False)
class RpcCall:
    """An RPC of the server that has not ended."""

    id: int
    method: str
    params: Any
    oneway: bool
    # what the device answered; None for a one-way call
    answer: asyncio.Future[bytes | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    # a notice of the platform waits in its database until it is acknowledged
    persisted: bool = False
    sent: bool = False

    def end(self, payload: bytes | None) -> None:
        if not self.answer.done():
            self.answer.set_result(payload)

    def describe(self) -> str:
        return f"{self.method!r} (id {self.id})"


@dataclass(slots=True)
class Counters:
    """Counts since the start, of one device or of all. Sizes in bytes.

    A gateway's publishes and bytes count for the gateway, the data in them for the devices that it is of.
    """

    # sessions begun; of a device behind a gateway: how often it was announced, or began by sending
    connections: int = 0
    # CONNECTs refused, known only in total
    refused_connections: int = 0
    publishes: int = 0
    payload_bytes: int = 0
    pubacks: int = 0
    # pubacks with a code of 0x80 or more, which MQTT 3.1.1 does not carry
    refusals: int = 0
    largest_remaining_length: int = 0
    # publishes with telemetry or attributes, and the sum of their remaining lengths
    data_publishes: int = 0
    data_bytes: int = 0
    # what `telemetryMessages` counts: one a publish of a device, one a device entry of a gateway
    data_messages: int = 0
    telemetry_datapoints: int = 0
    attribute_datapoints: int = 0
    downlinks: int = 0
    downlink_pubacks: int = 0

    @property
    def datapoints(self) -> int:
        """Non-null keys of telemetry and attributes, as `telemetryDataPoints` counts them."""
        return self.telemetry_datapoints + self.attribute_datapoints

    def as_dict(self) -> dict[str, int]:
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"datapoints": self.datapoints}


class Carrier(Protocol):
    """The session of a connection, as a device knows it that it carries: the client's own, or one behind the gateway."""

    # The number of the last downlink with QoS 1. The platform never wraps it: the wire has what fits a packet id.
    last_downlink_id: int
    ended: asyncio.Event

    def send(self, topic: str, payload: bytes) -> bool:
        """Send a downlink; False when the device has to be subscribed to it and is not, or the connection is ending."""

    def send_attributes(self, device: Device, values: dict[str, Any]) -> bool:
        """Send an update (or `{"deleted": [...]}`) to the device itself or through the gateway; False when not subscribed."""

    def send_rpc(self, device: Device, call: RpcCall) -> bool:
        """Send a call to the device itself or through the gateway; False when not subscribed."""

    def send_disconnect_notice(self, device: Device, reason: int) -> bool:
        """Tell a gateway of trouble with a device behind it; not in MQTT 3.1.1."""

    def taken_over(self, device: Device) -> None:
        """The device has a newer session: its own connection ends, a gateway's goes on without it."""

    def device_deleted(self, device: Device) -> None:
        """The device is gone: its own connection ends, a gateway's goes on without it."""

    def write(self, packet: bytes) -> None:
        """Send bytes as they are."""

    def close(self, reason_code: int | None = None) -> None:
        """Close, after a DISCONNECT when a reason is given and the client speaks MQTT 5."""

    def abort(self) -> None:
        """End at once, whatever is unsent."""


@dataclass(slots=True, eq=False)
class Device:
    """A device, a gateway, or a device behind a gateway, and what came from it."""

    name: str
    is_gateway: bool = False
    profile: str = DEFAULT_PROFILE
    counters: Counters = field(default_factory=Counters)
    # newest client-side attributes, without nulls and without messages that had a key which the platform does not store
    attributes: dict[str, Any] = field(default_factory=dict)
    # set on the server: by the test, and by an assigned package
    shared_attributes: dict[str, Any] = field(default_factory=dict)
    # (ts, values) in order of arrival; empty with keep_data=False
    records: deque[Record] = field(default_factory=deque)
    # `metadata` of a gateway's telemetry of this device, in order of arrival; empty with keep_data=False
    metadata: deque[dict[str, Any]] = field(default_factory=deque)
    claims: list[Claim] = field(default_factory=list)
    rpc_responses: deque[RpcResponse] = field(default_factory=deque)
    # whether /provision/request has succeeded for it, which it does once
    provisioned: bool = False
    # the gateway that last announced it
    gateway: Device | None = field(default=None, repr=False)
    # the connection that carries it: its own, or its gateway's
    session: Carrier | None = field(default=None, repr=False)

    @property
    def connected(self) -> bool:
        return self.session is not None

    @property
    def telemetry(self) -> list[Datapoint]:
        """The kept datapoints in order of arrival, without nulls. Built anew at each use."""
        return [Datapoint(ts, key, value) for ts, values in self.records for key, value in values.items() if value is not None]

    @property
    def stored_telemetry(self) -> list[StoredDatapoint]:
        """The kept datapoints as the platform would store them, dropped ones included. Built anew at each use."""
        found = []
        for ts, record in self.records:
            valid = keys_are_valid(record) and ts_is_stored(ts)
            for key, value in record.items():
                kind, as_stored = stored(value if valid else None)
                found.append(StoredDatapoint(ts, key, kind, as_stored))
        return found

    @property
    def stored_attributes(self) -> dict[str, StoredValue]:
        """Client-side attributes as the platform would store them."""
        return {key: stored(value) for key, value in self.attributes.items()}
