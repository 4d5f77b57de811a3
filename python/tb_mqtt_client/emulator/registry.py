"""Devices, their credentials and authentication (docs/platform_contract.md, section 1)."""

from __future__ import annotations

import secrets
import ssl
import string
from collections import deque
from dataclasses import dataclass
from typing import Final, TypeAlias

from tb_mqtt_client.emulator.codec import Connect
from tb_mqtt_client.emulator.devices import DEFAULT_PROFILE, Device
from tb_mqtt_client.emulator.limits import DeviceLimitError

_LETTERS: Final = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class BasicCredentials:
    """Credentials of type MQTT_BASIC. The client must present each field that is not None.

    Attributes:
        client_id: The client id. A client id or a user name is required.
        username: The user name.
        password: The password.
    """

    client_id: str | None = None
    username: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True)
class X509Credentials:
    """Credentials of type X509_CERTIFICATE.

    Attributes:
        certificate: The certificate (PEM) that the client presents in the TLS handshake.
    """

    certificate: str


# A string is an access token.
Credentials: TypeAlias = str | BasicCredentials | X509Credentials


def certificate_der(pem: str) -> bytes:
    """Convert a certificate to DER. Raise `ValueError` if the text is not a PEM certificate."""
    return ssl.PEM_cert_to_DER_cert(pem.strip())


def random_text() -> str:
    """Return 20 random characters, the form of the platform's generated names and tokens."""
    return "".join(secrets.choice(_LETTERS) for _ in range(20))


class Registry:
    """All devices by name, sub-devices included, and the credentials of each."""

    def __init__(self, *, accept_any_token: bool, max_devices: int | None, history_limit: int | None) -> None:
        self.devices: dict[str, Device] = {}
        self._accept_any_token = accept_any_token
        self._max_devices = max_devices
        self._history_limit = history_limit
        self._credentials: dict[Device, Credentials] = {}
        self._tokens: dict[str, Device] = {}
        self._basic: dict[tuple[str | None, str | None], tuple[str | None, Device]] = {}
        self._certificates: dict[bytes, Device] = {}

    def add(self, credentials: Credentials, name: str | None, *, is_gateway: bool, profile: str = DEFAULT_PROFILE) -> Device:
        """Register a device. Raise `ValueError` if its name or credentials are empty or already in use."""
        if isinstance(credentials, BasicCredentials):
            identity = (credentials.client_id or None, credentials.username or None)
            if not any(identity) or identity in self._basic:
                raise ValueError(f"{credentials} have neither a client id nor a user name, or are already in use")
            device = self._create(name or credentials.username or str(credentials.client_id), is_gateway, profile)
            self._basic[identity] = (credentials.password, device)
        elif isinstance(credentials, X509Credentials):
            der = certificate_der(credentials.certificate)
            if der in self._certificates:
                raise ValueError("the certificate is already in use")
            if not name:
                raise ValueError("a device with an X.509 certificate needs a name")
            device = self._certificates[der] = self._create(name, is_gateway, profile)
        else:
            if not credentials or credentials in self._tokens:
                raise ValueError(f"the access token {credentials!r} is empty or already in use")
            device = self._tokens[credentials] = self._create(credentials if name is None else name, is_gateway, profile)
        self._credentials[device] = credentials
        return device

    def find(self, name_or_token: str) -> Device:
        """Return a device by name or access token. Raise `LookupError` if there is none."""
        device = self.devices.get(name_or_token) or self._tokens.get(name_or_token)
        if device is None:
            known = ", ".join(repr(name) for name in sorted(self.devices)) or "none"
            raise LookupError(f"there is no device {name_or_token!r}; devices: {known}")
        return device

    def credentials_of(self, device: Device) -> Credentials:
        """Return the credentials of a device; a sub-device gets a generated access token on first use."""
        if device not in self._credentials:
            self._credentials[device] = token = random_text()
            self._tokens[token] = device
        return self._credentials[device]

    def authenticate(self, connect: Connect, certificate: bytes | None) -> Device | None:
        """Return the device that the credentials belong to, checked in the platform's order (docs/platform_contract.md, section 1).

        A certificate (DER) takes precedence over all other credentials.
        """
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
        return self.add(username, None, is_gateway=False) if self._accept_any_token else None

    def sub_device(self, name: str, profile: str, gateway: Device) -> Device:
        """Return the device with this name; create it with this profile if there is none.

        Raises:
            DeviceLimitError: The tenant has reached its maximum number of devices.
        """
        device = self.devices.get(name)
        if device is None:
            self.check_device_limit()
            device = self._create(name, False, profile)
        device.gateway = gateway
        return device

    def check_device_limit(self) -> None:
        """Raise `DeviceLimitError` if the tenant has reached its maximum number of devices."""
        if self._max_devices is not None and len(self.devices) >= self._max_devices:
            raise DeviceLimitError(f"the tenant has reached its maximum of {self._max_devices} devices")

    def rename(self, device: Device, name: str) -> None:
        """Rename a device. Raise `ValueError` if the name is empty or already in use."""
        self._check_name(name)
        del self.devices[device.name]
        device.name = name
        self.devices[name] = device

    def forget(self, device: Device) -> None:
        """Remove a device and its credentials."""
        del self.devices[device.name]
        self._credentials.pop(device, None)
        self._tokens = {key: one for key, one in self._tokens.items() if one is not device}
        self._basic = {key: found for key, found in self._basic.items() if found[1] is not device}
        self._certificates = {key: one for key, one in self._certificates.items() if one is not device}

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
