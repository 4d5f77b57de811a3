"""What the platform knows and remembers: devices, their credentials, their data, counts, and the limits it announces.

Every datapoint that the emulator takes is counted in exactly one device and once in the total.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tb_mqtt_client.emulator import payloads

if TYPE_CHECKING:
    from tb_mqtt_client.emulator.codec import Connect
    from tb_mqtt_client.emulator.payloads import Record
    from tb_mqtt_client.emulator.session import Session

DEFAULT_MAX_PAYLOAD_SIZE: Final = 65536
DEFAULT_PROFILE: Final = "default"


class Datapoint(NamedTuple):
    """One value of telemetry; `ts` in milliseconds, the arrival if the client gave none."""

    ts: int
    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class BasicCredentials:
    """MQTT_BASIC credentials: what is not None must be presented. At least one of client id and username is needed."""

    client_id: str | None = None
    username: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Windows as the platform writes them ("100:1,3000:60"); None is unlimited."""

    messages: str | None = None
    telemetry_messages: str | None = None
    telemetry_datapoints: str | None = None

    def reply(self) -> dict[str, str | None]:
        return {
            "messages": self.messages,
            "telemetryMessages": self.telemetry_messages,
            "telemetryDataPoints": self.telemetry_datapoints,
        }


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The answer to getSessionLimits; all unlimited, as in the default tenant profile. Announced, not enforced."""

    max_inflight_messages: int = 100
    rate_limits: RateLimits = RateLimits()
    gateway_rate_limits: RateLimits = RateLimits()

    def reply(self, *, max_payload_size: int, is_gateway: bool) -> dict[str, Any]:
        reply: dict[str, Any] = {
            "maxPayloadSize": max_payload_size,
            "maxInflightMessages": self.max_inflight_messages,
            "rateLimits": self.rate_limits.reply(),
        }
        if is_gateway:
            reply["gatewayRateLimits"] = self.gateway_rate_limits.reply()
        return reply


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
    # newest client-side attributes
    attributes: dict[str, Any] = field(default_factory=dict)
    # (ts, values) in order of arrival; empty with keep_data=False
    records: deque[Record] = field(default_factory=deque)
    # the connection that carries it: its own, or its gateway's
    session: Session | None = field(default=None, repr=False)

    @property
    def connected(self) -> bool:
        return self.session is not None

    @property
    def telemetry(self) -> list[Datapoint]:
        """The kept datapoints in order of arrival, without nulls. Built anew at each use."""
        return [Datapoint(ts, key, value) for ts, values in self.records for key, value in values.items() if value is not None]


class Platform:
    """The state behind all connections of one emulator."""

    def __init__(
        self,
        *,
        limits: SessionLimits | None,
        max_payload_size: int,
        accept_any_token: bool,
        keep_data: bool,
        history_limit: int | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits
        self.max_payload_size = max_payload_size
        self.accept_any_token = accept_any_token
        self.keep_data = keep_data
        self.total = Counters()
        self.devices: dict[str, Device] = {}
        self._history_limit = history_limit
        self._clock = clock
        self._tokens: dict[str, Device] = {}
        self._basic: dict[tuple[str | None, str | None], tuple[str | None, Device]] = {}

    def now(self) -> int:
        """Server time in milliseconds."""
        return int(self._clock() * 1000)

    def add(self, credentials: str | BasicCredentials, name: str | None, *, is_gateway: bool) -> Device:
        """Register a device. Raises `ValueError` for a name or credentials that are taken or empty."""
        if isinstance(credentials, str):
            if not credentials or credentials in self._tokens:
                raise ValueError(f"the token {credentials!r} is empty or already in use")
            device = self._create(credentials if name is None else name, is_gateway=is_gateway)
            self._tokens[credentials] = device
            return device
        identity = (credentials.client_id, credentials.username)
        if not any(identity) or identity in self._basic:
            raise ValueError(f"{credentials} name no client or are already in use")
        device = self._create(name or credentials.username or str(credentials.client_id), is_gateway=is_gateway)
        self._basic[identity] = (credentials.password, device)
        return device

    def find(self, name_or_token: str) -> Device:
        """Raises `LookupError` if there is no such device."""
        device = self.devices.get(name_or_token) or self._tokens.get(name_or_token)
        if device is None:
            raise LookupError(f"the emulator knows no device {name_or_token!r}; it knows {sorted(self.devices)}")
        return device

    def authenticate(self, connect: Connect) -> Device | None:
        """Resolve credentials in the platform's order (contract section 1)."""
        username = connect.username or None
        identity = (connect.client_id or None, username)
        if (found := self._basic.get(identity)) is not None:
            return _if_password(found, connect.password)
        if username is None:
            return None
        if (device := self._tokens.get(username)) is not None:
            return device
        if (found := self._basic.get((None, username))) is not None:
            return _if_password(found, connect.password)
        return self.add(username, None, is_gateway=False) if self.accept_any_token else None

    def sub_device(self, name: str, profile: str) -> Device:
        """Return the device of this name; one that is new gets this profile, one that exists keeps its own."""
        return self.devices.get(name) or self._create(name, profile=profile)

    def take_telemetry(self, device: Device, records: list[Record]) -> None:
        count = payloads.count_datapoints(records)
        for counters in (device.counters, self.total):
            counters.data_messages += 1
            counters.telemetry_datapoints += count
        if self.keep_data:
            device.records.extend(records)

    def take_attributes(self, device: Device, attributes: dict[str, Any]) -> None:
        count = payloads.count_values(attributes)
        for counters in (device.counters, self.total):
            counters.data_messages += 1
            counters.attribute_datapoints += count
        if self.keep_data:
            device.attributes.update((key, value) for key, value in attributes.items() if value is not None)

    def _create(self, name: str, *, is_gateway: bool = False, profile: str = DEFAULT_PROFILE) -> Device:
        if not name or name in self.devices:
            raise ValueError(f"the device name {name!r} is empty or already in use")
        device = Device(name, is_gateway, profile, records=deque(maxlen=self._history_limit))
        self.devices[name] = device
        return device


def _if_password(found: tuple[str | None, Device], password: str | None) -> Device | None:
    expected, device = found
    return device if expected is None or expected == password else None
