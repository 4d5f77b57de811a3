"""Device provisioning (docs/platform_contract.md, section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from tb_mqtt_client.emulator.devices import DEFAULT_PROFILE
from tb_mqtt_client.emulator.limits import DeviceLimitError
from tb_mqtt_client.emulator.registry import BasicCredentials, Credentials, Registry, X509Credentials, random_text

Strategy: TypeAlias = Literal["ALLOW_CREATE_NEW_DEVICES", "CHECK_PRE_PROVISIONED_DEVICES", "DISABLED"]

STRATEGIES: Final = ("ALLOW_CREATE_NEW_DEVICES", "CHECK_PRE_PROVISIONED_DEVICES", "DISABLED")
_NOT_FOUND: Final = {"errorMsg": "Provision data was not found!", "status": "NOT_FOUND"}
_FAILURE: Final = {"errorMsg": "Failed to provision device!", "status": "FAILURE"}


class ProvisionFormError(Exception):
    """A provisioning request lacks a required field. The platform sends PUBACK 0x83 and DISCONNECT 0x83."""


@dataclass(frozen=True, slots=True)
class ProvisionProfile:
    """A device profile that allows provisioning."""

    key: str
    secret: str
    strategy: Strategy = "ALLOW_CREATE_NEW_DEVICES"
    profile: str = DEFAULT_PROFILE


class Provisioning:
    """Processes requests on /provision/request."""

    def __init__(self, registry: Registry, *, registers_gateways: bool) -> None:
        self._registry = registry
        self._registers_gateways = registers_gateways
        self._profiles: dict[str, ProvisionProfile] = {}

    def add(self, profile: ProvisionProfile) -> None:
        """Add a profile. Raise `ValueError` if the key or secret is empty, the key is in use or the strategy is unknown."""
        if profile.strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, not {profile.strategy!r}")
        if not profile.key or not profile.secret or profile.key in self._profiles:
            raise ValueError(f"the provision key {profile.key!r} or its secret is empty, or the key is already in use")
        self._profiles[profile.key] = profile

    def respond(self, request: Any) -> dict[str, Any]:
        """Process a request and return the response. Raise `ProvisionFormError` if a required field is missing."""
        key, secret = _required(request, "provisionDeviceKey"), _required(request, "provisionDeviceSecret")
        profile = self._profiles.get(key)
        if profile is None or profile.secret != secret or profile.strategy == "DISABLED":
            return dict(_NOT_FOUND)
        name = request.get("deviceName") or random_text()
        if profile.strategy == "CHECK_PRE_PROVISIONED_DEVICES":
            device = self._registry.devices.get(name)
            if device is None or device.profile != profile.profile or device.provisioned:
                return dict(_FAILURE)
            credentials = self._registry.credentials_of(device)
        else:
            try:
                self._registry.check_device_limit()
                credentials = _credentials(request)
                gateway = request.get("gateway") is True and self._registers_gateways
                device = self._registry.add(credentials, name, is_gateway=gateway, profile=profile.profile)
            except (ValueError, DeviceLimitError):
                # The name or the credentials are not valid or already in use, or there are too many devices.
                return dict(_FAILURE)
        device.provisioned = True
        return _success(credentials)


def _required(request: Any, key: str) -> str:
    value = request.get(key) if isinstance(request, dict) else None
    if not isinstance(value, str) or not value:
        raise ProvisionFormError(f"{key!r} is missing")
    return value


def _credentials(request: dict[str, Any]) -> Credentials:
    kind = request.get("credentialsType") or "ACCESS_TOKEN"
    if kind == "ACCESS_TOKEN":
        return request.get("token") or random_text()
    if kind == "MQTT_BASIC":
        return BasicCredentials(request.get("clientId"), request.get("username"), request.get("password"))
    if kind == "X509_CERTIFICATE":
        return X509Credentials(str(request.get("hash")))
    raise ProvisionFormError(f"{kind!r} is not a credentials type of the platform")


def _success(credentials: Credentials) -> dict[str, Any]:
    value: Any
    if isinstance(credentials, BasicCredentials):
        kind = "MQTT_BASIC"
        value = {"clientId": credentials.client_id, "userName": credentials.username, "password": credentials.password}
    elif isinstance(credentials, X509Credentials):
        kind, value = "X509_CERTIFICATE", credentials.certificate
    else:
        kind, value = "ACCESS_TOKEN", credentials
    return {"credentialsType": kind, "credentialsValue": value, "status": "SUCCESS"}
