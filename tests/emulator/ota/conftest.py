"""Fixtures of the updates' tests: a client whose device has packages, and the end of each test."""

import asyncio

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
    """The platform needs about a second, the emulator what a test says."""
    monkeypatch.setattr(update, "SETTLING_SECONDS", 0.03)


@pytest.fixture(autouse=True)
async def nothing_is_left(tmp_path, monkeypatch):
    """No task, no file that is not whole; images go to the test's own folders."""
    monkeypatch.setattr(update.tempfile, "gettempdir", lambda: str(tmp_path))
    yield
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()} == set()
    assert list(tmp_path.rglob("*.part")) == []
