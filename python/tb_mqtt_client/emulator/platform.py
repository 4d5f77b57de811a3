"""The platform behind the connections: its version, devices, data, counters and limits.

Every accepted datapoint is counted for exactly one device and once in the total.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol, TypeAlias

from tb_mqtt_client.emulator import payloads
from tb_mqtt_client.emulator.background import Background, Timers
from tb_mqtt_client.emulator.codec import QUOTA_EXCEEDED, SUCCESS
from tb_mqtt_client.emulator.devices import Carrier, Claim, Counters, Device, Record
from tb_mqtt_client.emulator.hooks import Hooks
from tb_mqtt_client.emulator.limits import Meter, OverLimit, RateLimitedError, SessionLimits
from tb_mqtt_client.emulator.ota import Packages
from tb_mqtt_client.emulator.provisioning import Provisioning
from tb_mqtt_client.emulator.registry import Registry
from tb_mqtt_client.emulator.server_rpc import ServerRpc
from tb_mqtt_client.emulator.values import keys_are_valid

DEFAULT_MAX_PAYLOAD_SIZE: Final = 65536

Version: TypeAlias = Literal["3.7", "3.8", "4.2", "4.2.1", "4.3"]
NEWEST: Final[Version] = "4.3"


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """The differences between platform versions on the wire (docs/platform_contract.md, sections 0, 4, 5 and 6).

    They have names so that no other module compares versions.
    """

    # Since 3.8: getSessionLimits, `metadata` in gateway telemetry, `gateway` in provisioning requests.
    answers_session_limits: bool = True
    reads_metadata: bool = True
    provisions_gateways: bool = True
    # Since 4.2.1: one PUBACK per gateway publish, with 0x97 if a limit is exceeded.
    acknowledges_gateway_once: bool = True
    # Since 4.3: PUBACK 0x97 for a connect message beyond the device limit of the tenant; 4.2.1 sends none.
    acknowledges_connect_over_device_limit: bool = True


_4_3: Final = ServerVersion()
_4_2_1: Final = replace(_4_3, acknowledges_connect_over_device_limit=False)
_4_2: Final = replace(_4_2_1, acknowledges_gateway_once=False)
_3_7: Final = replace(_4_2, answers_session_limits=False, reads_metadata=False, provisions_gateways=False)

_VERSIONS: Final = {"3.7": _3_7, "3.8": _4_2, "4.2": _4_2, "4.2.1": _4_2_1, "4.3": _4_3}
VERSIONS: Final = tuple(_VERSIONS)


def server_version(version: str) -> ServerVersion:
    """Return the differences of a version. Raise `ValueError` if the version is unknown."""
    if version not in _VERSIONS:
        raise ValueError(f"version must be one of {', '.join(VERSIONS)}, not {version!r}")
    return _VERSIONS[version]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a publish: its PUBACKs (none, one, or before 4.2.1 one per device), and whether the connection closes.

    PUBACKs are sent after `delay_seconds`. With `drops_pubacks` earlier PUBACKs that are still unsent are discarded
    (docs/platform_contract.md, section 4).
    """

    codes: tuple[int, ...] = (SUCCESS,)
    closes: bool = False
    disconnect_reason: int | None = None
    delay_seconds: float = 0.0
    drops_pubacks: bool = False


ACCEPTED: Final = Outcome()
UNACKNOWLEDGED: Final = Outcome(())


class Platform:
    """The state that all connections of one emulator share."""

    def __init__(
        self,
        *,
        version: ServerVersion,
        limits: SessionLimits | None,
        max_payload_size: int,
        max_string_length: int | None,
        accept_any_token: bool,
        keep_data: bool,
        history_limit: int | None,
        client_rpc_timeout: float,
        rpc_ack_timeout: float,
        provision_timeout: float,
        inactivity_timeout: float | None,
        max_devices: int | None,
        enforce_limits: bool,
        over_limit: OverLimit,
        puback_delay: float,
        core_timeout: float,
        sub_device_inactivity: float | None,
        monotonic: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.version = version
        self.limits = limits
        self.meter: Meter = Meter(limits, enforces=enforce_limits, clock=monotonic)
        self.monotonic = monotonic
        self.over_limit = over_limit
        self.puback_delay = puback_delay
        self.core_timeout = core_timeout
        # True if the core does not respond, so that no sub-device session can be opened.
        self.core_away = False
        # Names of sub-devices that the core refuses in addition to invalid names.
        self.refused_names: set[str] = set()
        self.sub_device_inactivity = sub_device_inactivity
        # The reason code of DISCONNECT during a restart; None if there is no restart.
        self.restart_code: int | None = None
        self.max_payload_size = max_payload_size
        self.max_string_length = max_string_length
        self.keep_data = keep_data
        self.client_rpc_timeout = client_rpc_timeout
        self.rpc_ack_timeout = rpc_ack_timeout
        self.provision_timeout = provision_timeout
        self.inactivity_timeout = inactivity_timeout
        self.total: Counters = Counters()
        self.registry: Registry = Registry(accept_any_token=accept_any_token, max_devices=max_devices, history_limit=history_limit)
        self.rpc: ServerRpc = ServerRpc()
        self.packages: Packages = Packages()
        self.provisioning: Provisioning = Provisioning(self.registry, registers_gateways=version.provisions_gateways)
        self._clock = clock

    def set_limits(self, limits: SessionLimits | None) -> None:
        """Replace the limits. Raise `ValueError` if a limit is not valid."""
        self.meter.configure(limits)
        self.limits = limits

    def over_limit_outcome(self, disconnect_reason: int | None, codes: tuple[int, ...] = ()) -> Outcome:
        """Return the outcome of a message that exceeds a limit.

        The arguments are the reason code of the DISCONNECT and the PUBACKs that the platform sends if `over_limit` is "platform".
        """
        if self.over_limit == "refuse":
            return Outcome((QUOTA_EXCEEDED,))
        if self.over_limit == "close":
            return Outcome((), closes=True, drops_pubacks=True)
        return Outcome(codes, closes=True, disconnect_reason=disconnect_reason, drops_pubacks=True)

    def now(self) -> int:
        """Return the server time in milliseconds."""
        return int(self._clock() * 1000)

    @property
    def announced_limits(self) -> SessionLimits | None:
        """The limits in the reply to getSessionLimits; None if the server treats it as an ordinary RPC request."""
        return self.limits if self.version.answers_session_limits else None

    def rename(self, device: Device, name: str) -> None:
        """Rename a device and notify the gateway that last announced it.

        Raise `ValueError` if the name is empty or already in use.
        """
        old = device.name
        self.registry.rename(device, name)
        if device.gateway is not None:
            self.rpc.notify(device.gateway, "gateway_device_renamed", {old: name})

    def delete(self, device: Device) -> None:
        """Delete a device and its credentials, and notify the gateway that last announced it."""
        self.registry.forget(device)
        self.rpc.forget(device)
        self.packages.forget(device)
        self.meter.forget(device)
        if device.session is not None:
            device.session.device_deleted(device)
        if device.gateway is not None:
            self.rpc.notify(device.gateway, "gateway_device_deleted", device.name)

    # Uplinks. `gateway` is the gateway of a sub-device.

    def spend(self, device: Device, gateway: Device | None = None, datapoints: int = 0) -> None:
        """Count a message against the limits. Raise `RateLimitedError` if one is exceeded."""
        if not self.meter.take(device, gateway, datapoints):
            raise RateLimitedError(device.name)

    def take_telemetry(self, device: Device, records: list[Record], gateway: Device | None = None) -> bool:
        """Count and keep telemetry. Raise `RateLimitedError` or `BadPayloadError` if it is refused."""
        if self.max_string_length is not None:
            for _, values in records:
                payloads.check_string_lengths(values, self.max_string_length)
        self._take_data(device, gateway, telemetry=payloads.count_datapoints(records))
        if self.keep_data:
            device.records.extend(records)
        return True

    def take_attributes(self, device: Device, attributes: dict[str, Any], gateway: Device | None = None) -> bool:
        """Count and keep client attributes. Raise `RateLimitedError` or `BadPayloadError` if they are refused."""
        if self.max_string_length is not None:
            payloads.check_string_lengths(attributes, self.max_string_length)
        self._take_data(device, gateway, attributes=payloads.count_values(attributes))
        if self.keep_data and keys_are_valid(attributes):
            device.attributes.update((key, value) for key, value in attributes.items() if value is not None)
        return True

    def take_claim(self, device: Device, claim: Claim, gateway: Device | None = None) -> bool:
        """Keep a claiming request. Raise `RateLimitedError` if a limit is exceeded."""
        self.spend(device, gateway)
        device.claims.append(claim)
        return True

    def take_rpc_response(self, device: Device, request_id: int, payload: bytes, gateway: Device | None = None) -> bool:
        """Keep a reply to a server-side RPC. Raise `RateLimitedError` if a limit is exceeded."""
        self.spend(device, gateway)
        self.rpc.responded(device, request_id, payload)
        return True

    def _take_data(self, device: Device, gateway: Device | None, telemetry: int = 0, attributes: int = 0) -> None:
        """Count a message with datapoints. Raise `RateLimitedError` if a limit is exceeded."""
        self.spend(device, gateway, telemetry + attributes)
        for counters in (device.counters, self.total):
            counters.data_messages += 1
            counters.telemetry_datapoints += telemetry
            counters.attribute_datapoints += attributes


class SessionView(Carrier, Protocol):
    """The part of a session that the processing of its packets needs."""

    platform: Platform
    hooks: Hooks
    background: Background
    timers: Timers
    # The protocol level of MQTT: 3, 4 or 5.
    level: int
    # None until the client is authenticated.
    device: Device | None

    def reply(self, topic: str, payload: bytes) -> None:
        """Send a message after the PUBACK of the message that is being processed."""

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter of the client and to the total."""
