"""Plugins and Hypothesis profiles of all test folders."""

import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The fixture that users get too, a broker, and a real ThingsBoard if there is one.
pytest_plugins = ["tb_mqtt_client.emulator.pytest_plugin", "mosquitto_broker", "thingsboard.plugin"]

# The benchmarks measure times; property tests do not, so that a busy machine cannot fail one.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI runs the same examples each time; runs of developers search for new ones.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
# make test PYTEST_ARGS="--hypothesis-profile=hunt tests/native"
settings.register_profile("hunt", settings.get_profile("default"), max_examples=5000)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape lone surrogates, which some tests log: a report that contains one cannot be sent to another process."""
    return _without_surrogates((yield))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, (list, tuple)):
        return type(value)(map(_without_surrogates, value))
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(one) for key, one in value.items()}
    return value
