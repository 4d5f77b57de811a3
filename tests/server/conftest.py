"""Fixtures: clients connected to the ThingsBoard under test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from tb_mqtt_client import DeviceClient, GatewayClient
from thingsboard.settings import Settings
from thingsboard.tenant import Device, NotStoredError, Tenant, until


@pytest.fixture(scope="session")
def address(thingsboard: Settings) -> dict[str, Any]:
    """Return the options that all clients need."""
    return {"host": thingsboard.mqtt_host, "port": thingsboard.mqtt_port}


@pytest.fixture
async def device(tenant: Tenant) -> Device:
    return await tenant.device()


@pytest.fixture
async def client(address, device):
    """Yield a connected client of the device."""
    async with DeviceClient(address | {"access_token": device.token}) as made:
        yield made


@pytest.fixture
async def gateway_device(tenant: Tenant) -> Device:
    return await tenant.device(gateway=True)


@pytest.fixture
async def gateway(address, gateway_device):
    """Yield a connected client of the gateway."""
    async with GatewayClient(address | {"access_token": gateway_device.token}) as made:
        yield made


@pytest.fixture
def eventually() -> Callable[[Callable[[], Awaitable[Any]], Any], Awaitable[None]]:
    """Return a function that waits for an expected value, because data is stored some time after its PUBACK."""

    async def wait(read: Callable[[], Awaitable[Any]], expected: Any) -> None:
        found = None

        async def is_so() -> bool:
            nonlocal found
            found = await read()
            return bool(found == expected)

        with suppress(NotStoredError):
            await until(is_so, "it")
        # The assertion shows the difference.
        assert found == expected

    return wait


class Received:
    """A callback that keeps its arguments in order."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def __call__(self, *arguments: Any) -> None:
        self._queue.put_nowait(arguments if len(arguments) > 1 else arguments[0])

    async def next(self, within: float = 60) -> Any:
        async with asyncio.timeout(within):
            return await self._queue.get()

    async def until(self, accepted: Callable[[Any], bool], within: float = 60) -> Any:
        """Return the first arguments that are accepted; earlier ones are dropped."""
        async with asyncio.timeout(within):
            while not accepted(found := await self._queue.get()):
                pass
        return found


@pytest.fixture
def received() -> Received:
    return Received()
