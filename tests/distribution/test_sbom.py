"""The software bill of materials names the crates of the extension, as Cargo.lock has them."""

import json
import tomllib

import sbom


def test_the_file_is_up_to_date():
    assert sbom.FILE.read_text() == json.dumps(sbom.document(), indent=2) + "\n", "run python tests/distribution/sbom.py"


def test_every_component_is_in_the_lock_with_its_checksum():
    components = json.loads(sbom.FILE.read_text())["components"]
    assert {"pyo3", "pyo3-ffi"} <= {one["name"] for one in components}
    lock = {
        (one["name"], one["version"]): one.get("checksum")
        for one in tomllib.loads((sbom.ROOT / "Cargo.lock").read_text())["package"]
    }
    for one in components:
        assert one["hashes"] == [{"alg": "SHA-256", "content": lock[one["name"], one["version"]]}]


def test_the_file_names_no_folder_of_a_machine():
    assert "file:" not in sbom.FILE.read_text()
