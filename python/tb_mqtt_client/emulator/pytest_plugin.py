"""A pytest plugin with the fixture ``tb_emulator``; requires pytest-asyncio.

Enable it in the top-level ``conftest.py``: ``pytest_plugins = ["tb_mqtt_client.emulator.pytest_plugin"]``.
"""

from collections.abc import AsyncIterator

import pytest_asyncio

from tb_mqtt_client.emulator.server import Emulator


@pytest_asyncio.fixture
async def tb_emulator() -> AsyncIterator[Emulator]:
    """Yield a new emulator that listens on a free port."""
    async with Emulator() as emulator:
        yield emulator
