"""What the platform knows and remembers: devices, their credentials, their data, counts, and the limits it announces.

Every datapoint that the emulator takes is counted in exactly one device and once in the total.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tb_mqtt_client.emulator import payloads
from tb_mqtt_client.emulator.devices import (
    DEFAULT_PROFILE,
    BasicCredentials,
    Claim,
    Counters,
    Device,
    X509Credentials,
)
from tb_mqtt_client.emulator.limits import DeviceLimitError, Meter, RateLimitedError
from tb_mqtt_client.emulator.ota import Packages
from tb_mqtt_client.emulator.provisioning import Provisioning, certificate_der, random_text
from tb_mqtt_client.emulator.rpc import ServerRpc
from tb_mqtt_client.emulator.values import keys_are_valid
from tb_mqtt_client.emulator.versions import ServerVersion

if TYPE_CHECKING:
    from tb_mqtt_client.emulator.codec import Connect
    from tb_mqtt_client.emulator.limits import SessionLimits
    from tb_mqtt_client.emulator.payloads import Record

Credentials: TypeAlias = str | BasicCredentials | X509Credentials

DEFAULT_MAX_PAYLOAD_SIZE: Final = 65536


class Platform:
    """The state behind all connections of one emulator."""

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
        provision_timeout: float,
        inactivity_timeout: float | None,
        max_devices: int | None,
        enforce_limits: bool,
        limits_clock: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.version = version
        self.limits = limits
        self.meter = Meter(limits, enforces=enforce_limits, clock=limits_clock)
        self.max_payload_size = max_payload_size
        self.max_string_length = max_string_length
        self.accept_any_token = accept_any_token
        self.keep_data = keep_data
        self.client_rpc_timeout = client_rpc_timeout
        self.provision_timeout = provision_timeout
        self.inactivity_timeout = inactivity_timeout
        self.max_devices = max_devices
        self.total = Counters()
        self.devices: dict[str, Device] = {}
        self.rpc = ServerRpc()
        self.packages = Packages()
        self.provisioning = Provisioning(self)
        self._history_limit = history_limit
        self._clock = clock
        self._credentials: dict[Device, Credentials] = {}
        self._tokens: dict[str, Device] = {}
        self._basic: dict[tuple[str | None, str | None], tuple[str | None, Device]] = {}
        self._certificates: dict[bytes, Device] = {}

    def set_limits(self, limits: SessionLimits | None) -> None:
        self.meter.configure(limits)
        self.limits = limits

    def now(self) -> int:
        """Server time in milliseconds."""
        return int(self._clock() * 1000)

    @property
    def announced_limits(self) -> SessionLimits | None:
        """What getSessionLimits is answered with; None for a server that takes it for an ordinary RPC."""
        return self.limits if self.version.answers_session_limits else None

    # Devices and who they are.

    def add(self, credentials: Credentials, name: str | None, *, is_gateway: bool, profile: str = DEFAULT_PROFILE) -> Device:
        """Register a device. Raises `ValueError` for a name or credentials that are taken or empty."""
        if isinstance(credentials, BasicCredentials):
            identity = (credentials.client_id or None, credentials.username or None)
            if not any(identity) or identity in self._basic:
                raise ValueError(f"{credentials} name no client or are already in use")
            device = self._create(name or credentials.username or str(credentials.client_id), is_gateway, profile)
            self._basic[identity] = (credentials.password, device)
        elif isinstance(credentials, X509Credentials):
            der = certificate_der(credentials.certificate)
            if der in self._certificates:
                raise ValueError("the certificate is already in use")
            if not name:
                raise ValueError("a device that is known by its certificate needs a name")
            device = self._certificates[der] = self._create(name, is_gateway, profile)
        else:
            if not credentials or credentials in self._tokens:
                raise ValueError(f"the token {credentials!r} is empty or already in use")
            device = self._tokens[credentials] = self._create(credentials if name is None else name, is_gateway, profile)
        self._credentials[device] = credentials
        return device

    def find(self, name_or_token: str) -> Device:
        """Raises `LookupError` if there is no such device."""
        device = self.devices.get(name_or_token) or self._tokens.get(name_or_token)
        if device is None:
            raise LookupError(f"the emulator knows no device {name_or_token!r}; it knows {sorted(self.devices)}")
        return device

    def credentials_of(self, device: Device) -> Credentials:
        """The device's credentials; a device behind a gateway gets the platform's usual token at its first use."""
        if device not in self._credentials:
            self._credentials[device] = token = random_text()
            self._tokens[token] = device
        return self._credentials[device]

    def authenticate(self, connect: Connect, certificate: bytes | None) -> Device | None:
        """Resolve credentials in the platform's order (contract section 1). A certificate (DER) outranks all else."""
        if certificate is not None:
            return self._certificates.get(certificate)
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

    def sub_device(self, name: str, profile: str, gateway: Device) -> Device:
        """Return the device of this name; one that is new gets this profile, one that exists keeps its own.

        Raises `DeviceLimitError`.
        """
        device = self.devices.get(name)
        if device is None:
            self.check_room()
            device = self._create(name, False, profile)
        device.gateway = gateway
        return device

    def check_room(self) -> None:
        """Raises `DeviceLimitError` when the tenant may not have one more device."""
        if self.max_devices is not None and len(self.devices) >= self.max_devices:
            raise DeviceLimitError(f"the tenant may have {self.max_devices} devices")

    def rename(self, device: Device, name: str) -> None:
        """Rename, and tell the gateway that last announced it. Raises `ValueError` for a name that is taken or empty."""
        self._check_name(name)
        old = device.name
        del self.devices[old]
        device.name = name
        self.devices[name] = device
        if device.gateway is not None:
            self.rpc.notify(device.gateway, "gateway_device_renamed", {old: name})

    def delete(self, device: Device) -> None:
        """Forget a device and its credentials, and tell the gateway that last announced it."""
        del self.devices[device.name]
        self._credentials.pop(device, None)
        self._tokens = {key: one for key, one in self._tokens.items() if one is not device}
        self._basic = {key: found for key, found in self._basic.items() if found[1] is not device}
        self._certificates = {key: one for key, one in self._certificates.items() if one is not device}
        self.rpc.forget(device)
        self.packages.forget(device)
        self.meter.forget(device)
        if device.session is not None:
            device.session.device_deleted(device)
        if device.gateway is not None:
            self.rpc.notify(device.gateway, "gateway_device_deleted", device.name)

    # What comes from them. `gateway` is the one that a device is behind.

    def spend(self, device: Device, gateway: Device | None = None, datapoints: int = 0) -> None:
        """Raises `RateLimitedError`."""
        if not self.meter.take(device, gateway, datapoints):
            raise RateLimitedError(device.name)

    def take_telemetry(self, device: Device, records: list[Record], gateway: Device | None = None) -> bool:
        if self.max_string_length is not None:
            for _, values in records:
                payloads.check_string_lengths(values, self.max_string_length)
        count = payloads.count_datapoints(records)
        self.spend(device, gateway, count)
        for counters in (device.counters, self.total):
            counters.data_messages += 1
            counters.telemetry_datapoints += count
        if self.keep_data:
            device.records.extend(records)
        return True

    def take_attributes(self, device: Device, attributes: dict[str, Any], gateway: Device | None = None) -> bool:
        if self.max_string_length is not None:
            payloads.check_string_lengths(attributes, self.max_string_length)
        count = payloads.count_values(attributes)
        self.spend(device, gateway, count)
        for counters in (device.counters, self.total):
            counters.data_messages += 1
            counters.attribute_datapoints += count
        if self.keep_data and keys_are_valid(attributes):
            device.attributes.update((key, value) for key, value in attributes.items() if value is not None)
        return True

    def take_claim(self, device: Device, claim: Claim, gateway: Device | None = None) -> bool:
        self.spend(device, gateway)
        device.claims.append(claim)
        return True

    def take_rpc_response(self, device: Device, call_id: int, payload: bytes, gateway: Device | None = None) -> bool:
        self.spend(device, gateway)
        self.rpc.answered(device, call_id, payload)
        return True

    def _create(self, name: str, is_gateway: bool, profile: str) -> Device:
        self._check_name(name)
        device = Device(name, is_gateway, profile)
        device.records = deque(maxlen=self._history_limit)
        device.metadata = deque(maxlen=self._history_limit)
        device.rpc_responses = deque(maxlen=self._history_limit)
        self.devices[name] = device
        return device

    def _check_name(self, name: str) -> None:
        if not name or name in self.devices:
            raise ValueError(f"the device name {name!r} is empty or already in use")


def _if_password(found: tuple[str | None, Device], password: str | None) -> Device | None:
    expected, device = found
    return device if expected is None or expected == password else None
