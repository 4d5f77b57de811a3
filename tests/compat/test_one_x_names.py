"""The modules of SDK 1.x have its names, and the names have its parameters, bases and values.

``one_x_names.json`` describes version 1.13.14. It has no names with two leading underscores, which were private to their class.
"""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import tb_device_http
import tb_device_mqtt
import tb_gateway_mqtt

NAMES = json.loads(Path(__file__).with_name("one_x_names.json").read_text())
CLASSES = [(module, name) for module, content in NAMES.items() for name in content.get("classes", {})]


def value(described):
    """Return the value of a constant. JSON has no dicts with numbers as keys, so dicts are lists of pairs."""
    is_dict = isinstance(described, list) and described and all(isinstance(one, list) for one in described)
    return dict(described) if is_dict else described


def parameters(text):
    """Return kind and default of each parameter of ``(self, a, b=1, **kwargs)``."""
    namespace = {}
    exec(f"def described{text}: pass", namespace)  # the text is from a file of this repository
    return [(one.name, one.kind, one.default) for one in inspect.signature(namespace["described"]).parameters.values()]


def actual_parameters(function):
    return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("module", NAMES)
def test_a_module_has_its_names(module):
    found, content = importlib.import_module(module), NAMES[module]
    for name, described in content.get("constants", {}).items():
        assert getattr(found, name) == value(described), name
    missing = [name for name in [*content.get("names", ()), *content.get("reexports", ())] if not hasattr(found, name)]
    assert missing == []
    for name, text in content.get("functions", {}).items():
        assert actual_parameters(getattr(found, name)) == parameters(text), name
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        found.missing  # noqa: B018


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_a_class_has_its_members(module, name):
    found, content = getattr(importlib.import_module(module), name), NAMES[module]["classes"][name]
    assert set(content.get("bases", ())) <= {base.__name__ for base in found.__mro__}
    for member, described in content.get("members", {}).items():
        assert found[member].value == described
    for constant, described in content.get("constants", {}).items():
        assert getattr(found, constant) == value(described), constant
    assert [one for one in content.get("class_names", ()) if not hasattr(found, one)] == []
    for attribute in content.get("properties", ()):
        if attribute != "__dict__":
            assert isinstance(inspect.getattr_static(found, attribute), property), attribute


@pytest.mark.parametrize(("module", "name"), CLASSES)
@pytest.mark.parametrize(("section", "kind"), [("methods", None), ("static", staticmethod), ("class", classmethod)])
def test_a_method_has_its_parameters(module, name, section, kind):
    found, content = getattr(importlib.import_module(module), name), NAMES[module]["classes"][name]
    for method, text in content.get(section, {}).items():
        static = inspect.getattr_static(found, method)
        assert kind is None or isinstance(static, kind), method
        assert actual_parameters(getattr(static, "__func__", static)) == parameters(text), method


def test_an_instance_has_its_attributes():
    instances = {
        "TBDeviceMqttClient": tb_device_mqtt.TBDeviceMqttClient("host"),
        "TBGatewayMqttClient": tb_gateway_mqtt.TBGatewayMqttClient("host"),
        "RateLimit": tb_device_mqtt.RateLimit("1:1"),
        "GreedyTokenBucket": tb_device_mqtt.GreedyTokenBucket(1, 1),
        "TBPublishInfo": tb_device_mqtt.TBPublishInfo([]),
        "TBHTTPDevice": tb_device_http.TBHTTPDevice("host", "token"),
    }
    described = {
        name: NAMES[module]["classes"][name]["attributes"]
        for module, name in CLASSES
        if "attributes" in NAMES[module]["classes"][name]
    }
    assert described.keys() == instances.keys()
    missing = {name: [one for one in attributes if not hasattr(instances[name], one)] for name, attributes in described.items()}
    assert [name for name, attributes in missing.items() if attributes] == []


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_what_is_left_out_is_documented(module, name):
    text = (Path(__file__).parents[2] / "docs" / "differences-1x.md").read_text()
    found, content = getattr(importlib.import_module(module), name), NAMES[module]["classes"][name]
    for one in content.get("left_out", ()):
        assert f"`{one}`" in text
        assert not hasattr(found, one), f"{one} is not left out any more"


@pytest.mark.parametrize("module", NAMES)
def test_the_import_of_a_module_does_no_work(module):
    program = f"""
import sys, threading
import {module}
unwanted = {{"requests", "mmh3", "paho", "tb_mqtt_client.emulator"}} & set(sys.modules)
sys.exit(f"{{unwanted}} {{threading.enumerate()}}" if unwanted or threading.active_count() != 1 else 0)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
