"""docs/emulator.md names what exists, and nothing else. Its programs and tests run with those of all documents, in tests/docs."""

import inspect
import re
from pathlib import Path

from tb_mqtt_client.emulator import ConnectVerdict, Device, Emulator, Verdict

DOCUMENT = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()


def documented(pattern):
    return set(re.findall(pattern, DOCUMENT))


def test_what_is_named_exists():
    verdicts = documented(r"\bVerdict\.(\w+)")
    assert verdicts
    assert verdicts <= set(dir(Verdict))
    assert documented(r"\bConnectVerdict\.(\w+)") <= set(dir(ConnectVerdict))
    assert documented(r"\bSendVerdict\.(\w+)") == {"delay", "drop", "replace"}
    for name in documented(r"(?<!\.)emulator\.(\w+)[( ]"):
        assert hasattr(Emulator, name), name


def test_what_exists_is_named():
    arguments = set(inspect.signature(Emulator).parameters) - {"host", "port", "accept_any_token", "keep_data", "history_limit"}
    public = {name for name in dir(Emulator) if not name.startswith("_")} - {"device", "devices", "host", "port"}
    attributes = {name for name in Device.__slots__ if not name.startswith("_")} | {"telemetry", "stored_telemetry", "connected"}
    for name in arguments | public | (attributes - {"name", "session"}):
        assert re.search(rf"\b{name}\b", DOCUMENT), name
