"""The wheels work in clean environments of all their Pythons. `make wheel-test` and `make test` build them first."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

import pytest

import tb_mqtt_client
from contents import faults_of

SMOKE = Path(__file__).with_name("smoke.py")
BUILT = Path(os.environ["DISTRIBUTIONS"]) if "DISTRIBUTIONS" in os.environ else None

pytestmark = pytest.mark.skipif(BUILT is None, reason="wheels are built by make wheel-test, and by make test without PYTEST_ARGS")


@dataclass(frozen=True)
class Pair:
    python: str
    wheel: Path


def pairs() -> dict[str, Pair]:
    """Return each interpreter with its wheel, by name. Without built files there is one entry, which names the reason."""
    if BUILT is None:
        return {"none built": Pair("", Path())}
    rows = json.loads((BUILT / "interpreters.json").read_text())
    return {row["name"]: Pair(row["python"], BUILT / row["wheel"]) for row in rows}


PAIRS = pairs()
FILES = [path for pattern in ("sdist/*", "wheels/*/*", "from-source/*") for path in sorted(BUILT.glob(pattern))] if BUILT else []


def run(*command, code=0, **options):
    """Run a command without the Python settings of this environment, and return its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TB_", "VIRTUAL_ENV"))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == code, f"{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def pip(python, *arguments):
    """Run the pip of the tests for an environment without pip."""
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *arguments)


def clean_environment(python, folder):
    run(python, "-m", "venv", "--without-pip", folder)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def extras_of(wheel):
    with zipfile.ZipFile(wheel) as opened:
        [metadata] = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
        return HeaderParser().parsestr(opened.read(metadata).decode()).get_all("Provides-Extra")


def test_at_least_one_interpreter_is_tested():
    assert PAIRS


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(BUILT)) for path in FILES])
def test_published_file_has_no_faults(path):
    assert faults_of(path) == []


@pytest.mark.parametrize("name", PAIRS)
def test_installed_wheel_works_in_an_empty_folder(name, tmp_path):
    python = clean_environment(PAIRS[name].python, tmp_path / "environment")
    pip(python, "install", "--quiet", "--no-compile", "--only-binary", ":all:", PAIRS[name].wheel)
    pip(python, "check")
    (folder := tmp_path / "empty").mkdir()
    assert f"works with {name.rstrip('t')}" in run(python, "-I", "-W", "error", SMOKE, cwd=folder)
    # The command line names the missing packages. With the extras, which need no compiler, it works.
    script = python.with_name("tb-mqtt" + python.suffix)
    assert "pip install click rich cryptography" in run(script, "--help", code=2, cwd=folder)
    pip(
        python,
        "install",
        "--quiet",
        "--no-compile",
        "--only-binary",
        ":all:",
        f"{PAIRS[name].wheel}[{','.join(extras_of(PAIRS[name].wheel))}]",
    )
    pip(python, "check")
    assert run(script, "--version", cwd=folder).split()[-1] == tb_mqtt_client.__version__
    demo = run(script, "demo", "--duration", "0", "--points", "2000", "--devices", "5", cwd=folder)
    assert "acknowledged and counted on both sides" in demo
    assert list(folder.iterdir()) == []


def test_wheel_built_by_pip_works(tmp_path):
    python = clean_environment(sys.executable, tmp_path / "environment")
    [wheel] = (BUILT / "from-source").glob("*.whl")
    pip(python, "install", "--quiet", wheel)
    assert "works with" in run(python, "-I", "-W", "error", SMOKE, cwd=tmp_path)
