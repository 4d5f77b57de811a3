"""A tenant of the ThingsBoard under test: creates entities with one name prefix, reads stored data and removes the entities."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from thingsboard.rest import RestClient, RestError

Scope: TypeAlias = Literal["CLIENT_SCOPE", "SHARED_SCOPE", "SERVER_SCOPE"]
OtaKind: TypeAlias = Literal["FIRMWARE", "SOFTWARE"]

# Seconds until data is stored: a PUBACK only confirms that the message is queued.
STORED_WITHIN = 60.0
_PAGE = 1000
T = TypeVar("T")


class Device(NamedTuple):
    """A device; `token` is its access token."""

    id: str
    name: str
    token: str


class Point(NamedTuple):
    """One stored datapoint; `value` has its stored type."""

    ts: int
    value: Any


class NotStoredError(AssertionError):
    """The platform did not return the expected data in time."""


class Tenant:
    """Creates entities whose names start with a prefix; devices that a gateway under test announces must have it too."""

    def __init__(self, rest: RestClient, prefix: str) -> None:
        self.rest = rest
        self.prefix = prefix
        self._numbers = itertools.count(1)

    def name(self, purpose: str) -> str:
        """Return an unused name for an entity."""
        return f"{self.prefix}-{next(self._numbers)}-{purpose}"

    # Devices.

    async def device(
        self,
        name: str | None = None,
        *,
        gateway: bool = False,
        profile_id: str | None = None,
        credentials: dict[str, Any] | None = None,
    ) -> Device:
        """Create a device. Without `credentials` the platform generates an access token."""
        body: dict[str, Any] = {"name": name or self.name("gateway" if gateway else "device")}
        if gateway:
            body["additionalInfo"] = {"gateway": True}
        if profile_id is not None:
            body["deviceProfileId"] = {"entityType": "DEVICE_PROFILE", "id": profile_id}
        if credentials is None:
            made = await self.rest.post("/api/device", body)
        else:
            made = await self.rest.post("/api/device-with-credentials", {"device": body, "credentials": credentials})
        return await self.as_device(made)

    async def as_device(self, document: dict[str, Any]) -> Device:
        """Return a device from its REST form."""
        credentials = await self.credentials(document["id"]["id"])
        return Device(document["id"]["id"], document["name"], credentials["credentialsId"])

    async def credentials(self, device_id: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.rest.get(f"/api/device/{device_id}/credentials")
        return found

    async def device_named(self, name: str) -> dict[str, Any] | None:
        """Return the REST form of a device, or None if there is no device with this name."""
        try:
            found: dict[str, Any] = await self.rest.get("/api/tenant/devices", deviceName=name)
        except RestError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def until_device(self, name: str) -> Device:
        """Wait until a device that a gateway announces exists, and return it."""
        found = await until(lambda: self.device_named(name), f"the device {name!r}")
        assert found is not None
        return await self.as_device(found)

    async def rename(self, device_id: str, name: str) -> None:
        await self._change_device(device_id, {"name": name})

    async def delete_device(self, device_id: str) -> None:
        await self.rest.delete(f"/api/device/{device_id}")

    async def _change_device(self, device_id: str, changes: dict[str, Any]) -> None:
        document = await self.rest.get(f"/api/device/{device_id}")
        await self.rest.post("/api/device", document | changes)

    # Profiles and packages.

    async def profile(self, **changes: Any) -> str:
        """Create a device profile and return its id. `changes` are fields of its REST form."""
        name = changes.pop("name", None) or self.name("profile")
        if "rule_chain" in changes:
            changes["defaultRuleChainId"] = {"entityType": "RULE_CHAIN", "id": changes.pop("rule_chain")}
        data = {"configuration": {"type": "DEFAULT"}, "transportConfiguration": {"type": "DEFAULT"}, "alarms": None}
        data["provisionConfiguration"] = changes.pop("provision", {"type": "DISABLED"})
        body = {"name": name, "type": "DEFAULT", "transportType": "DEFAULT", "profileData": data} | changes
        body.setdefault("provisionType", "DISABLED")
        made = await self.rest.post("/api/deviceProfile", body)
        profile_id: str = made["id"]["id"]
        return profile_id

    async def provisioning_profile(
        self, strategy: Literal["ALLOW_CREATE_NEW_DEVICES", "CHECK_PRE_PROVISIONED_DEVICES"] = "ALLOW_CREATE_NEW_DEVICES"
    ) -> tuple[str, str, str]:
        """Create a device profile that allows provisioning, and return its id, key and secret."""
        key, secret = self.name("key"), self.name("secret")
        provision = {"type": strategy, "provisionDeviceSecret": secret}
        return await self.profile(provisionType=strategy, provisionDeviceKey=key, provision=provision), key, secret

    async def echo_rule_chain(self) -> str:
        """Create a rule chain that replies to client-side RPC with the method and params, and return its id."""
        made = await self.rest.post("/api/ruleChain", {"name": self.name("echo"), "type": "CORE", "debugMode": False})
        names = {f"{name}MetaDataAttribute": name for name in ("serviceId", "sessionId", "requestId")}
        node = {"type": "org.thingsboard.rule.engine.rpc.TbSendRPCReplyNode", "name": "reply", "configuration": names}
        chain = {"ruleChainId": made["id"], "firstNodeIndex": 0, "nodes": [node | {"additionalInfo": {}}], "connections": []}
        await self.rest.post("/api/ruleChain/metadata", chain | {"ruleChainConnections": []})
        rule_chain_id: str = made["id"]["id"]
        return rule_chain_id

    async def package(
        self,
        profile_id: str,
        version: str,
        data: bytes | None = None,
        *,
        kind: OtaKind = "FIRMWARE",
        algorithm: str = "SHA256",
        url: str = "",
    ) -> str:
        """Create an OTA package with an image or a URL, and return its id."""
        body: dict[str, Any] = {"title": self.name("package"), "version": version, "type": kind, "tag": None}
        body["deviceProfileId"] = {"entityType": "DEVICE_PROFILE", "id": profile_id}
        if data is None:
            body |= {"url": url, "isURL": True}
        made = await self.rest.post("/api/otaPackage", body)
        if data is not None:
            await self.rest.upload(f"/api/otaPackage/{made['id']['id']}", data, checksumAlgorithm=algorithm)
        package_id: str = made["id"]["id"]
        return package_id

    async def assign_package(self, device_id: str, package_id: str | None, *, kind: OtaKind = "FIRMWARE") -> None:
        """Assign a package, or unassign it if the id is `None`."""
        field = "firmwareId" if kind == "FIRMWARE" else "softwareId"
        assigned = None if package_id is None else {"entityType": "OTA_PACKAGE", "id": package_id}
        await self._change_device(device_id, {field: assigned})

    # Stored data.

    async def telemetry(
        self, device_id: str, keys: Iterable[str], *, start: int = 0, end: int = 10**15, limit: int = 50_000
    ) -> dict[str, list[Point]]:
        """Return the stored datapoints of these keys with `start <= ts < end`, oldest first."""
        query = {"keys": ",".join(keys), "startTs": start, "endTs": end, "limit": limit, "orderBy": "ASC"}
        found = await self.rest.get(_telemetry(device_id, "values/timeseries"), **query, useStrictDataTypes="true")
        return {key: [Point(point["ts"], point["value"]) for point in points] for key, points in found.items()}

    async def latest(self, device_id: str) -> dict[str, Point]:
        """Return the latest value of every key."""
        found = await self.rest.get(_telemetry(device_id, "values/timeseries"), useStrictDataTypes="true")
        # The platform returns one null for each requested key that it does not have.
        return {key: Point(points[0]["ts"], points[0]["value"]) for key, points in found.items() if points[0]["value"] is not None}

    async def count(self, device_id: str, keys: Iterable[str], *, start: int, end: int) -> int:
        """Return the number of stored datapoints of these keys with `start <= ts < end`."""
        query = {"keys": ",".join(keys), "startTs": start, "endTs": end, "agg": "COUNT", "interval": end - start, "limit": 1}
        found = await self.rest.get(_telemetry(device_id, "values/timeseries"), **query, useStrictDataTypes="true")
        return sum(int(point["value"]) for points in found.values() for point in points)

    async def attributes(self, device_id: str, scope: Scope = "CLIENT_SCOPE") -> dict[str, Any]:
        """Return all attributes of a scope."""
        found = await self.rest.get(_telemetry(device_id, f"values/attributes/{scope}"))
        return {one["key"]: one["value"] for one in found}

    async def set_shared(self, device_id: str, values: dict[str, Any]) -> None:
        await self.rest.post(_telemetry(device_id, "attributes/SHARED_SCOPE"), values)

    async def delete_shared(self, device_id: str, keys: Iterable[str]) -> None:
        await self.rest.delete(_telemetry(device_id, "SHARED_SCOPE"), keys=",".join(keys))

    async def rpc(self, device_id: str, method: str, params: Any = None, *, oneway: bool = False, timeout: float = 10) -> Any:
        """Send a server-side RPC request and return the reply.

        Raises:
            RestError: No reply within `timeout` seconds (status 504), or the device is not reachable (409).
        """
        body = {"method": method, "params": params, "persistent": False, "timeout": int(timeout * 1000)}
        kind = "oneway" if oneway else "twoway"
        return await self.rest.post(f"/api/rpc/{kind}/{device_id}", body)

    # Customers.

    async def customer_user(self) -> tuple[str, RestClient]:
        """Create a customer with one user, and return the customer's id and a REST client of the user."""
        made = await self.rest.post("/api/customer", {"title": self.name("customer")})
        customer_id: str = made["id"]["id"]
        owner = {"authority": "CUSTOMER_USER", "customerId": made["id"], "tenantId": made["tenantId"]}
        return customer_id, await activated_user(self.rest, f"{self.name('user')}@example.com", owner)

    # Removal.

    async def remove_everything(self) -> list[str]:
        """Remove all entities with the prefix and return their names. A failure does not prevent the removal of others."""
        removed, failures = [], []
        for listing, item, name in (
            # The order matters: a device refers to packages and a profile, and a profile to a rule chain.
            ("/api/tenant/devices", "/api/device", "name"),
            ("/api/otaPackages", "/api/otaPackage", "title"),
            ("/api/deviceProfiles", "/api/deviceProfile", "name"),
            ("/api/ruleChains", "/api/ruleChain", "name"),
            ("/api/customers", "/api/customer", "title"),
        ):
            try:
                mine = await self._mine(listing, name)
            except RestError as error:
                failures.append(error)
                continue
            for entity_id, found in mine:
                try:
                    await self.rest.delete(f"{item}/{entity_id}")
                except RestError as error:
                    # An entity that no longer exists needs no removal.
                    if error.status != 404:
                        failures.append(error)
                else:
                    removed.append(found)
        if failures:
            raise ExceptionGroup(f"entities named {self.prefix}... could not be removed", failures)
        return removed

    async def _mine(self, listing: str, name: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for page in itertools.count():
            response = await self.rest.get(listing, pageSize=_PAGE, page=page, textSearch=self.prefix)
            found += [(one["id"]["id"], one[name]) for one in response["data"] if one[name].startswith(self.prefix)]
            if not response["hasNext"]:
                break
        return found


async def activated_user(rest: RestClient, email: str, owner: dict[str, Any]) -> RestClient:
    """Create a user with a password, and return a REST client of the user."""
    made = await rest.post("/api/user", {"email": email} | owner, sendActivationMail="false")
    link = await rest.get(f"/api/user/{made['id']['id']}/activationLink")
    token = link.partition("activateToken=")[2].partition("&")[0]
    user = RestClient(rest.url, email, f"pw-{email}")
    activation = {"activateToken": token, "password": f"pw-{email}"}
    await asyncio.to_thread(user.anonymous, "POST", "/api/noauth/activate", activation, query={"sendActivationMail": "false"})
    return user


async def until(read: Callable[[], Awaitable[T]], expected: str, *, within: float = STORED_WITHIN) -> T:
    """Read repeatedly until the result is truthy, and return it.

    Raises:
        NotStoredError: It is not within `within` seconds; the text has `expected` and what was read last.
    """
    deadline = time.monotonic() + within
    while not (found := await read()):
        if time.monotonic() > deadline:
            raise NotStoredError(f"ThingsBoard did not return {expected} within {within:g} s; the last result was {found!r}")
        await asyncio.sleep(0.1)
    return found


def _telemetry(device_id: str, path: str) -> str:
    return f"/api/plugins/telemetry/DEVICE/{device_id}/{path}"
