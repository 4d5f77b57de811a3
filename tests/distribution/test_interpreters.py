"""Every Python on the machine is found once, and none is excluded without a reason."""

import json
import os
import sys
from pathlib import Path

import pytest

import interpreters
from interpreters import examine, find


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder that is the only place where interpreters can be found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def program(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def fake_python(path, version):
    major, minor, _ = map(int, version.split("."))
    facts = {"executable": str(path), "implementation": "CPython", "version": version, "numbers": [major, minor], "suffix": ".so"}
    return program(path, f"echo '{json.dumps(facts)}'")


def test_running_interpreter_is_found_once():
    findings = find()
    executables = [os.path.realpath(found.executable) for found in findings.tested]
    assert os.path.realpath(examine(Path(sys.executable)).executable) in executables
    assert len(set(executables)) == len(executables)


def test_interpreters_on_path_and_in_pyenv_are_found(folder):
    fake_python(folder / "python3.11", "3.11.9")
    fake_python(folder / "python3.13t", "3.13.0")
    fake_python(folder / "pyenv" / "versions" / "3.12.4" / "bin" / "python", "3.12.4")
    fake_python(folder / "python3.12-config", "3.12.0")
    (folder / "python3.14").write_text("cannot be run")
    found = {interpreter.version for interpreter in find().tested}
    assert found == {"3.11.9", "3.12.4", "3.13.0", sys.version.split()[0]}


def test_interpreters_of_uv_and_the_launcher_are_found(folder):
    fake_python(folder / "uv-pythons" / "cpython-3.12.5" / "bin" / "python3", "3.12.5")
    program(folder / "uv", f"echo {folder}/uv-pythons")
    program(folder / "py", r"echo ' -V:3.13 *        C:\Python313\python.exe'")
    findings = find()
    assert "3.12.5" in {interpreter.version for interpreter in findings.tested}
    assert r"C:\Python313\python.exe" in findings.excluded  # there is none on this machine


def test_names_of_one_interpreter_count_once(folder):
    real = fake_python(folder / "opt" / "python3.12", "3.12.1")
    for name in ("python3", "python3.12"):
        (folder / name).symlink_to(real)
    assert [found.version for found in find([folder / "python3", folder / "python3.12", real]).tested] == ["3.12.1"]


def test_excluded_interpreters_are_reported_with_the_reason(folder):
    old = fake_python(folder / "python3.10", "3.10.1")
    shim = program(folder / "python3.12", "echo 'python3.12: command not found' >&2", "exit 127")
    silent = program(folder / "python3.13", "exit 0")
    findings = find([old, shim, silent, folder / "python3.14"])
    assert not findings.tested
    assert findings.excluded[str(old)] == "CPython 3.10.1 is older than 3.11"
    assert findings.excluded[str(shim)] == "does not run (python3.12: command not found)"
    assert findings.excluded[str(silent)] == "does not run (prints nothing)"
    assert "No such file" in findings.excluded[str(folder / "python3.14")]
    printed = str(findings)
    assert all(path in printed and reason in printed for path, reason in findings.excluded.items())


def test_oldest_supported_version_is_read_from_the_project():
    assert interpreters.oldest_supported() == (3, 11)
