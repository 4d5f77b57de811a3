"""Check that published files contain everything that they must contain, and nothing else.

python tests/distribution/contents.py FILE ...    prints each fault, and exits with 1 if there is one
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "tb_mqtt_client"
EXTENSION = re.compile(rf"{PACKAGE}/_native\.[\w.-]*(so|pyd)")
# Folders that exist only on the machine that built a file.
HOMES = re.compile(rb"(?:/home|/Users|/root|[A-Z]:\\Users)[/\\][\w.-]+[/\\][\w./\\-]+")
TESTS = re.compile(r"(^|/)(tests?|benches|test_[^/]*|conftest\.py)(/|$)")
RUBBISH = re.compile(r"__pycache__|\.py[co]$|\.DS_Store|\.(orig|rej|swp)$")


def repository(*patterns: str) -> set[str]:
    """Return the files that git tracks, or would track if they were added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.splitlines() if (ROOT / name).exists()}


def machine_paths(content: bytes) -> list[str]:
    """Return the paths in a file that belong to the machine that built it."""
    folders = {str(ROOT), str(Path.home()), os.environ.get("CARGO_HOME", ""), tempfile.gettempdir()} - {"", "/"}
    ours = re.compile(rb"(?:%s)[/\\][\w.][\w./\\-]*" % b"|".join(re.escape(folder).encode() for folder in sorted(folders)))
    return sorted({path[0].decode() for pattern in (ours, HOMES) for path in pattern.finditer(content)})


def common_faults(files: dict[str, bytes]) -> Iterator[str]:
    for name, content in files.items():
        if RUBBISH.search(name):
            yield f"{name} does not belong there"
        if paths := machine_paths(content):
            yield f"{name} contains {len(paths)} paths of the machine that built it, such as {paths[0]}"


def wheel_faults(files: dict[str, bytes], modules: set[str]) -> Iterator[str]:
    """Yield the faults of a wheel.

    Args:
        files: The content of each file.
        modules: The files of the package, relative to the folder of Python sources.
    """
    yield from common_faults(files)
    [folder] = {name.partition("/")[0] for name in files if name.partition("/")[0].endswith(".dist-info")}
    for name in sorted(
        {f"{PACKAGE}/py.typed", f"{PACKAGE}/_native.pyi", f"{folder}/licenses/LICENSE", f"{folder}/sboms/sbom.cdx.json", *modules}
        - set(files)
    ):
        yield f"{name} is missing"
    extensions = [name for name in files if EXTENSION.fullmatch(name)]
    if len(extensions) != 1:
        yield f"there must be one extension, not {extensions}"
    for name in files:
        if TESTS.search(name):
            yield f"{name} is a test"
        elif not name.startswith(f"{folder}/") and name not in {*modules, *extensions}:
            yield f"{name} does not belong there"
    yield from metadata_faults(files[f"{folder}/METADATA"])
    if b"Root-Is-Purelib: false" not in files[f"{folder}/WHEEL"]:
        yield "the wheel declares that it has no extension"


def metadata_faults(content: bytes) -> Iterator[str]:
    metadata = HeaderParser().parsestr(content.decode())
    for field, wanted in {
        "Name": "tb-mqtt-client",
        "License-Expression": "Apache-2.0",
        "License-File": "LICENSE",
        "Requires-Python": ">=3.11",
    }.items():
        if metadata[field] != wanted:
            yield f"{field} is {metadata[field]}, not {wanted}"
    if not metadata.get_payload().startswith("# tb_mqtt_client\n"):
        yield "the README is missing in the metadata"


def sdist_faults(files: dict[str, bytes], sources: set[str]) -> Iterator[str]:
    """Yield the faults of a source distribution.

    Args:
        files: The content of each file.
        sources: The files from which the wheel is built, named as in the repository.
    """
    yield from common_faults(files)
    files = {name.partition("/")[2]: content for name, content in files.items()}
    needed = {"PKG-INFO", "Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "pyproject.toml"} | sources
    for name in sorted(needed - set(files)):
        yield f"{name} is missing"
    for name in files:
        # Cargo includes the tests and the README of a crate.
        if name not in needed and not name.startswith(("rust/core/tests/", "rust/core/README.md")):
            yield f"{name} does not belong there"
    yield from metadata_faults(files["PKG-INFO"])


def faults_of(path: Path) -> list[str]:
    """Return the faults of a published file, compared with the repository."""
    package = repository("python")
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path) as opened:
            files = {member.name: opened.extractfile(member).read() for member in opened if member.isfile()}
        return list(
            sdist_faults(
                files, package | repository("rust/*.rs", "rust/*.toml", "rust/bindings/sbom.cdx.json", ":!rust/core/fuzz/")
            )
        )
    with zipfile.ZipFile(path) as opened:
        files = {name: opened.read(name) for name in opened.namelist() if not name.endswith("/")}
    return list(wheel_faults(files, {name.removeprefix("python/") for name in package}))


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]]
    faults = [f"{path.name}: {fault}" for path in paths for fault in faults_of(path)]
    print("\n".join([*faults, f"{len(paths)} files checked, {len(faults)} faults"]))
    sys.exit(not paths or bool(faults))


if __name__ == "__main__":
    main()
