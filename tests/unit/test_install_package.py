"""SDK 2.0's helper that runs pip, and that nothing runs it by itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tb_mqtt_client.common.install_package_utils import install_package

PACKAGE = Path(__file__).parents[2] / "python" / "tb_mqtt_client"


@pytest.fixture
def pip(monkeypatch):
    """What pip was asked to install; it fails for the package "broken"."""
    calls = []

    def check_call(command, **_):
        assert command[:4] == [sys.executable, "-m", "pip", "install"]
        calls.append(command[4:])
        if "broken" in command[-1]:
            raise subprocess.CalledProcessError(1, command)
        return 0

    monkeypatch.setattr(subprocess, "check_call", check_call)
    return calls


def test_defect_65_a_version_that_installs_at_the_first_attempt_is_a_success(pip):
    assert install_package("no-such-package", "1.2") is True
    assert pip == [["no-such-package==1.2"]]


def test_the_newest_version(pip):
    assert install_package("no-such-package") is True
    assert pip == [["--upgrade", "no-such-package"]]


def test_what_is_there_is_not_installed_again(pip):
    installed = __import__("importlib.metadata").metadata.version("pytest")
    assert install_package("pytest", installed) is True
    assert pip == []


def test_what_pip_cannot_install_is_reported(pip, caplog):
    assert install_package("broken", "1") is False
    assert "broken==1" in caplog.text


def test_defect_64_nothing_in_the_package_installs_packages():
    for path in PACKAGE.rglob("*.py"):
        names = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom | ast.Import)
            for alias in node.names
        }
        modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        assert not {"tb_mqtt_client.common.install_package_utils", "pkg_resources"} & (names | modules), path
