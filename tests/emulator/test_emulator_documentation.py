"""docs/emulator.md names all public names of the emulator and no others; tests/docs runs its programs and tests."""

import inspect
import re
from pathlib import Path

from tb_mqtt_client.emulator import ConnectVerdict, Device, Emulator, Verdict

DOCUMENT = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()


def documented(pattern):
    return set(re.findall(pattern, DOCUMENT))


def test_documented_names_exist():
    verdicts = documented(r"\bVerdict\.(\w+)")
    assert verdicts
    assert verdicts <= set(dir(Verdict))
    assert documented(r"\bConnectVerdict\.(\w+)") <= set(dir(ConnectVerdict))
    assert documented(r"\bSendVerdict\.(\w+)") == {"delay", "drop", "replace"}
    for name in documented(r"(?<!\.)emulator\.(\w+)[( ]"):
        assert hasattr(Emulator, name), name


def test_public_names_are_documented():
    arguments = set(inspect.signature(Emulator).parameters) - {"host", "port", "accept_any_token", "keep_data", "history_limit"}
    public = {name for name in dir(Emulator) if not name.startswith("_")} - {"device", "devices", "host", "port"}
    attributes = {name for name in Device.__slots__ if not name.startswith("_")} | {"telemetry", "stored_telemetry", "connected"}
    for name in arguments | public | (attributes - {"name", "session"}):
        assert re.search(rf"\b{name}\b", DOCUMENT), name
