"""Imports point one way: service -> common -> entities -> constants, and few modules know gmqtt and the native core."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "tb_mqtt_client"
ROOT = Path(__file__).parents[2] / "python" / PACKAGE

# From the top down: a layer imports itself and what stands after it.
LAYERS = ("service", "common", "entities", "constants")

MAY_IMPORT_GMQTT = {
    "common.gmqtt_patch",
    "common.mqtt_message",
    "service.mqtt_manager",
}

# What wraps the native core; everybody else uses these.
MAY_IMPORT_NATIVE = {
    "",
    "common.mqtt_message",
    "common.rate_limit.rate_limit",
    "constants.json_typing",
    "entities.data.attribute_entry",
    "entities.data.data_entry",
    "entities.data.device_uplink_message",
    "entities.data.timeseries_entry",
    # The road: encoded at the door, packed, admitted.
    "service.base_message_splitter",
    "service.device.client",
    "service.device.message_adapter",
    "service.gateway.client",
    "service.gateway.device_session",
    "service.gateway.message_adapter",
    "service.admission",
    "service.message_service",
    "service.uplink_packer",
}

# Imports for annotations only count too: a type that points up is a design that points up.
# Each exception is `(module, imported module)` with its reason beside it.
EXCEPTIONS: set[tuple[str, str]] = set()


def modules() -> dict[str, Path]:
    """Every module of the package by its name below the package; `""` is the package's own `__init__`."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str, path: Path) -> Iterator[str]:
    """Full names of what a module imports, inside functions and under TYPE_CHECKING too."""
    package = [PACKAGE, *name.split(".")] if name else [PACKAGE]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *(node.module.split(".") if node.module else [])])
            # `from package import x`: x may be a module.
            yield from (f"{source}.{alias.name}" for alias in node.names)


def own_imports(name: str, path: Path) -> Iterator[str]:
    """What a module imports of this package, named below it."""
    for imported in imports(name, path):
        if imported == PACKAGE:
            yield ""
        elif imported.startswith(f"{PACKAGE}."):
            yield imported.removeprefix(f"{PACKAGE}.")


def part(name: str) -> str:
    """The folder (or top-level module) that a module belongs to."""
    return name.partition(".")[0]


def in_module(imported: str, module: str) -> bool:
    return imported == module or imported.startswith(f"{module}.")


def test_the_walk_sees_the_package():
    assert {part(name) for name in MODULES} >= {*LAYERS, "emulator", "demo"}
    patch = MODULES["common.gmqtt_patch"]
    assert any(in_module(imported, "gmqtt") for imported in imports("common.gmqtt_patch", patch))


@pytest.mark.parametrize("name", [name for name in MODULES if part(name) in LAYERS])
def test_layers_import_downwards(name):
    allowed = LAYERS[LAYERS.index(part(name)) :]
    upwards = [
        imported
        for imported in own_imports(name, MODULES[name])
        if part(imported) not in (*allowed, "_native") and (name, imported) not in EXCEPTIONS
    ]
    assert not upwards, f"{part(name)} may import {', '.join(allowed)} only"


@pytest.mark.parametrize("name", [name for name in MODULES if part(name) == "emulator"])
def test_the_emulator_knows_no_client(name):
    # It stands for the peer: what it shared with the client, the client's tests could not judge.
    client = [imported for imported in own_imports(name, MODULES[name]) if part(imported) in ("", "service", "common", "demo")]
    assert not client


@pytest.mark.parametrize("name", MODULES)
def test_few_know_gmqtt(name):
    knows = any(in_module(imported, "gmqtt") for imported in imports(name, MODULES[name]))
    # The emulator's codec leans on gmqtt's.
    assert not knows or name in MAY_IMPORT_GMQTT or part(name) == "emulator"


@pytest.mark.parametrize("name", MODULES)
def test_few_know_the_native_core(name):
    knows = any(in_module(imported, "_native") for imported in own_imports(name, MODULES[name]))
    assert not knows or name in MAY_IMPORT_NATIVE


def test_the_lists_name_what_exists():
    stale = (MAY_IMPORT_GMQTT | MAY_IMPORT_NATIVE | {module for module, _ in EXCEPTIONS}) - set(MODULES)
    assert not stale
