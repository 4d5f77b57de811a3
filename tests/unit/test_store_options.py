"""The option ``store``: a path, a dict or a ``Store``; invalid values raise an error that names the option."""

from pathlib import Path

import pytest

from tb_mqtt_client import DeviceConfig, Durability, GatewayConfig, Store, WhenFull

DEFAULT = Store("queue")


@pytest.mark.parametrize("given", ["queue", Path("queue"), {"path": "queue"}, {"path": Path("queue")}, DEFAULT])
def test_what_means_a_store(given):
    assert DeviceConfig({"store": given}).store == DEFAULT == GatewayConfig({"store": given}).store


def test_the_defaults():
    assert (DEFAULT.max_bytes, DEFAULT.min_free, DEFAULT.max_age) == (512 * 2**20, 256 * 2**20, None)
    assert (DEFAULT.durability, DEFAULT.on_full, DEFAULT.commit_interval) == (Durability.GROUP, WhenFull.WAIT, 0.02)


def test_the_environment(monkeypatch):
    assert DeviceConfig({}).store is None
    monkeypatch.setenv("TB_STORE", "queue")
    assert DeviceConfig({}).store == DEFAULT
    monkeypatch.setenv("TB_GW_STORE", "of the gateway")
    assert GatewayConfig({}).store == Store("of the gateway")
    monkeypatch.setenv("TB_STORE", "")
    assert DeviceConfig({}).store is None


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (7, "store must be a path"),
        ({}, "store has no path"),
        ({"path": "queue", "size": 1}, "store has the unknown key 'size'"),
        ({"path": ""}, "path must be"),
        ({"path": 7}, "path must be"),
        ({"path": "a\0b"}, "path must not contain NUL"),
        ({"path": "queue", "max_bytes": 1000}, "max_bytes must be .* at least 1048576, not 1000"),
        ({"path": "queue", "max_bytes": True}, "max_bytes"),
        ({"path": "queue", "min_free": -1}, "min_free"),
        ({"path": "queue", "max_age": 0}, "max_age must be a positive number of seconds, not 0"),
        ({"path": "queue", "commit_interval": float("inf")}, "commit_interval"),
        ({"path": "queue", "durability": "sometimes"}, "durability must be one of group, always, spill, not 'sometimes'"),
        ({"path": "queue", "on_full": "panic"}, "on_full must be one of wait, raise, drop_oldest, drop_newest"),
    ],
)
def test_invalid_values(given, text):
    with pytest.raises(ValueError, match=text):
        DeviceConfig({"store": given})
