"""Importing a client loads no optional dependency, no other part of the package, and no slow module of Python."""

import subprocess
import sys

import pytest

from package_imports import LAYERS, PACKAGE, in_module

# Imports the module that its argument names, in a new interpreter, and prints the names of the loaded modules.
PROGRAM = """
import importlib, sys
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(*sorted(set(sys.modules) - before))
"""
CLIENTS = (PACKAGE, f"{PACKAGE}.service.device.client", f"{PACKAGE}.service.gateway.client")
# Each of them takes milliseconds to import, and a client does not need it.
HEAVY = ("ctypes", "email", "http", "importlib.metadata", "multiprocessing", "pydoc", "sqlite3", "tomllib", "unittest", "xml")


@pytest.fixture(params=CLIENTS)
def loaded(request):
    done = subprocess.run([sys.executable, "-c", PROGRAM, request.param], capture_output=True, text=True, timeout=60, check=True)
    modules = done.stdout.split()
    assert request.param in modules
    return modules


def test_no_optional_dependency_is_loaded(loaded):
    others = {module.partition(".")[0] for module in loaded} - set(sys.stdlib_module_names)
    assert others == {PACKAGE, "gmqtt"}


def test_no_other_part_of_the_package_is_loaded(loaded):
    own = [module.removeprefix(f"{PACKAGE}.") for module in loaded if module.startswith(f"{PACKAGE}.")]
    assert {module.partition(".")[0] for module in own} == {"_native", *LAYERS} - {"one_x", "sync"}


def test_no_slow_module_is_loaded(loaded):
    assert [module for module in loaded if any(in_module(module, heavy) for heavy in HEAVY)] == []
