"""Responses to provisioning requests."""

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
    """The platform's response to a provisioning request, made by ``build`` or ``failure``."""

    status: ProvisioningResponseStatus
    """The outcome."""
    result: DeviceConfig | None = None
    """On success, the options for connecting the device: the request's server and TLS options with the new credentials."""
    error: str | None = None
    """The platform's reason for a refusal, if it sent one, or the reason why its response could not be read."""
    credentials_type: ProvisioningCredentialsType | None = None
    """On success, the type of the credentials. If the device existed before, it may differ from the requested type."""

    @classmethod
    def build(cls, provision_request: ProvisioningRequest, payload: Mapping[str, Any]) -> Self:
        """Read the platform's response (docs/platform_contract.md, section 6).

        Args:
            provision_request: The request.
            payload: The JSON object of the response. If it does not name the type of the credentials, the requested type applies.

        Raises:
            KeyError: A successful response does not contain the credentials.
            ValueError: The credentials, or their type, are not valid.
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
        """Make a response with the status ``ERROR``, for a response that cannot be read."""
        return cls._made(status=ProvisioningResponseStatus.ERROR, error=error)

    def __repr__(self) -> str:
        return f"ProvisioningResponse(status={self.status}, result={self.result}, error={self.error})"


def device_config(request: ProvisioningRequest) -> DeviceConfig:
    """Return the options for connecting to the server of a request, without credentials.

    The server and the TLS options are those of the request. Environment variables for them and for credentials, which belong to
    another device, are ignored; all other options are read from the environment.
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
        raise ValueError(f"{name} must be a non-empty str")
    return value


def _set_basic(config: DeviceConfig, values: Any) -> None:
    """Set the credentials from ``{"clientId": c, "userName": u, "password": p}``, of which some may be null or empty."""
    if not isinstance(values, dict):
        raise ValueError("credentialsValue of MQTT_BASIC must be an object")  # noqa: TRY004  # bad data, not a bad call
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
