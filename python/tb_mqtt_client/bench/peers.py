"""The programs to measure: this package, serializers, and SDKs of ThingsBoard that are importable."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

WORKER: Path = Path(__file__).with_name("worker.py")
"""Measures this package, serializers and SDKs."""
INTERPRETERS: tuple[str, ...] = ("bin/python", "Scripts/python.exe")


@dataclass(frozen=True, slots=True)
class Peer:
    """A program to measure."""

    program: str
    """Its key in ``worker.PROGRAMS``."""
    label: str
    """Its name until the program itself reports name and version."""
    interpreter: str = sys.executable
    path: tuple[str, ...] = ()
    """Folders from which it is imported first."""
    worker: Path = WORKER
    """The program that measures it."""

    @property
    def has_limits(self) -> bool:
        """Return True if its payloads must be within limits; serializers do not know any."""
        return self.program not in ("json", "orjson")


OWN: Peer = Peer("own", "tb_mqtt_client")


def serializers() -> list[Peer]:
    """Return Python's ``json``, and ``orjson`` if it is installed."""
    found = [Peer("json", "json.dumps")]
    if find_spec("orjson") is not None:
        found.append(Peer("orjson", "orjson.dumps"))
    return found


def kind_of(folder: Path) -> str | None:
    """Return the key of the program that a folder on the module path contains: ``sdk1``, ``sdk2``, or ``None`` for neither.

    This package provides modules with the names of both SDKs, and is not one of them.
    """
    if any((folder / "tb_mqtt_client").glob("_native*")):
        return None
    one = folder / "tb_device_mqtt.py"
    if one.is_file() and "class TBDeviceMqttClient" in one.read_text(encoding="utf-8", errors="replace"):
        return "sdk1"
    if (folder / "tb_mqtt_client" / "service" / "device" / "client.py").is_file():
        return "sdk2"
    return None


def sdk_at(place: str) -> Peer:
    """Return the SDK in a folder with its modules, or in a virtual environment.

    Args:
        place: The folder.

    Raises:
        ValueError: It contains neither SDK 1.x nor SDK 2.0.
    """
    root = Path(place).absolute()
    interpreter = next((root / name for name in INTERPRETERS if (root / name).exists()), None)
    folders = [root] if interpreter is None else sorted([*root.glob("lib/python*/site-packages"), *root.glob("Lib/site-packages")])
    for folder in folders:
        if (kind := kind_of(folder)) is not None:
            return Peer(kind, label_of(kind), str(interpreter or sys.executable), (str(folder),))
    raise ValueError(f"{place} has neither SDK 1.x (tb_device_mqtt.py) nor SDK 2.0 (tb_mqtt_client/service/device/client.py)")


def importable_sdks(path: Iterable[str]) -> list[Peer]:
    """Return the SDKs in the folders of a module path, at most one of each kind.

    Args:
        path: Such as ``sys.path``.
    """
    found: dict[str, Peer] = {}
    for folder in path:
        if folder and (kind := kind_of(Path(folder))) is not None and kind not in found:
            found[kind] = Peer(kind, label_of(kind), path=(folder,))
    return list(found.values())


def label_of(kind: str) -> str:
    """Return the name of an SDK without its exact version."""
    return {"sdk1": "SDK 1.x", "sdk2": "SDK 2.0"}[kind]
