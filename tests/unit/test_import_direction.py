"""Imports point from service to common to entities to constants, and only listed modules import gmqtt and the native core."""

import graphlib

import pytest

from package_imports import LAYERS, MODULES, PACKAGE, imports, in_module, module_of, own_imports, part

MAY_IMPORT_GMQTT = {
    "common.gmqtt_patch",
    "common.mqtt.transport",
    "common.mqtt_message",
    "common.mqtt.packets",
    "service.session.connecting",
    "service.mqtt_manager",
    "service.session.subscriptions",
}

# Modules that wrap the native core for all others.
MAY_IMPORT_NATIVE = {
    "",
    "common.mqtt_message",
    "common.rate_limit.rate_limit",
    "constants.json_typing",
    "entities.data.attribute_entry",
    "entities.data.data_entry",
    "entities.data.device_uplink_message",
    "entities.data.timeseries_entry",
    # The pipeline: intake, packing and admission.
    "service.base_message_splitter",
    "service.engine",
    "service.formats.json_values",
    "service.gateway.sub_devices",
    "service.gateway.device_session",
    "service.formats.json_gateway",
    "service.delivery.admission",
    "service.gateway.gate",
    "service.gateway.announcer",
    "service.gateway.keep_alive",
    "service.gateway.traffic",
    "service.delivery.receipts",
    "service.delivery.intake",
    "service.delivery.learned_limits",
    "service.delivery.outcomes",
    "service.delivery.sub_devices",
    "service.delivery.packing",
    "service.delivery.work_item",
}

# Imports for annotations also count: they show a dependency of the design.
# Each exception is `(module, imported module)`, with a comment that says why.
EXCEPTIONS: set[tuple[str, str]] = set()


def test_all_layers_and_imports_are_found():
    assert {part(name) for name in MODULES} >= {*LAYERS, "emulator", "demo"}
    patch = MODULES["common.gmqtt_patch"]
    assert any(in_module(imported, "gmqtt") for imported in imports("common.gmqtt_patch", patch))


def test_every_form_of_import_is_found(tmp_path):
    source = """
import a.b
from c import d
from . import e
from ..f import g
def late():
    import h
    importlib.import_module("i")
    import_module("j")
    import_module(variable)
"""
    (path := tmp_path / "module.py").write_text(source)
    found = {"a.b", "c.d", f"{PACKAGE}.service.e", f"{PACKAGE}.f.g", "h", "i", "j"}
    assert set(imports("service.module", path)) == found


@pytest.mark.parametrize("name", [name for name in MODULES if part(name) in LAYERS])
def test_a_layer_imports_no_layer_above_it(name):
    allowed = LAYERS[LAYERS.index(part(name)) :]
    upwards = [
        imported
        for imported in own_imports(name, MODULES[name])
        if part(imported) not in (*allowed, "_native") and (name, imported) not in EXCEPTIONS
    ]
    assert not upwards, f"{part(name)} may import {', '.join(allowed)} only"


@pytest.mark.parametrize("name", [name for name in MODULES if part(name) == "emulator"])
def test_the_emulator_imports_no_code_of_the_client(name):
    # The emulator stands for the platform: tests could not find a mistake in code that it shares with the client.
    client = [imported for imported in own_imports(name, MODULES[name]) if part(imported) in ("", "service", "common", "demo")]
    assert not client


@pytest.mark.parametrize("of", sorted({part(name) for name in MODULES}))
def test_there_is_no_import_cycle(of):
    """Imports for annotations are included."""
    modules = {name for name in MODULES if part(name) == of}
    needs = {}
    for name in modules:
        needs[name] = {module_of(imported) for imported in own_imports(name, MODULES[name])} & modules
    graphlib.TopologicalSorter(needs).prepare()


@pytest.mark.parametrize("name", MODULES)
def test_only_listed_modules_import_gmqtt(name):
    knows = any(in_module(imported, "gmqtt") for imported in imports(name, MODULES[name]))
    # The codec of the emulator uses that of gmqtt.
    assert not knows or name in MAY_IMPORT_GMQTT or part(name) == "emulator"


@pytest.mark.parametrize("name", MODULES)
def test_only_listed_modules_import_the_native_core(name):
    knows = any(in_module(imported, "_native") for imported in own_imports(name, MODULES[name]))
    assert not knows or name in MAY_IMPORT_NATIVE


def test_listed_modules_exist():
    stale = (MAY_IMPORT_GMQTT | MAY_IMPORT_NATIVE | {module for module, _ in EXCEPTIONS}) - set(MODULES)
    assert not stale
