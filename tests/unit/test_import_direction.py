"""Imports point down: between the layers, between the subpackages of the service layer, and without a cycle at any level.

Imports for annotations count too, because they show a dependency of the design.
"""

import graphlib

import pytest

from package_imports import LAYERS, MODULES, PACKAGE, imports, in_module, module_of, own_imports, part

SERVICE_ORDER = (
    "gateway",
    "device",
    "ota",
    "engine",
    "sends",
    "health",
    "connection_events",
    "message_service",
    "mqtt_manager",
    "requests",
    "session",
    "store",
    "delivery",
    "formats",
)
"""The parts of the service layer from the top down: a part imports itself and those after it."""
SERVICE_TOOLS = ("base_message_splitter", "call_guard", "life_cycle")
"""Modules that any part of the service layer may import, and that import no part of it above ``delivery``."""

MAY_IMPORT_GMQTT = (
    "common.gmqtt_patch",
    "common.mqtt.gmqtt_bases",
    "common.mqtt.packets",
    "service.mqtt_manager",
    "service.session.connecting",
    "service.session.subscriptions",
    # Its codec uses that of gmqtt.
    "emulator",
)
"""The modules and packages that may import gmqtt."""

MAY_IMPORT_NATIVE_CORE = (
    "",
    "constants.json_typing",
    "entities.data",
    "common.mqtt_message",
    "common.delivery",
    "common.async_utils",
    "common.rate_limit",
    "service.base_message_splitter",
    "service.formats",
    "service.delivery",
    "service.store",
    "service.message_service",
    "service.sends",
    "service.device.client",
    "service.gateway",
    "sync.device",
    "sync.runtime",
    "one_x",
    "bench",
)
"""The modules and packages that may import the native core: values, limits, and the pipeline from a send to a payload."""


def is_within(name, places):
    return any(name == place or (place and name.startswith(f"{place}.")) for place in places)


def cycles(modules, level):
    """Return a cycle among the parts of a package, or None; ``level`` is the depth of the package."""
    needs = {}
    for name in modules:
        own = ".".join(name.split(".")[: level + 1])
        needed = {
            ".".join(other.split(".")[: level + 1])
            for imported in own_imports(name, MODULES[name])
            if (other := module_of(imported)) in modules
        }
        needs.setdefault(own, set()).update(needed - {own})
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


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
    allowed = {*LAYERS[LAYERS.index(part(name)) :], "_native"}
    upwards = [imported for imported in own_imports(name, MODULES[name]) if part(imported) not in allowed]
    assert not upwards, f"{part(name)} may import {', '.join(sorted(allowed))} only"


def service_part(name):
    """Return the part of the service layer that a module belongs to, or an empty string."""
    layer, _, rest = name.partition(".")
    return part(rest) if layer == "service" else ""


@pytest.mark.parametrize("name", [name for name in MODULES if service_part(name)])
def test_a_part_of_the_service_layer_imports_no_part_above_it(name):
    own = service_part(name)
    assert own in SERVICE_ORDER + SERVICE_TOOLS
    needed = {service_part(module_of(imported)) for imported in own_imports(name, MODULES[name])} - {"", own}
    below = SERVICE_ORDER[SERVICE_ORDER.index("delivery") :] if own in SERVICE_TOOLS else SERVICE_ORDER[SERVICE_ORDER.index(own) :]
    assert needed <= {*below, *SERVICE_TOOLS}


def test_there_is_no_cycle_of_modules():
    assert cycles(set(MODULES), max(name.count(".") for name in MODULES)) is None


PACKAGES = sorted({"", *(name.rpartition(".")[0] for name in MODULES)})


@pytest.mark.parametrize("package", PACKAGES)
def test_there_is_no_cycle_in_a_package(package):
    """No cycle between the modules and subpackages of one package."""
    inside = {name for name in MODULES if name and (not package or name.startswith(f"{package}."))}
    assert cycles(inside, package.count(".") + 1 if package else 0) is None


@pytest.mark.parametrize("name", [name for name in MODULES if part(name) == "emulator"])
def test_the_emulator_imports_no_code_of_the_client(name):
    # The emulator stands for the platform: tests could not find a mistake in code that it shares with the client.
    client = [imported for imported in own_imports(name, MODULES[name]) if part(imported) in ("", "service", "common", "demo")]
    assert not client


@pytest.mark.parametrize("name", MODULES)
def test_only_listed_modules_import_gmqtt(name):
    knows = any(in_module(imported, "gmqtt") for imported in imports(name, MODULES[name]))
    assert not knows or is_within(name, MAY_IMPORT_GMQTT)


@pytest.mark.parametrize("name", MODULES)
def test_only_listed_modules_import_the_native_core(name):
    knows = any(in_module(imported, "_native") for imported in own_imports(name, MODULES[name]))
    assert not knows or is_within(name, MAY_IMPORT_NATIVE_CORE)


@pytest.mark.parametrize("places", [MAY_IMPORT_GMQTT, MAY_IMPORT_NATIVE_CORE], ids=["gmqtt", "native core"])
def test_listed_modules_exist(places):
    assert not [place for place in places if not any(is_within(name, [place]) for name in MODULES)]


def test_every_part_of_the_service_layer_has_a_place():
    assert {*SERVICE_ORDER, *SERVICE_TOOLS} == {service_part(name) for name in MODULES} - {""}
