"""Count the instructions of fixed workloads in the native core, and compare them with the stored figures.

python benches/counts.py [--write]

The time of a workload depends on what else a machine does; the number of instructions does not. Only those of the extension itself
are counted, because Python and the system's functions for memory and copies differ between systems. The figures depend on the
compiler, so they are compared only with those of the same compiler, Python and processor family. The program fails if a figure is
more than 3 % higher than the stored one; with --write, the stored figures become those that were counted.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tb_mqtt_client import _native

HERE = Path(__file__).parent
STORED = HERE / "counts.json"
MOST_GROWTH = 0.03
MARK = "_native::__pyfunction_validate_key"


def toolchain():
    """Return what the figures depend on, apart from the code."""
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    python = ".".join(platform.python_version_tuple()[:2])
    return {"rustc": rustc, "python": python, "machine": platform.machine(), "flags": os.environ.get("RUSTFLAGS", "")}


def instructions(profile, library):
    """Return the instructions that a file of callgrind has for the functions of a library.

    The file has lines `ob=(1) /path` for the library, which is named only once and has a number from then on, and a line for the
    cost of each source line. A line after `calls=` has the cost of a call, which is counted where the called function is.
    """
    names, current, is_call, total = {}, "", False, 0
    for line in profile.read_text().splitlines():
        if found := re.match(r"(c?ob)=\((\d+)\)(?: (.*))?", line):
            kind, number, name = found.groups()
            if name is not None:
                names[number] = name
            if kind == "ob":
                current = names[number]
        elif line.startswith("calls="):
            is_call = True
        elif found := re.match(r"[+\-*\d]\S* (\d+)$", line):
            if not is_call and current == library:
                total += int(found[1])
            is_call = False
    return total


def count():
    """Run the workloads below valgrind, and return the instructions of each."""
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", f"--dump-before={MARK}*"]
        # Without site packages, which take longer to load than all workloads.
        python = [sys.executable, "-I", "-S", HERE / "counted.py", _native.__file__]
        done = subprocess.run([*valgrind, *python], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}")
        # The first part is what comes before the workloads.
        parts = [profile.with_suffix(f".{number + 2}") for number, _ in enumerate(done.stdout.splitlines())]
        return {name: instructions(part, _native.__file__) for name, part in zip(done.stdout.splitlines(), parts, strict=True)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="store the figures")
    arguments = parser.parse_args()
    own, counted = toolchain(), count()
    stored = json.loads(STORED.read_text()) if STORED.exists() else {"toolchain": None, "instructions": {}}
    is_comparable = stored["toolchain"] == own
    grown = []
    for name, figure in counted.items():
        before = stored["instructions"].get(name)
        growth = figure / before - 1 if before and is_comparable else 0.0
        grown += [name] if growth > MOST_GROWTH else []
        print(f"{figure:12,} {f'{growth:+.1%}' if before and is_comparable else '':>7}  {name}")
    if arguments.write:
        STORED.write_text(json.dumps({"toolchain": own, "instructions": counted}, indent=2) + "\n")
    elif not is_comparable:
        print(f"Nothing to compare with: the stored figures are those of {stored['toolchain']}, and these of {own}.")
    elif grown:
        which = ", ".join(grown)
        sys.exit(f"More than {MOST_GROWTH:.0%} above the stored figures: {which}. If that is intended, run: make counts WRITE=1")


if __name__ == "__main__":
    main()
