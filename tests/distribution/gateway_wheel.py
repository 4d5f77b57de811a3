"""Rename wheels so that the IoT Gateway accepts them.

python tests/distribution/gateway_wheel.py FOLDER    adds a wheel to each wheel in the folder

The IoT Gateway requires a version of SDK 1.x exactly. A local version, such as 1.13.13+core.2.0.0, satisfies that requirement; its
content is that of the wheel that it was made from. Package indexes accept no local versions, so this wheel is for installing from a
file.
"""

import base64
import csv
import hashlib
import io
import re
import sys
import zipfile
from pathlib import Path

PINNED = "1.13.13"
"""The version that the newest IoT Gateway requires."""


def gateway_version(version: str) -> str:
    """Return the version of the wheel for the IoT Gateway: that of SDK 1.x, and our own behind it."""
    return f"{PINNED}+core.{version}"


def record(files: dict[str, bytes], path: str) -> bytes:
    """Return the content of RECORD: name, hash and size of each file."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.writerow((name, f"sha256={digest}", len(content)))
    rows.writerow((path, "", ""))
    return text.getvalue().encode()


def make_gateway_wheel(wheel: Path) -> Path:
    """Write a copy of a wheel with the version for the IoT Gateway next to it, and return its path."""
    name, version, tags = wheel.stem.split("-", 2)
    new = gateway_version(version)
    old_folder, new_folder = f"{name}-{version}.dist-info/", f"{name}-{new}.dist-info/"
    files = {}
    with zipfile.ZipFile(wheel) as opened:
        infos = {info.filename: info for info in opened.infolist()}
        for path in infos:
            files[path.replace(old_folder, new_folder)] = opened.read(path)
    metadata = f"{new_folder}METADATA"
    files[metadata], count = re.subn(rb"(?m)^Version: .*$", f"Version: {new}".encode(), files[metadata], count=1)
    if count != 1:
        raise ValueError(f"{wheel.name} has no version in its metadata")
    del files[f"{new_folder}RECORD"]
    files[f"{new_folder}RECORD"] = record(files, f"{new_folder}RECORD")
    made = wheel.with_name(f"{name}-{new}-{tags}.whl")
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as written:
        for path, content in files.items():
            old = infos[path.replace(new_folder, old_folder)]
            info = zipfile.ZipInfo(path, old.date_time)
            info.external_attr = old.external_attr
            info.compress_type = zipfile.ZIP_DEFLATED
            written.writestr(info, content)
    return made


def main() -> None:
    folder = Path(sys.argv[1])
    for wheel in sorted(folder.glob("*.whl")):
        if "+core." not in wheel.name:
            print(make_gateway_wheel(wheel))


if __name__ == "__main__":
    main()
