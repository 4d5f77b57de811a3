"""Builds the source distribution and, from it, a wheel for each kind of Python on this machine.

python tests/distribution/build_distributions.py FOLDER [--into DIST]

With --into it builds only for the Python that runs it, and copies what is to be published there. Otherwise the folder then
holds the source distribution, `wheels/`, one wheel made as pip makes it from the sources (`from-source/`), and
`interpreters.json`: each Python and its wheel. What cargo made stays there, so that a second run compiles what changed.
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
    """Quiet unless the command fails."""
    environment = {**os.environ, **({"CARGO_TARGET_DIR": str(target)} if target else {})}
    # The interpreter is named on the command line; what make exports for the other builds would outvote it.
    environment.pop("PYO3_PYTHON", None)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Bring the folder to what the archive holds. A file that is the same keeps its time, or cargo would compile it again."""
    with tarfile.open(archive) as opened:
        # The first part of each name is the distribution's.
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
    """Source distribution and wheels; gives the wheel of each suffix."""
    run(MATURIN, "sdist", "--out", emptied(folder / "sdist"), cwd=ROOT)
    source = folder / "source"
    unpack(only(folder / "sdist", "*.tar.gz"), source)
    emptied(folder / "wheels")

    def wheel(suffix: str) -> Path:
        out = emptied(folder / "wheels" / suffix.strip("."))
        # The Python of this environment is the one that pip builds with below: what cargo made is of use to both.
        python = sys.executable if suffix == OWN_SUFFIX else one_of_a_kind[suffix].executable
        # --locked: what is published can be built from the crates that its lock file names, and from no others.
        run(MATURIN, "build", "--locked", "--interpreter", python, "--out", out, cwd=source, target=cargo_folder(folder, suffix))
        return only(out, "*.whl")

    one_of_a_kind = {interpreter.suffix: interpreter for interpreter in found}
    # The last step of each is whole-program optimisation, on one core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(one_of_a_kind, pool.map(wheel, one_of_a_kind), strict=True))


def build_as_pip_does(folder: Path) -> None:
    """With the build backend that the sources ask for, in an environment of pip's own."""
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
