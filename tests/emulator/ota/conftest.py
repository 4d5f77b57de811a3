"""Fixtures of the tests of updates: a client, a platform with packages, and a check that nothing is left."""

import asyncio
import tempfile

import pytest
from ota_platform import OtaPlatform, config

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.service.ota import update


@pytest.fixture
def platform(emulator):
    return OtaPlatform(emulator)


@pytest.fixture
async def client(emulator):
    client = DeviceClient(config(emulator))
    await client.connect()
    yield client
    await client.stop()


@pytest.fixture(autouse=True)
def assignments_settle_at_once(monkeypatch):
    """Do not wait as for the platform, which needs about a second. A test chooses the emulator's delays."""
    monkeypatch.setattr(update, "SETTLING_SECONDS", 0.03)


@pytest.fixture(autouse=True)
async def nothing_is_left(tmp_path, monkeypatch):
    """Check that no task and no temporary file is left. Temporary images are in the test's own folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()} == set()
    assert list(tmp_path.rglob("*.part")) == []
