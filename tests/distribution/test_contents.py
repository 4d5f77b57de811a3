"""Every fault that a wheel or a source distribution could have is found."""

import tempfile
from pathlib import Path

import pytest

from contents import machine_paths, sdist_faults, wheel_faults

INFO = "tb_mqtt_client-2.0.0.dist-info"
METADATA = b"""\
Metadata-Version: 2.4
Name: tb-mqtt-client
License-Expression: Apache-2.0
License-File: LICENSE
Requires-Python: >=3.11

# tb_mqtt_client
"""
MODULES = {"tb_mqtt_client/__init__.py", "tb_mqtt_client/py.typed", "tb_mqtt_client/_native.pyi", "tb_device_mqtt.py"}
EXTENSION = "tb_mqtt_client/_native.cpython-311-x86_64-linux-gnu.so"
GOOD_WHEEL = {
    **dict.fromkeys(MODULES, b""),
    EXTENSION: b"crates/pyo3-0.30.1/src/panic.rs",
    f"{INFO}/METADATA": METADATA,
    f"{INFO}/WHEEL": b"Root-Is-Purelib: false",
    f"{INFO}/RECORD": b"",
    f"{INFO}/licenses/LICENSE": b"",
    f"{INFO}/sboms/sbom.cdx.json": b"",
}
SOURCES = {"python/tb_mqtt_client/__init__.py", "rust/core/src/lib.rs"}
GOOD_SDIST = {
    f"tb_mqtt_client-2.0.0/{name}": METADATA if name == "PKG-INFO" else b""
    for name in {"PKG-INFO", "Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "pyproject.toml", "rust/core/tests/a.rs"} | SOURCES
}


def test_complete_wheel_has_no_faults():
    assert list(wheel_faults(GOOD_WHEEL, MODULES)) == []


@pytest.mark.parametrize("name", [*sorted(MODULES), EXTENSION, f"{INFO}/licenses/LICENSE", f"{INFO}/sboms/sbom.cdx.json"])
def test_missing_file_in_a_wheel_is_a_fault(name):
    [fault] = wheel_faults({kept: content for kept, content in GOOD_WHEEL.items() if kept != name}, MODULES)
    assert "missing" in fault or "one extension" in fault


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tests/test_delivery.py", b""),
        ("tb_mqtt_client/tests/conftest.py", b""),
        ("tb_mqtt_client/test_delivery.py", b""),
        ("tb_mqtt_client/forgotten.py", b""),
        ("tb_mqtt_client/_native.cpython-312-x86_64-linux-gnu.so", b""),
        ("other/__init__.py", b""),
        ("utils.py", b""),
        (f"{INFO}/sboms/native.json", f'"path+file://{Path.home()}/project"'.encode()),
        (EXTENSION, f"{Path.home()}/registry/src/pyo3/panic.rs".encode()),
        (f"{INFO}/METADATA", METADATA.replace(b"Apache-2.0", b"MIT")),
        (f"{INFO}/METADATA", METADATA.replace(b"3.11", b"3.8")),
        (f"{INFO}/METADATA", METADATA.replace(b"# tb_mqtt_client\n", b"")),
        (f"{INFO}/WHEEL", b"Root-Is-Purelib: true"),
    ],
)
def test_wrong_file_in_a_wheel_is_a_fault(name, content):
    [fault] = wheel_faults({**GOOD_WHEEL, name: content}, MODULES)
    assert fault


def test_byte_code_in_a_wheel_is_a_fault():
    assert "does not belong there" in next(wheel_faults({**GOOD_WHEEL, f"{INFO}/__pycache__/a.cpython-311.pyc": b""}, MODULES))


def test_complete_source_distribution_has_no_faults():
    assert list(sdist_faults(GOOD_SDIST, SOURCES)) == []


@pytest.mark.parametrize("name", ["Cargo.lock", "LICENSE", "rust/core/src/lib.rs"])
def test_missing_file_in_a_source_distribution_is_a_fault(name):
    files = {kept: content for kept, content in GOOD_SDIST.items() if not kept.endswith(f"/{name}")}
    assert list(sdist_faults(files, SOURCES)) == [f"{name} is missing"]


@pytest.mark.parametrize(
    "name", [".venv/pyvenv.cfg", "target/release/lib_native.so", "python/tb_mqtt_client/_native.so", "notes.txt"]
)
def test_superfluous_file_in_a_source_distribution_is_a_fault(name):
    files = {**GOOD_SDIST, f"tb_mqtt_client-2.0.0/{name}": b""}
    assert list(sdist_faults(files, SOURCES)) == [f"{name} does not belong there"]


@pytest.mark.parametrize(
    "path",
    [
        f"{Path(__file__).parents[2]}/rust/core/src/lib.rs",
        f"{tempfile.gettempdir()}/build-x/lib.rs",
        "/home/user/.cargo/registry/src/lib.rs",
        "/Users/runner/.cargo/registry/src/lib.rs",
        r"C:\Users\user\.cargo\registry\src\lib.rs",
    ],
)
def test_paths_of_the_build_machine_are_found(path):
    assert machine_paths(b"\0 panicked at " + path.encode() + b":12\0") == [path]


@pytest.mark.parametrize(
    "content", [b"/usr/lib/debug/.build-id/", b"crates/pyo3-0.30.1/src/panic.rs", b"/rustc/0a1b/library/core/src/str.rs"]
)
def test_other_paths_are_not_faults(content):
    assert machine_paths(content) == []
