"""Build the source distribution and, from it, a wheel for each kind of Python on this machine.

python tests/distribution/build_distributions.py FOLDER [--into DIST]

With --into, build only for the Python that runs this program, and copy the files to publish to DIST. Otherwise FOLDER
contains afterwards the source distribution, `wheels/`, a wheel that pip builds from the sources (`from-source/`), and
`interpreters.json` with each Python and its wheel. The output of cargo is kept, so that a second run compiles only changes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import interpreters

ROOT = Path(__file__).parents[2]
MATURIN = Path(sys.executable).with_name("maturin")
OWN_SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


def run(*command: str | Path, cwd: Path, target: Path | None = None) -> None:
    """Run a command, and exit with its output if it fails."""
    environment = {**os.environ, **({"CARGO_TARGET_DIR": str(target)} if target else {})}
    # The command line names the interpreter; the variable that make exports for other builds would override it.
    environment.pop("PYO3_PYTHON", None)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Make a folder equal to the content of an archive.

    Unchanged files are not written, because cargo compiles files with a new modification time again.
    """
    with tarfile.open(archive) as opened:
        # The first part of each name is the name of the distribution.
        members = {folder.joinpath(*Path(member.name).parts[1:]): member for member in opened if member.isfile()}
        for path in folder.rglob("*"):
            if path.is_file() and path not in members:
                path.unlink()
        for path, member in members.items():
            content = opened.extractfile(member).read()
            if not path.exists() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def only(folder: Path, pattern: str) -> Path:
    [path] = folder.glob(pattern)
    return path


def cargo_folder(folder: Path, suffix: str) -> Path:
    return folder / "cargo" / suffix.strip(".")


def build(folder: Path, found: list[interpreters.Interpreter]) -> dict[str, Path]:
    """Build the source distribution and the wheels, and return the wheel of each suffix."""
    run(MATURIN, "sdist", "--out", emptied(folder / "sdist"), cwd=ROOT)
    source = folder / "source"
    unpack(only(folder / "sdist", "*.tar.gz"), source)
    emptied(folder / "wheels")

    def wheel(suffix: str) -> Path:
        out = emptied(folder / "wheels" / suffix.strip("."))
        # pip builds with the Python of this environment below, so both builds share the output of cargo.
        python = sys.executable if suffix == OWN_SUFFIX else one_of_a_kind[suffix].executable
        # --locked, so that a published file can be built from exactly the crates that its lock file names.
        run(MATURIN, "build", "--locked", "--interpreter", python, "--out", out, cwd=source, target=cargo_folder(folder, suffix))
        return only(out, "*.whl")

    one_of_a_kind = {interpreter.suffix: interpreter for interpreter in found}
    first, *others = one_of_a_kind
    wheels = {first: wheel(first)}
    for suffix in others:
        # Most crates do not depend on the Python, and compiling them takes longer than all else. Cargo goes by the times of files.
        if not cargo_folder(folder, suffix).exists():
            shutil.copytree(cargo_folder(folder, first), cargo_folder(folder, suffix), copy_function=shutil.copy2)
    # In parallel, because the last step of each build, whole-program optimisation, uses one core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return wheels | dict(zip(others, pool.map(wheel, others), strict=True))


def build_as_pip_does(folder: Path) -> None:
    """Build a wheel with pip, which installs the build backend of the sources in an isolated environment."""
    out = emptied(folder / "from-source")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", out, folder / "source", cwd=folder, target=cargo_folder(folder, OWN_SUFFIX))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--into", type=Path, metavar="DIST")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.into:
        build(folder, interpreters.find([Path(sys.executable)]).tested)
        for path in (only(folder / "sdist", "*.tar.gz"), only(folder / "wheels", "*/*.whl")):
            shutil.copy(path, arguments.into)
        return
    findings = interpreters.find()
    print(findings, flush=True)
    wheels = build(folder, findings.tested)
    build_as_pip_does(folder)
    rows = [
        {"python": found.executable, "name": str(found), "wheel": str(wheels[found.suffix].relative_to(folder))}
        for found in findings.tested
    ]
    (folder / "interpreters.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
