"""The declared dependencies are exactly the imported ones: none is unused, and none is installed by chance."""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

from package_imports import MODULES, PACKAGE, imports, part

ROOT = Path(__file__).parents[2]
DEV_FOLDERS = ("tests", "benches", "examples")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DISTRIBUTIONS = importlib.metadata.packages_distributions()

# Declared but never imported, each with the reason.
NOT_IMPORTED = {
    "uvloop": "the application installs it and chooses it",
    "pytest-asyncio": "a plugin",
    "pytest-benchmark": "a plugin",
    "pytest-xdist": "a plugin",
}
# Imported but not declared, each with the reason.
NOT_DECLARED = {
    ("emulator.pytest_plugin", "pytest-asyncio"): "a program that loads the plugin has installed it",
    ("emulator.payloads", "orjson"): "optional: the emulator is faster if it is installed",
    ("bench.worker", "orjson"): "optional: it is measured if it is installed",
    ("bench.worker", "tb-device-mqtt"): "of an SDK 1.x, whose environment runs the module",
    ("bench.worker", "tb-gateway-mqtt"): "of an SDK 1.x, whose environment runs the module",
    ("common.json_annotations", "msgspec"): "imported only for an annotation that names it",
    ("common.json_annotations", "pydantic"): "imported only for an annotation that names it",
    ("one_x.paho_names", "paho"): "a program that uses further names of paho has installed it",
}
# Imported by files of the tests that run in environments of their own, each with the reason.
IN_OTHER_ENVIRONMENTS = {
    "thingsboard-gateway": "make gateway-test installs it",
    "aiomqtt": "make bench installs it",
    "paho": "make bench installs it",
}
# Packages that several distributions share, and which of these brings a module below them.
SHARED = {"opentelemetry.sdk": "opentelemetry-sdk", "opentelemetry": "opentelemetry-api"}
SDK_1X_MODULES = {path.stem for path in (ROOT / "python").glob("*.py")}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def named(requirements):
    """Return the names of the distributions in some requirements."""
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def installed_requirements():
    """Return the required and the optional dependencies, as in the metadata that installers read."""
    always, extras = set(), set()
    for requirement in importlib.metadata.requires("tb-mqtt-client"):
        (extras if "extra ==" in requirement else always).update(named([requirement]))
    return always, extras


NEEDED, OPTIONAL = installed_requirements()
FOR_TESTS = named(PYPROJECT["dependency-groups"]["test"] + PYPROJECT["dependency-groups"]["bench"])


def distribution(module):
    """Return the distribution that contains a module; ``None`` for the standard library."""
    for shared, found in SHARED.items():
        if module == shared or module.startswith(f"{shared}."):
            return found
    top = module.partition(".")[0]
    return None if top in sys.stdlib_module_names else normal(DISTRIBUTIONS.get(top, [top])[0])


def used_by_the_package():
    """Return each imported distribution, and the modules that import it."""
    used = {}
    for name, path in MODULES.items():
        for imported in imports(name, path):
            found = distribution(imported)
            if found not in (None, "tb-mqtt-client") and (name, found) not in NOT_DECLARED:
                used.setdefault(found, set()).add(name)
    return used


def used_by_tests_and_benches():
    files = [path for folder in DEV_FOLDERS for path in (ROOT / folder).rglob("*.py")]
    own = {path.stem for path in files} | {folder.name for path in files for folder in path.parents} | {PACKAGE} | SDK_1X_MODULES
    modules = {imported for path in files for imported in imports("", path)}
    return {distribution(module) for module in modules if module.partition(".")[0] not in own} - {None}


USED = used_by_the_package()


def test_metadata_has_the_declared_dependencies():
    assert named(PYPROJECT["project"]["dependencies"]) == NEEDED
    assert named(one for extra in PYPROJECT["project"]["optional-dependencies"].values() for one in extra) == OPTIONAL


def test_every_dependency_is_imported():
    assert NEEDED - set(USED) == set()


def test_every_dependency_of_an_extra_is_imported():
    assert OPTIONAL - set(USED) - set(NOT_IMPORTED) == set()


def test_every_imported_distribution_is_declared():
    assert {found: modules for found, modules in USED.items() if found not in NEEDED | OPTIONAL} == {}


@pytest.mark.parametrize("name", [name for name in MODULES if part(name) == "emulator"])
def test_emulator_needs_no_extra(name):
    assert {found for found, modules in USED.items() if name in modules} <= NEEDED


def test_tests_and_benches_use_their_declared_dependencies():
    used = used_by_tests_and_benches()
    assert FOR_TESTS - used - set(NOT_IMPORTED) == set()
    assert used - FOR_TESTS - NEEDED - OPTIONAL == set(IN_OTHER_ENVIRONMENTS)


def test_every_exception_is_needed():
    assert set(NOT_IMPORTED) <= (OPTIONAL | FOR_TESTS) - set(USED) - used_by_tests_and_benches()
    for name, found in NOT_DECLARED:
        assert found in {distribution(imported) for imported in imports(name, MODULES[name])}
