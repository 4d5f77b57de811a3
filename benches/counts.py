"""Count the instructions of fixed workloads in the native core, and compare them with the stored figures.

python benches/counts.py [--write]

The time of a workload depends on what else a machine does; the number of instructions does not. Only those of the extension itself
are counted, because Python and the system's functions for memory and copies differ between systems. The figures depend on the
compiler, so there are some for each compiler, Python and processor family, and they are compared only with those of the same.
The program fails if a figure is more than 3 % higher than the stored one; with --write, the stored figures become those that were
counted. Without stored figures there is nothing to compare with, which is a failure only in CI (the environment variable ``CI``).
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
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
        python = [sys.executable, "-S", "-s", "-P", HERE / "counted.py", _native.__file__, sysconfig.get_path("platlib")]
        # Each run hashes in the same way, whatever the settings of the user are.
        settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"PYTHONHASHSEED": "0"}
        done = subprocess.run([*valgrind, *python], capture_output=True, text=True, check=False, env=settings)
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}")
        # Each odd part is what comes before a workload.
        parts = {name: profile.with_suffix(f".{2 * number}") for number, name in enumerate(done.stdout.splitlines(), 1)}
        return {name: instructions(part, _native.__file__) for name, part in parts.items()}


def stored_figures():
    return json.loads(STORED.read_text()) if STORED.exists() else []


def store(own, counted):
    """Replace the figures of this toolchain; those of others stay."""
    others = [one for one in stored_figures() if one["toolchain"] != own]
    STORED.write_text(json.dumps([*others, {"toolchain": own, "instructions": counted}], indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="store the figures")
    arguments = parser.parse_args()
    own, counted = toolchain(), count()
    known = next((one["instructions"] for one in stored_figures() if one["toolchain"] == own), None)
    growths = {name: figure / known[name] - 1 for name, figure in counted.items() if known and name in known}
    for name, figure in counted.items():
        print(f"{figure:12,} {f'{growths[name]:+.1%}' if name in growths else '':>7}  {name}")
    grown = [name for name, growth in growths.items() if growth > MOST_GROWTH]
    if arguments.write:
        store(own, counted)
    elif known is None or known.keys() != counted.keys():
        which = ", ".join(sorted(counted.keys() ^ (known or {}).keys()))
        text = f"Nothing to compare with for {own}: {which}. To store these figures, run: make counts WRITE=1"
        print(text) if "CI" not in os.environ else sys.exit(text)
    elif grown:
        which = ", ".join(grown)
        sys.exit(f"More than {MOST_GROWTH:.0%} above the stored figures: {which}. If that is intended, run: make counts WRITE=1")


if __name__ == "__main__":
    main()
