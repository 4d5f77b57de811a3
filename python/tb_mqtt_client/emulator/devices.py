"""Devices as the platform knows them: what came from each, what it has on the server, and the counts."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tb_mqtt_client.emulator.values import StoredDatapoint, StoredValue, keys_are_valid, stored

if TYPE_CHECKING:
    from tb_mqtt_client.emulator.payloads import Record
    from tb_mqtt_client.emulator.session import Session

DEFAULT_PROFILE: Final = "default"
DEFAULT_CLAIM_DURATION_MS: Final = 24 * 60 * 60 * 1000


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


@dataclass(frozen=True, slots=True)
class BasicCredentials:
    """MQTT_BASIC credentials: what is not None must be presented. At least one of client id and username is needed."""

    client_id: str | None = None
    username: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True)
class X509Credentials:
    """X509_CERTIFICATE credentials: the client's certificate as PEM text, presented in the TLS handshake."""

    certificate: str


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
    session: Session | None = field(default=None, repr=False)

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
            valid = keys_are_valid(record)
            for key, value in record.items():
                kind, as_stored = stored(value if valid else None)
                found.append(StoredDatapoint(ts, key, kind, as_stored))
        return found

    @property
    def stored_attributes(self) -> dict[str, StoredValue]:
        """Client-side attributes as the platform would store them."""
        return {key: stored(value) for key, value in self.attributes.items()}
