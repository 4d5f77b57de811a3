"""Find every Python on this machine, and report whether the wheels are tested with it, or why they are not.

python tests/distribution/interpreters.py
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"(python|pypy)(3(\.\d+)?t?)?(\.exe)?")
# Must run in every program with such a name, including Python 2. In a virtual environment it prints the base interpreter.
PROBE = """
import json, platform, sys, sysconfig
print(json.dumps({
    "executable": getattr(sys, "_base_executable", sys.executable),
    "implementation": platform.python_implementation(),
    "version": platform.python_version() + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""),
    "numbers": sys.version_info[:2],
    "suffix": sysconfig.get_config_var("EXT_SUFFIX"),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A working Python. Interpreters with the same ``suffix`` load the same extension, so they share a wheel."""

    executable: str
    implementation: str
    version: str
    numbers: tuple[int, int]
    suffix: str

    def __str__(self) -> str:
        return f"{self.implementation} {self.version}"


def oldest_supported() -> tuple[int, int]:
    """Return the lower bound in ``requires-python``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    major, minor = re.fullmatch(r">=(\d+)\.(\d+)", project["requires-python"]).groups()
    return int(major), int(minor)


def on_path() -> Iterator[Path]:
    for folder in os.get_exec_path():
        if os.path.isdir(folder):
            yield from (path for path in sorted(Path(folder).iterdir()) if NAME.fullmatch(path.name) and os.access(path, os.X_OK))


def in_pyenv() -> Iterator[Path]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(root.glob("versions/*/bin/python"))
    yield from sorted(root.glob("pyenv-win/versions/*/python.exe"))


def lines_of(*command: str) -> list[str]:
    """Return the lines that a program prints, or no lines if it does not exist."""
    if shutil.which(command[0]) is None:
        return []
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.splitlines()


def in_uv() -> Iterator[Path]:
    for folder in lines_of("uv", "python", "dir"):
        yield from sorted(Path(folder).glob("*/bin/python3"))
        yield from sorted(Path(folder).glob("*/python.exe"))


def of_the_launcher() -> Iterator[Path]:
    """Yield the interpreters that the launcher of Windows, ``py``, lists."""
    for line in lines_of("py", "-0p"):
        if path := re.search(r"\S:\\.*\.exe", line, re.IGNORECASE):
            yield Path(path[0])


def candidates() -> Iterator[Path]:
    yield Path(sys.executable)
    for source in (on_path, in_pyenv, in_uv, of_the_launcher):
        yield from source()


def examine(path: Path) -> Interpreter | str:
    """Return the interpreter behind a path, or the reason why it cannot be run."""
    try:
        done = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False)
        return Interpreter(**{**(facts := json.loads(done.stdout)), "numbers": tuple(facts["numbers"])})
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    except ValueError:
        return (done.stderr.splitlines() or ["prints nothing"])[0]


@dataclass(frozen=True)
class Findings:
    """The interpreters that were found, each once: those to test with, and the reasons why others are excluded."""

    tested: list[Interpreter]
    excluded: dict[str, str]

    def __str__(self) -> str:
        tested = [f"  {interpreter.executable}: {interpreter}" for interpreter in self.tested]
        excluded = [f"  {path}: {reason}" for path, reason in self.excluded.items()]
        return "\n".join(["Tested with:", *tested, "Excluded:", *(excluded or ["  none"])])


def find(paths: Iterable[Path] | None = None) -> Findings:
    """Examine every Python on the machine, or the given ones. An interpreter with several names counts once."""
    tested: dict[str, Interpreter] = {}
    excluded: dict[str, str] = {}
    oldest = oldest_supported()
    for path in dict.fromkeys(candidates() if paths is None else paths):
        found = examine(path)
        if isinstance(found, str):
            excluded[str(path)] = f"does not run ({found})"
        elif found.numbers < oldest:
            excluded[os.path.realpath(found.executable)] = f"{found} is older than {oldest[0]}.{oldest[1]}"
        else:
            tested.setdefault(os.path.realpath(found.executable), found)
    return Findings(sorted(tested.values(), key=lambda one: (one.implementation, one.numbers, one.version)), excluded)


if __name__ == "__main__":
    print(find())
