"""Every Python of the machine is found once, and none is left out without a reason."""

import json
import os
import sys

import pytest

import interpreters
from interpreters import find


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The only folder on PATH, and no other place to look at."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def program(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def answering(path, version):
    major, minor, _ = map(int, version.split("."))
    answer = {"executable": str(path), "implementation": "CPython", "version": version, "numbers": [major, minor], "suffix": ".so"}
    return program(path, f"echo '{json.dumps(answer)}'")


def test_this_one_is_found_once():
    findings = find()
    executables = [os.path.realpath(found.executable) for found in findings.tested]
    assert os.path.realpath(sys._base_executable) in executables
    assert len(set(executables)) == len(executables)


def test_all_that_are_on_the_path_and_in_pyenv(folder):
    answering(folder / "python3.11", "3.11.9")
    answering(folder / "python3.13t", "3.13.0")
    answering(folder / "pyenv" / "versions" / "3.12.4" / "bin" / "python", "3.12.4")
    answering(folder / "python3.12-config", "3.12.0")
    (folder / "python3.14").write_text("cannot be run")
    found = {interpreter.version for interpreter in find().tested}
    assert found == {"3.11.9", "3.12.4", "3.13.0", sys.version.split()[0]}


def test_what_uv_and_the_launcher_know(folder):
    answering(folder / "uv-pythons" / "cpython-3.12.5" / "bin" / "python3", "3.12.5")
    program(folder / "uv", f"echo {folder}/uv-pythons")
    program(folder / "py", r"echo ' -V:3.13 *        C:\Python313\python.exe'")
    findings = find()
    assert "3.12.5" in {interpreter.version for interpreter in findings.tested}
    assert r"C:\Python313\python.exe" in findings.left_out  # there is none on this machine


def test_names_of_one_interpreter_count_once(folder):
    real = answering(folder / "opt" / "python3.12", "3.12.1")
    for name in ("python3", "python3.12"):
        (folder / name).symlink_to(real)
    assert [found.version for found in find([folder / "python3", folder / "python3.12", real]).tested] == ["3.12.1"]


def test_each_that_is_left_out_has_its_reason(folder):
    old = answering(folder / "python3.10", "3.10.1")
    shim = program(folder / "python3.12", "echo 'python3.12: command not found' >&2", "exit 127")
    silent = program(folder / "python3.13", "exit 0")
    findings = find([old, shim, silent, folder / "python3.14"])
    assert not findings.tested
    assert findings.left_out[str(old)] == "CPython 3.10.1 is older than 3.11"
    assert findings.left_out[str(shim)] == "does not run (python3.12: command not found)"
    assert findings.left_out[str(silent)] == "does not run (prints no answer)"
    assert "No such file" in findings.left_out[str(folder / "python3.14")]
    printed = str(findings)
    assert all(path in printed and why in printed for path, why in findings.left_out.items())


def test_the_oldest_is_what_the_project_says():
    assert interpreters.oldest_supported() == (3, 11)
