"""A pytest fixture: ``pytest_plugins = ["tb_mqtt_client.emulator.pytest_plugin"]`` in a conftest.py (needs pytest-asyncio)."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tb_mqtt_client.emulator.server import Emulator


@pytest_asyncio.fixture
async def tb_emulator() -> AsyncIterator[Emulator]:
    """An emulator on a free port, of this test's own."""
    async with Emulator() as emulator:
        yield emulator
