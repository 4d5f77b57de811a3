"""The metadata are correct: one version, the licence, and the supported Python versions."""

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import tb_mqtt_client

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
METADATA = importlib.metadata.metadata("tb-mqtt-client")


def test_defect_69_version_is_declared_once():
    assert "version" not in PROJECT
    assert tb_mqtt_client.__version__ == CARGO["version"]
    # Cargo writes a pre-release with a hyphen.
    assert importlib.metadata.version("tb-mqtt-client") == CARGO["version"].replace("-", "")


@pytest.mark.parametrize("manifest", sorted((ROOT / "rust").glob("*/Cargo.toml")), ids=lambda path: path.parent.name)
def test_every_crate_inherits_the_version_and_is_not_published(manifest):
    package = tomllib.loads(manifest.read_text())["package"]
    assert package["version"] == package["license"] == package["publish"] == {"workspace": True}
    assert CARGO["publish"] is False


def test_newest_version_in_the_change_log_is_current():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert newest == CARGO["version"]


def test_licence_is_declared_once():
    assert METADATA["License-Expression"] == CARGO["license"] == "Apache-2.0"
    assert METADATA.get_all("License-File") == ["LICENSE"]
    # The expression replaces the classifier, so that the licence is declared once.
    assert not [classifier for classifier in METADATA.get_all("Classifier") if classifier.startswith("License ::")]


def test_each_supported_python_has_its_classifier():
    versions = [
        int(match[1])
        for classifier in METADATA.get_all("Classifier")
        if (match := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", classifier))
    ]
    oldest = int(re.fullmatch(r">=3\.(\d+)", METADATA["Requires-Python"])[1])
    assert versions == list(range(oldest, oldest + len(versions)))


def test_metadata_has_no_home_page():
    assert METADATA.get_all("Project-URL") is None
    assert METADATA["Home-page"] is None


SEVERAL_VERSIONS = {"num-bigint"}
"""Crates of which the extension has two versions: pyo3 takes num-bigint 0.4, and arrow-buffer 0.5, whose values never meet."""


def test_extension_has_one_version_of_each_crate():
    """Dependencies of tests, build scripts and macros are not part of the extension, so they may have several versions."""
    command = ["cargo", "tree", "--locked", "--offline", "--workspace", "--edges", "normal,no-proc-macro", "--duplicates"]
    done = subprocess.run([*command, "--depth", "0", "--prefix", "none"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in done.stdout.splitlines() if line} == SEVERAL_VERSIONS
