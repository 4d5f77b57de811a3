"""Write the software bill of materials that each wheel contains: the crates in the extension, from Cargo.lock.

python tests/distribution/sbom.py           writes rust/bindings/sbom.cdx.json
python tests/distribution/sbom.py --check   exits with 1 if the file is out of date

maturin's own would contain the folder in which the wheel was built, and would differ from build to build.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = ROOT / "rust" / "bindings" / "sbom.cdx.json"


def crates() -> dict[tuple[str, str], str]:
    """Return the licence of each crate that is linked into the extension on some system, by its name and version."""
    command = ["cargo", "tree", "--locked", "--package", "tb-mqtt-native", "--edges", "normal", "--target", "all"]
    listed = subprocess.run(
        [*command, "--prefix", "none", "--format", "{p}|{l}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    found = {}
    for line in listed.splitlines():
        package, _, licence = line.removesuffix(" (*)").partition("|")
        name, version, *_ = package.split()
        found[name, version.removeprefix("v")] = licence.replace("/", " OR ")
    return found


def document() -> dict[str, Any]:
    """Return the bill of materials in the form of CycloneDX 1.6."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(one["name"], one["version"]): one.get("checksum") for one in lock}
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    components = []
    for (name, crate_version), licence in sorted(crates().items()):
        checksum = checksums[name, crate_version]
        # The crates of this project are the component that is described.
        if checksum is not None:
            components.append(
                {
                    "type": "library",
                    "bom-ref": f"pkg:cargo/{name}@{crate_version}",
                    "name": name,
                    "version": crate_version,
                    "hashes": [{"alg": "SHA-256", "content": checksum}],
                    "licenses": [{"expression": licence}],
                    "purl": f"pkg:cargo/{name}@{crate_version}",
                }
            )
    own = f"pkg:pypi/tb-mqtt-client@{version}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": own,
                "name": "tb-mqtt-client",
                "version": version,
                "licenses": [{"expression": "Apache-2.0"}],
                "purl": own,
            }
        },
        "components": components,
        "dependencies": [{"ref": own, "dependsOn": [one["bom-ref"] for one in components]}],
    }


def main(arguments: list[str]) -> int:
    """Write or check the file."""
    text = json.dumps(document(), indent=2) + "\n"
    if arguments == ["--check"]:
        if FILE.read_text() != text:
            print(f"{FILE.relative_to(ROOT)} is out of date: run python {Path(__file__).relative_to(ROOT)}", file=sys.stderr)
            return 1
    else:
        FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
