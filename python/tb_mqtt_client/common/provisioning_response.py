"""The platform's answer to a provisioning request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.constants.provisioning import ProvisioningCredentialsType, ProvisioningResponseStatus
from tb_mqtt_client.entities.data.provisioning_request import ProvisioningRequest, X509ProvisioningCredentials
from tb_mqtt_client.entities.factory_made import FactoryMade


@dataclass(frozen=True, init=False, repr=False)
class ProvisioningResponse(FactoryMade):
    """Made by ``build`` and ``failure``. With the status SUCCESS there is a ``result``, else there may be an ``error``."""

    status: ProvisioningResponseStatus
    result: DeviceConfig | None = None
    """Connects the device: host, port and TLS of the request, and the credentials that the platform gave."""
    error: str | None = None
    """What the platform says about the reason, or why its answer cannot be read."""
    credentials_type: ProvisioningCredentialsType | None = None
    """Of the device. That of a device which was there before may be another than the requested one."""

    @classmethod
    def build(cls, provision_request: ProvisioningRequest, payload: Mapping[str, Any]) -> Self:
        """From the platform's answer (docs/platform_contract.md, section 6). Without a type, the credentials are of the requested
        one.

        Raises ``KeyError`` when a success lacks a part of its credentials, and ``ValueError`` when it has none that are known.
        """
        status = _status(payload.get("status"))
        if status is not ProvisioningResponseStatus.SUCCESS:
            message = payload.get("errorMsg")
            return cls._made(status=status, error=None if message is None else str(message))
        requested = provision_request.credentials.credentials_type
        credentials_type = ProvisioningCredentialsType(payload.get("credentialsType", requested))
        config = device_config(provision_request)
        if credentials_type is ProvisioningCredentialsType.ACCESS_TOKEN:
            config.access_token = _text("credentialsValue", payload["credentialsValue"])
        elif credentials_type is ProvisioningCredentialsType.MQTT_BASIC:
            _set_basic(config, payload["credentialsValue"])
        else:
            _set_certificate(config, provision_request)
        return cls._made(status=status, result=config, credentials_type=credentials_type)

    @classmethod
    def failure(cls, error: str) -> Self:
        """For an answer that cannot be read."""
        return cls._made(status=ProvisioningResponseStatus.ERROR, error=error)

    def __repr__(self) -> str:
        return f"ProvisioningResponse(status={self.status}, result={self.result}, error={self.error})"


def device_config(request: ProvisioningRequest) -> DeviceConfig:
    """How the server of a request is reached, without any credentials.

    Address and TLS are those of the request, whatever the environment says about them and about credentials: those would be of
    another device. The other options are the environment's.
    """
    config = DeviceConfig(
        {
            "host": request.host,
            "port": request.port,
            "use_system_ca": request.use_tls(),
            "verify_hostname": request.verify_hostname,
            "tls_strict": request.tls_strict,
            "proxy": request.proxy,
        }
    )
    config.access_token = config.username = config.password = config.client_id = None
    config.client_cert = config.private_key = None
    config.ca_cert = request.server_authority() if request.use_tls() else None
    config.ssl_context = request.ssl_context if request.use_tls() else None
    return config


def _status(value: Any) -> ProvisioningResponseStatus:
    try:
        return ProvisioningResponseStatus(value)
    except ValueError:
        return ProvisioningResponseStatus.ERROR


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a text that is not empty")
    return value


def _set_basic(config: DeviceConfig, values: Any) -> None:
    """``{"clientId", "userName", "password"}``, of which some may be null or empty."""
    if not isinstance(values, dict):
        raise ValueError("credentialsValue of MQTT_BASIC must be an object")  # noqa: TRY004  # about JSON, not about an argument
    config.client_id, config.username, config.password = (
        None if (value := values.get(name)) is None or value == "" else _text(name, value)
        for name in ("clientId", "userName", "password")
    )
    if config.client_id is None and config.username is None:
        raise ValueError("credentialsValue of MQTT_BASIC must have a clientId or a userName")


def _set_certificate(config: DeviceConfig, request: ProvisioningRequest) -> None:
    credentials = request.credentials
    if isinstance(credentials, X509ProvisioningCredentials):
        config.ca_cert = request.server_authority()
        config.client_cert, config.private_key = credentials.public_cert_path, credentials.private_key_path
