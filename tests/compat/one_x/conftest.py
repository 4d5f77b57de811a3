"""Fixtures: an emulator in a thread, and clients of SDK 1.x that are connected to it."""

import logging
import threading

import pytest
from one_x_platform import FAST, SECONDS, PlatformThread

import tb_device_mqtt
from tb_device_mqtt import TBDeviceMqttClient
from tb_gateway_mqtt import TBGatewayMqttClient


@pytest.fixture
def platform_thread(request):
    """Run an emulator; a test may choose its options."""
    platform = PlatformThread(**getattr(request, "param", {}))
    yield platform
    platform.stop()


@pytest.fixture
def device(platform_thread):
    client = TBDeviceMqttClient(platform_thread.host, platform_thread.port, "TOKEN")
    client.connect(**FAST)
    yield client
    client.disconnect()


@pytest.fixture
def gateway(platform_thread):
    client = TBGatewayMqttClient(platform_thread.host, platform_thread.port, "GATEWAY")
    client.connect(**FAST)
    yield client
    client.disconnect()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Check that the test disconnected its clients, which ends their threads."""
    yield
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("tb-mqtt")]
    for thread in threads:
        thread.join(SECONDS)
    assert [thread.name for thread in threads if thread.is_alive()] == []


@pytest.fixture(autouse=True)
def original_log():
    """Keep the logger that a test replaces."""
    log = tb_device_mqtt.log
    yield
    tb_device_mqtt.log = log
    logging.getLogger("tb_connection").setLevel(logging.NOTSET)
