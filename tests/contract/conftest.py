"""One platform for every contract test: the emulator, or with `make server-test` a running ThingsBoard."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from platforms import EmulatorPlatform, Platform, ServerPlatform, Thing

from tb_mqtt_client.emulator import Emulator
from thingsboard.settings import Settings


@pytest.fixture
async def platform(request: pytest.FixtureRequest, thingsboard: Settings | None) -> AsyncIterator[Platform]:
    if thingsboard is None:
        async with Emulator(core_timeout=0) as emulator:
            yield EmulatorPlatform(emulator)
    else:
        # A fixture by its name: the emulator has no tenant to open.
        async with request.getfixturevalue("open_tenant")() as tenant:
            yield ServerPlatform(thingsboard, tenant)


@pytest.fixture
async def device(platform: Platform) -> Thing:
    return await platform.device()


@pytest.fixture
async def gateway(platform: Platform) -> Thing:
    return await platform.device(gateway=True)
