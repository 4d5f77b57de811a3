"""The platform under test: the emulator, or a running ThingsBoard with `make server-test`."""

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
        # Requested by name, because the emulator has no tenant.
        async with request.getfixturevalue("open_tenant")() as tenant:
            yield ServerPlatform(thingsboard, tenant)


@pytest.fixture
async def device(platform: Platform) -> Thing:
    return await platform.device()


@pytest.fixture
async def gateway(platform: Platform) -> Thing:
    return await platform.device(gateway=True)
