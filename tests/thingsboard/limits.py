"""Tenants with their own limits, created by the system administrator, so that existing tenant profiles are not changed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from thingsboard.rest import RestClient, RestError
from thingsboard.tenant import Tenant, activated_user


@dataclass(frozen=True)
class Limits:
    """Rate limits in the form of a tenant profile, such as "100:1,3000:60"; None means no limit.

    The limits of a device, of a gateway itself and of all sub-devices of one gateway are announced to clients. Those of the
    whole tenant are not announced.
    """

    tenant_messages: str | None = None
    tenant_telemetry_messages: str | None = None
    tenant_telemetry_datapoints: str | None = None
    device_messages: str | None = None
    device_telemetry_messages: str | None = None
    device_telemetry_datapoints: str | None = None
    gateway_messages: str | None = None
    gateway_telemetry_messages: str | None = None
    gateway_telemetry_datapoints: str | None = None
    gateway_device_messages: str | None = None
    gateway_device_telemetry_messages: str | None = None
    gateway_device_telemetry_datapoints: str | None = None

    def configuration(self) -> dict[str, Any]:
        """Return the limits as fields of a tenant profile's configuration."""
        return {_FIELDS[name]: limit for name, limit in asdict(self).items()}


_FIELDS = {
    f"{scope}_{name}": f"transport{field}{kind}RateLimit"
    for scope, field in (("tenant", "Tenant"), ("device", "Device"), ("gateway", "Gateway"), ("gateway_device", "GatewayDevice"))
    for name, kind in (
        ("messages", "Msg"),
        ("telemetry_messages", "TelemetryMsg"),
        ("telemetry_datapoints", "TelemetryDataPoints"),
    )
}


class LimitedTenants:
    """Creates tenants with limits, each with its own tenant profile and administrator, and removes them."""

    def __init__(self, sysadmin: RestClient, prefix: str) -> None:
        self._sysadmin = sysadmin
        self.prefix = prefix
        self._profiles: dict[str, dict[str, Any]] = {}
        self._tenants: list[str] = []

    async def make(self, limits: Limits) -> Tenant:
        """Create a tenant with these limits."""
        name = f"{self.prefix}-{len(self._tenants) + 1}"
        # Other fields are required and depend on the server version, so they come from the server's default profile.
        default = await self._sysadmin.get("/api/tenantProfileInfo/default")
        profile = await self._sysadmin.get(f"/api/tenantProfile/{default['id']['id']}")
        profile |= {"id": None, "createdTime": 0, "name": name, "default": False, "version": None}
        profile["profileData"]["configuration"] |= limits.configuration()
        profile = await self._sysadmin.post("/api/tenantProfile", profile)
        self._profiles[name] = profile
        tenant = await self._sysadmin.post("/api/tenant", {"title": name, "tenantProfileId": profile["id"]})
        self._tenants.append(tenant["id"]["id"])
        owner = {"authority": "TENANT_ADMIN", "tenantId": tenant["id"]}
        return Tenant(await activated_user(self._sysadmin, f"{name}@example.com", owner), name)

    async def change(self, tenant: Tenant, limits: Limits) -> None:
        """Change the limits of a tenant that this object created."""
        profile = self._profiles[tenant.prefix]
        profile["profileData"]["configuration"] |= limits.configuration()
        self._profiles[tenant.prefix] = await self._sysadmin.post("/api/tenantProfile", profile)

    async def remove(self) -> None:
        """Remove the tenants with their entities, and their profiles."""
        failures = []
        paths = [f"/api/tenant/{tenant_id}" for tenant_id in self._tenants]
        paths += [f"/api/tenantProfile/{profile['id']['id']}" for profile in self._profiles.values()]
        for path in paths:
            try:
                await self._sysadmin.delete(path)
            except RestError as error:
                if error.status != 404:
                    failures.append(error)
        self._tenants.clear()
        self._profiles.clear()
        if failures:
            raise ExceptionGroup(f"tenants named {self.prefix}... could not be removed", failures)
