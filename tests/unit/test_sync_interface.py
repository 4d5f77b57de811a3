"""The synchronous clients have the methods and parameters of the asyncio clients, so that they cannot drift apart."""

import inspect

import pytest

import tb_mqtt_client
from tb_mqtt_client import sync

ONLY_ASYNCIO = {
    # For programs that bring their own threads; the synchronous clients use them themselves.
    "submit", "submit_many", "encode_timeseries", "encode_attributes", "encode_device_timeseries", "encode_device_attributes",
    "encode_timeseries_of_devices",
    "require_accepting", "report_callback_error", "connects_in_background", "accepts_names",
    # All methods of the synchronous clients are plain functions, and return a `Delivery` with `wait=False`.
    "enqueue_timeseries", "enqueue_attributes", "enqueue_device_timeseries", "enqueue_device_attributes",
    # Names of SDK 2.0, which had no synchronous client.
    "send_telemetry", "SUBSCRIPTIONS_TIMEOUT",
}  # fmt: skip
ONLY_SYNC = {"EXIT_TIMEOUT", "send_uplinks"}
RENAMED = {"wait_for_publish": "wait"}
CLASSES = [
    (tb_mqtt_client.DeviceClient, sync.DeviceClient),
    (tb_mqtt_client.GatewayClient, sync.GatewayClient),
    (tb_mqtt_client.DeviceSession, sync.DeviceSession),
]
METHODS = [
    (name, asyncio_class, sync_class)
    for asyncio_class, sync_class in CLASSES
    for name in sorted(dir(asyncio_class))
    if not name.startswith("_") and name not in ONLY_ASYNCIO and inspect.isfunction(getattr(asyncio_class, name))
]


def public(one):
    return {name for name in dir(one) if not name.startswith("_")}


@pytest.mark.parametrize(("asyncio_class", "sync_class"), CLASSES)
def test_both_have_the_same_names(asyncio_class, sync_class):
    assert public(asyncio_class) - ONLY_ASYNCIO == public(sync_class) - ONLY_SYNC


@pytest.mark.parametrize(("name", "asyncio_class", "sync_class"), METHODS)
def test_a_method_has_the_same_parameters(name, asyncio_class, sync_class):
    theirs, ours = (inspect.signature(getattr(one, name)).parameters.values() for one in (asyncio_class, sync_class))
    assert [(one.name, one.kind, one.default) for one in ours] == [
        (RENAMED.get(one.name, one.name), one.kind, one.default) for one in theirs
    ]


@pytest.mark.parametrize(("name", "asyncio_class", "sync_class"), METHODS)
def test_a_method_documents_the_same_parameters(name, asyncio_class, sync_class):
    def documented(one):
        text = inspect.getdoc(getattr(one, name))
        return [parameter for parameter in inspect.signature(getattr(one, name)).parameters if f"{parameter}:" in text]

    assert documented(sync_class) == [RENAMED.get(one, one) for one in documented(asyncio_class)]


@pytest.mark.parametrize("one", [sync.DeviceClient, sync.GatewayClient])
def test_no_method_is_a_coroutine_function(one):
    assert not [name for name in public(one) if inspect.iscoroutinefunction(getattr(one, name))]


def test_the_exceptions_of_the_comparison_exist():
    known = set().union(*(public(asyncio_class) for asyncio_class, _ in CLASSES))
    assert known >= ONLY_ASYNCIO
