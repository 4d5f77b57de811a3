"""Finds every Python on this machine and says of each whether the wheels are tested with it, and if not, why.

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
# Runs in whatever answers to such a name, Python 2 too. A virtual environment tells whose it is.
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
    """A Python that runs. Those of one `suffix` load the same extension, so they share a wheel."""

    executable: str
    implementation: str
    version: str
    numbers: tuple[int, int]
    suffix: str

    def __str__(self) -> str:
        return f"{self.implementation} {self.version}"


def oldest_supported() -> tuple[int, int]:
    """`requires-python`, which is a lower bound and nothing else."""
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
    """What a program prints, when there is such a program and it likes the arguments."""
    if shutil.which(command[0]) is None:
        return []
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.splitlines()


def in_uv() -> Iterator[Path]:
    for folder in lines_of("uv", "python", "dir"):
        yield from sorted(Path(folder).glob("*/bin/python3"))
        yield from sorted(Path(folder).glob("*/python.exe"))


def of_the_launcher() -> Iterator[Path]:
    """The `py` of Windows."""
    for line in lines_of("py", "-0p"):
        if path := re.search(r"\S:\\.*\.exe", line, re.IGNORECASE):
            yield Path(path[0])


def candidates() -> Iterator[Path]:
    yield Path(sys.executable)
    for source in (on_path, in_pyenv, in_uv, of_the_launcher):
        yield from source()


def ask(path: Path) -> Interpreter | str:
    """The interpreter behind a name, or why there is none."""
    try:
        done = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False)
        return Interpreter(**{**(facts := json.loads(done.stdout)), "numbers": tuple(facts["numbers"])})
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    except ValueError:
        return (done.stderr.splitlines() or ["prints no answer"])[0]


@dataclass(frozen=True)
class Findings:
    """All that was found, each once: what to test with, and what not, with the reason."""

    tested: list[Interpreter]
    left_out: dict[str, str]

    def __str__(self) -> str:
        tested = [f"  {interpreter.executable}: {interpreter}" for interpreter in self.tested]
        left_out = [f"  {path}: {why}" for path, why in self.left_out.items()]
        return "\n".join(["Tested with:", *tested, "Left out:", *(left_out or ["  nothing"])])


def find(paths: Iterable[Path] | None = None) -> Findings:
    """Ask every Python of the machine, or those given. An interpreter with many names counts once."""
    tested: dict[str, Interpreter] = {}
    left_out: dict[str, str] = {}
    oldest = oldest_supported()
    for path in dict.fromkeys(candidates() if paths is None else paths):
        answer = ask(path)
        if isinstance(answer, str):
            left_out[str(path)] = f"does not run ({answer})"
        elif answer.numbers < oldest:
            left_out[os.path.realpath(answer.executable)] = f"{answer} is older than {oldest[0]}.{oldest[1]}"
        else:
            tested.setdefault(os.path.realpath(answer.executable), answer)
    return Findings(sorted(tested.values(), key=lambda one: (one.implementation, one.numbers, one.version)), left_out)


if __name__ == "__main__":
    print(find())
