"""A common interface of the two platforms for contract tests: the emulator and a running ThingsBoard."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from tb_mqtt_client.emulator import BasicCredentials, Emulator, OtaPackage, ValueKind
from thingsboard.settings import Settings
from thingsboard.tenant import Device, Tenant, until

Strategy: TypeAlias = Literal["ALLOW_CREATE_NEW_DEVICES", "CHECK_PRE_PROVISIONED_DEVICES"]


class Thing(NamedTuple):
    """A device or a gateway; `token` is its access token."""

    name: str
    token: str


class Provisioning(NamedTuple):
    """The key and secret for provisioning, and the device profile that it sets."""

    key: str
    secret: str
    profile: str


class Platform(Protocol):
    """Operations of a platform that contract tests need in addition to MQTT: entities and stored data."""

    host: str
    port: int
    # Seconds to wait for a packet; 0 if all packets arrive before the response to the next ping.
    patience: float

    def name(self, purpose: str) -> str:
        """Return an unused name."""

    async def device(self, *, gateway: bool = False, profile: str | None = None) -> Thing:
        """Create a device or gateway with an access token."""

    async def basic_device(self, client_id: str, username: str, password: str) -> None:
        """Create a device with MQTT basic credentials."""

    async def provisioning(self, strategy: Strategy = "ALLOW_CREATE_NEW_DEVICES") -> Provisioning:
        """Create a device profile that allows provisioning."""

    async def exists(self, name: str) -> bool:
        """Return True if there is a device with this name."""

    async def profile_of(self, name: str) -> str:
        """Wait until the device exists, and return the name of its profile."""

    async def telemetry(self, name: str) -> dict[str, list[tuple[int, Any]]]:
        """Return the stored `(ts, value)` pairs of each key, oldest first; values have their stored types."""

    async def attributes(self, name: str) -> dict[str, Any]:
        """Return the stored client attributes."""

    async def set_shared(self, name: str, values: dict[str, Any]) -> None: ...

    async def delete_shared(self, name: str, keys: Iterable[str]) -> None: ...

    async def start_rpc(self, name: str, method: str, params: Any) -> None:
        """Send a one-way server-side RPC request."""

    async def assign_firmware(self, name: str, image: bytes | None) -> None:
        """Assign a firmware package with an image, or with a URL if `image` is `None`."""

    async def unassign_firmware(self, name: str) -> None: ...

    async def rename(self, name: str, new_name: str) -> None: ...

    async def delete(self, name: str) -> None: ...


class EmulatorPlatform:
    """The emulator, which `make test` uses."""

    patience = 0.0

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.host = emulator.host
        self.port = emulator.port
        self._numbers = itertools.count(1)

    def name(self, purpose: str) -> str:
        return f"{purpose} {next(self._numbers)}"

    async def device(self, *, gateway: bool = False, profile: str | None = None) -> Thing:
        thing = Thing(self.name("gateway" if gateway else "device"), self.name("token"))
        add = self.emulator.add_gateway if gateway else self.emulator.add_device
        add(thing.token, thing.name, profile=profile or "default")
        return thing

    async def basic_device(self, client_id: str, username: str, password: str) -> None:
        self.emulator.add_device(BasicCredentials(client_id, username, password), self.name("device"))

    async def provisioning(self, strategy: Strategy = "ALLOW_CREATE_NEW_DEVICES") -> Provisioning:
        made = Provisioning(self.name("key"), self.name("secret"), self.name("profile"))
        self.emulator.add_provision_profile(made.key, made.secret, strategy=strategy, profile=made.profile)
        return made

    async def exists(self, name: str) -> bool:
        return name in self.emulator.devices

    async def profile_of(self, name: str) -> str:
        return self.emulator.device(name).profile

    async def telemetry(self, name: str) -> dict[str, list[tuple[int, Any]]]:
        found: dict[str, dict[int, Any]] = {}
        for point in self.emulator.device(name).stored_telemetry:
            if point.kind is not ValueKind.DROPPED:
                found.setdefault(point.key, {})[point.ts] = point.value
        return {key: sorted(points.items()) for key, points in found.items()}

    async def attributes(self, name: str) -> dict[str, Any]:
        return {
            key: one.value for key, one in self.emulator.device(name).stored_attributes.items() if one.kind is not ValueKind.DROPPED
        }

    async def set_shared(self, name: str, values: dict[str, Any]) -> None:
        await self.emulator.set_shared_attributes(name, values)

    async def delete_shared(self, name: str, keys: Iterable[str]) -> None:
        await self.emulator.delete_shared_attributes(name, keys)

    async def start_rpc(self, name: str, method: str, params: Any) -> None:
        await self.emulator.call_rpc(name, method, params, oneway=True)

    async def assign_firmware(self, name: str, image: bytes | None) -> None:
        package = (
            OtaPackage("package", "1.0", url="http://127.0.0.1/image") if image is None else OtaPackage("package", "1.0", image)
        )
        await self.emulator.assign_package(name, package)

    async def unassign_firmware(self, name: str) -> None:
        await self.emulator.unassign_package(name)

    async def rename(self, name: str, new_name: str) -> None:
        await self.emulator.rename_device(name, new_name)

    async def delete(self, name: str) -> None:
        await self.emulator.delete_device(name)


class ServerPlatform:
    """A running ThingsBoard."""

    patience = 3.0

    def __init__(self, settings: Settings, tenant: Tenant) -> None:
        self.host = settings.mqtt_host
        self.port = settings.mqtt_port
        self.tenant = tenant
        self._profiles: dict[str, str] = {}
        self._ids: dict[str, str] = {}

    def name(self, purpose: str) -> str:
        return self.tenant.name(purpose)

    async def device(self, *, gateway: bool = False, profile: str | None = None) -> Thing:
        made = await self.tenant.device(gateway=gateway, profile_id=None if profile is None else self._profiles[profile])
        self._ids[made.name] = made.id
        return Thing(made.name, made.token)

    async def basic_device(self, client_id: str, username: str, password: str) -> None:
        value = f'{{"clientId":"{client_id}","userName":"{username}","password":"{password}"}}'
        await self.tenant.device(credentials={"credentialsType": "MQTT_BASIC", "credentialsValue": value})

    async def provisioning(self, strategy: Strategy = "ALLOW_CREATE_NEW_DEVICES") -> Provisioning:
        profile_id, key, secret = await self.tenant.provisioning_profile(strategy)
        profile = await self.tenant.rest.get(f"/api/deviceProfile/{profile_id}")
        self._profiles[profile["name"]] = profile_id
        return Provisioning(key, secret, profile["name"])

    async def exists(self, name: str) -> bool:
        return await self.tenant.device_named(name) is not None

    async def profile_of(self, name: str) -> str:
        found = await until(lambda: self.tenant.device_named(name), f"the device {name!r}")
        assert found is not None
        profile: str = found["type"]
        return profile

    async def telemetry(self, name: str) -> dict[str, list[tuple[int, Any]]]:
        device_id = await self._id(name)
        # The history of every key, because the listing has only the latest values. The API cannot request keys with commas.
        latest = await self.tenant.latest(device_id)
        found: dict[str, list[tuple[int, Any]]] = {key: [tuple(point)] for key, point in latest.items()}
        found |= await self._histories(device_id, [key for key in latest if "," not in key])
        return found

    async def _histories(self, device_id: str, keys: list[str]) -> dict[str, list[tuple[int, Any]]]:
        histories = await self.tenant.telemetry(device_id, keys) if keys else {}
        return {key: [tuple(point) for point in points] for key, points in histories.items()}

    async def attributes(self, name: str) -> dict[str, Any]:
        return await self.tenant.attributes(await self._id(name))

    async def set_shared(self, name: str, values: dict[str, Any]) -> None:
        await self.tenant.set_shared(await self._id(name), values)

    async def delete_shared(self, name: str, keys: Iterable[str]) -> None:
        await self.tenant.delete_shared(await self._id(name), keys)

    async def start_rpc(self, name: str, method: str, params: Any) -> None:
        await self.tenant.rpc(await self._id(name), method, params, oneway=True)

    async def assign_firmware(self, name: str, image: bytes | None) -> None:
        profile_id = (await self.tenant.rest.get(f"/api/device/{await self._id(name)}"))["deviceProfileId"]["id"]
        package = await self.tenant.package(profile_id, "1.0", image, url="http://127.0.0.1/image")
        await self.tenant.assign_package(await self._id(name), package)

    async def unassign_firmware(self, name: str) -> None:
        await self.tenant.assign_package(await self._id(name), None)

    async def rename(self, name: str, new_name: str) -> None:
        await self.tenant.rename(await self._id(name), new_name)

    async def delete(self, name: str) -> None:
        await self.tenant.delete_device(await self._id(name))

    async def _id(self, name: str) -> str:
        with suppress(KeyError):
            return self._ids[name]
        found: Device = await self.tenant.until_device(name)
        self._ids[name] = found.id
        return found.id
