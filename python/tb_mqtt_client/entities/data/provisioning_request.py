"""Asks the platform to make a device, or to give the credentials of one that waits for it."""

from __future__ import annotations

import os
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tb_mqtt_client.constants.provisioning import ProvisioningCredentialsType
from tb_mqtt_client.entities.server_address import LARGEST_PORT, MQTT_OVER_TLS_PORT, MQTT_PORT, parse_server


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a str, not {type(value).__name__}")  # noqa: TRY004  # the value may be a secret
    return value


def _text_or_none(name: str, value: Any) -> str | None:
    return None if value is None else _text(name, value)


def _path(name: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{name} must be a path, not {value!r}")  # noqa: TRY004  # one error for all arguments
    return os.fspath(value)


class ProvisioningCredentials(ABC):
    """Key and secret of the device profile, and the credentials that the device wants. ``repr()`` shows none of them."""

    @abstractmethod
    def __init__(self, provision_device_key: str, provision_device_secret: str) -> None:
        self.provision_device_key = _text("provision_device_key", provision_device_key)
        self.provision_device_secret = _text("provision_device_secret", provision_device_secret)
        self.credentials_type: ProvisioningCredentialsType

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"{type(self).__name__}(credentials_type={self.credentials_type.value})"


class AccessTokenProvisioningCredentials(ProvisioningCredentials):
    """``access_token``: the token that the device wants, ``None`` for one that the platform makes."""

    def __init__(self, provision_device_key: str, provision_device_secret: str, access_token: str | None = None) -> None:
        super().__init__(provision_device_key, provision_device_secret)
        self.access_token = _text_or_none("access_token", access_token)
        self.credentials_type = ProvisioningCredentialsType.ACCESS_TOKEN


class BasicProvisioningCredentials(ProvisioningCredentials):
    """MQTT client id, user name and password that the device wants; at least a client id or a user name."""

    def __init__(
        self,
        provision_device_key: str,
        provision_device_secret: str,
        client_id: str | None = None,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        super().__init__(provision_device_key, provision_device_secret)
        self.client_id = _text_or_none("client_id", client_id)
        self.username = _text_or_none("username", username)
        self.password = _text_or_none("password", password)
        self.credentials_type = ProvisioningCredentialsType.MQTT_BASIC


class X509ProvisioningCredentials(ProvisioningCredentials):
    """Paths of PEM files. The certificate is read at once, into ``public_cert`` (``None`` when the file is empty).

    ``ca_cert_path``: the authority of the server, for a provisioning over TLS and for the device's connections after it.
    Raises ``FileNotFoundError`` when there is no certificate, and ``ValueError`` when it is no text.
    """

    def __init__(
        self,
        provision_device_key: str,
        provision_device_secret: str,
        private_key_path: str,
        public_cert_path: str,
        ca_cert_path: str,
    ) -> None:
        super().__init__(provision_device_key, provision_device_secret)
        self.private_key_path = _path("private_key_path", private_key_path)
        self.public_cert_path = _path("public_cert_path", public_cert_path)
        self.ca_cert_path = _path("ca_cert_path", ca_cert_path)
        self.public_cert = Path(self.public_cert_path).read_text(encoding="utf-8").strip() or None
        self.credentials_type = ProvisioningCredentialsType.X509_CERTIFICATE


class ProvisioningRequest:
    """Where to ask, with which credentials, and for which device."""

    def __init__(
        self,
        host: str,
        credentials: ProvisioningCredentials,
        port: int = MQTT_PORT,
        device_name: str | None = None,
        gateway: bool | None = False,
        *,
        tls: bool | None = None,
        ca_cert: str | None = None,
        verify_hostname: bool = True,
        tls_strict: bool | None = None,
        ssl_context: ssl.SSLContext | Callable[[], ssl.SSLContext] | None = None,
        proxy: str | None = None,
    ) -> None:
        """Check and keep what is given.

        Args:
            host: A name or an address, ``host:port``, or a URL such as ``mqtts://host``.
            credentials: Key and secret of the device profile, and the credentials that the device wants.
            port: Used unless ``host`` names one.
            device_name: ``None`` for a name that the platform makes.
            gateway: Whether the device is a gateway (servers of 3.8 and later).
            tls: Whether the connection is encrypted; ``None`` means yes if the URL says so, ``ca_cert`` or ``ssl_context`` is
                given, or the port is 8883.
            ca_cert: Path of the server's authority; without one that of X.509 credentials is used, or else the system's
                authorities.
            verify_hostname: Whether the server's certificate must be for ``host``.
            tls_strict: As the option of ``DeviceConfig``.
            ssl_context: As the option of ``DeviceConfig``.
            proxy: As the option of ``DeviceConfig``.

        Raises:
            ValueError: An argument is not allowed; the text names it.
        """
        if not isinstance(host, str) or not host:
            raise ValueError(f"host must be the name or address of the server, not {host!r}")
        if not isinstance(credentials, ProvisioningCredentials):
            raise ValueError(f"credentials must be ProvisioningCredentials, not {type(credentials).__name__}")  # noqa: TRY004
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= LARGEST_PORT:
            raise ValueError(f"port must be a whole number from 1 to {LARGEST_PORT}, not {port!r}")
        server = parse_server("host", host)
        if server.tls is not None and tls is not None and server.tls != tls:
            raise ValueError(f"host says {'mqtts' if server.tls else 'mqtt'}://, and tls is {tls}: leave one of them out")
        if server.port not in {None, port} and port != MQTT_PORT:
            raise ValueError(f"host names the port {server.port} and port is {port}: leave one of them out")
        if server.tls and port == MQTT_PORT:
            port = MQTT_OVER_TLS_PORT
        self.host = server.host
        self.credentials = credentials
        self.port = server.port or port
        self.device_name = _text_or_none("device_name", device_name)
        self.gateway = gateway
        self.tls = server.tls if tls is None else tls
        self.ca_cert = None if ca_cert is None else _path("ca_cert", ca_cert)
        self.verify_hostname = verify_hostname
        self.tls_strict = tls_strict
        self.ssl_context = ssl_context
        self.proxy = proxy

    def use_tls(self) -> bool:
        """Whether the connection is encrypted."""
        if self.tls is not None:
            return self.tls
        return self.ca_cert is not None or self.ssl_context is not None or self.port == MQTT_OVER_TLS_PORT

    def server_authority(self) -> str | None:
        """Path of the authority that the server's certificate is judged by; ``None`` for the system's."""
        if self.ca_cert is None and isinstance(self.credentials, X509ProvisioningCredentials):
            return self.credentials.ca_cert_path
        return self.ca_cert

    def to_payload_format(self) -> dict[str, Any]:
        """The request as the platform reads it; what was not given is left out.

        Raises ``ValueError`` without key or secret, and for X.509 credentials without a certificate.
        """
        credentials = self.credentials
        if not credentials.provision_device_key or not credentials.provision_device_secret:
            raise ValueError("ProvisioningRequest must have valid device key and secret.")
        optional = {"deviceName": self.device_name, "gateway": True if self.gateway else None} | _wanted(credentials)
        return {
            "provisionDeviceKey": credentials.provision_device_key,
            "provisionDeviceSecret": credentials.provision_device_secret,
            **{name: value for name, value in optional.items() if value is not None},
            "credentialsType": credentials.credentials_type.value,
        }

    def __repr__(self) -> str:
        return (
            f"ProvisioningRequest(host={self.host}, credentials={self.credentials!r}, port={self.port}, "
            f"device_name={self.device_name}, gateway={self.gateway}, tls={self.use_tls()})"
        )


def _wanted(credentials: ProvisioningCredentials) -> dict[str, str | None]:
    """The credentials that the device asks for, in the platform's names."""
    if isinstance(credentials, AccessTokenProvisioningCredentials):
        return {"token": credentials.access_token}
    if isinstance(credentials, BasicProvisioningCredentials):
        return {"username": credentials.username, "password": credentials.password, "clientId": credentials.client_id}
    if isinstance(credentials, X509ProvisioningCredentials):
        if credentials.public_cert is None:
            raise ValueError(f"public_cert_path: {credentials.public_cert_path} is empty, it must be a certificate")
        return {"hash": credentials.public_cert}
    return {}
