"""Texts from devices, servers and files cannot act on the terminal that shows them."""

import asyncio
import json
import os
import pty
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client.cli.terminal import visible, visible_json
from tb_mqtt_client.emulator import Verdict

ACTIVE = [
    *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *"\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e",
    *"\u2066\u2067\u2068\u2069\ufeff", "\ud800", "\udfff",
]  # fmt: skip
ATTACK = "\x1b]0;owned\x07\x1b[2J\x9b1A\x85\u202egnp.exe\u2066\r\nforged line\u2028\x7f"
SHOWN_AS_JSON = json.dumps(ATTACK)[1:-1]


@pytest.mark.parametrize("character", ACTIVE)
def test_every_active_character_is_escaped(character):
    shown = visible(f"a{character}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert eval(f"'{shown}'") == f"a{character}b"
    assert visible(f"a{character}b", keep=character) == f"a{character}b"
    written = visible_json({character: [character]})
    assert written.isprintable() or character == "\n"
    assert json.loads(written) == {character: [character]}


@pytest.mark.parametrize("text", ["", "plain", "Größe 21,5 °C", "温度", "שלום", "👩‍👩‍👧", "a\\nb", "tab & <b>"])
def test_other_characters_are_unchanged(text):
    assert visible(text) == text
    assert visible_json(text) == json.dumps(text, ensure_ascii=False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_escaped_json_has_the_same_value(value):
    for indent in (None, 2):
        written = visible_json(value, indent)
        assert json.loads(written) == value
        assert not {unicodedata.category(character) for character in written.replace("\n", "")} & {"Cc", "Cs"}


async def on_a_terminal(tb_mqtt, *arguments, env):
    """Start a command whose stdout and stderr are one terminal; return the process and a future of its output."""
    leader, follower = pty.openpty()
    process = await tb_mqtt.start(*arguments, env=env | {"TERM": "dumb", "NO_COLOR": "1"}, stdout=follower, stderr=follower)
    os.close(follower)
    shown = asyncio.to_thread(read_all, leader)
    return process, asyncio.ensure_future(shown)


def read_all(descriptor):
    chunks = []
    try:
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
    except OSError:
        # The other end of the terminal is closed.
        pass
    os.close(descriptor)
    return b"".join(chunks).decode()


def is_harmless(shown):
    """Return True if the line ends of the terminal are the only active characters."""
    return visible(shown.replace("\r\n", "")) == shown.replace("\r\n", "")


async def test_watch_escapes_events_on_a_terminal(tb_mqtt, emulator, device):
    process, shown = await on_a_terminal(tb_mqtt, "watch", "--count", "2", "--reply", "1", env=device)
    async with asyncio.timeout(30):
        while not await emulator.set_shared_attributes("device", {"mode": ATTACK}):  # noqa: ASYNC110  # a subscription has no event
            await asyncio.sleep(0)
    await emulator.call_rpc("device", ATTACK, {ATTACK: ATTACK})
    assert await process.wait() == 0
    text = await shown
    assert is_harmless(text)
    assert text.count(SHOWN_AS_JSON) == 4


async def test_watch_escapes_events_in_a_pipe(tb_mqtt, emulator, device):
    process = await tb_mqtt.start("watch", "--count", "1", env=device)
    await process.stderr.readline()
    await emulator.set_shared_attributes("device", {"mode": ATTACK})
    out, _ = await process.communicate()
    assert json.loads(out)["values"] == {"mode": ATTACK}
    assert visible(out.decode().removesuffix("\n")) == out.decode().removesuffix("\n")


async def test_rpc_escapes_responses(tb_mqtt, emulator, device):
    emulator.on_client_rpc = lambda *_: {"answer": ATTACK}
    process, shown = await on_a_terminal(tb_mqtt, "rpc", "m", env=device)
    assert await process.wait() == 0
    text = await shown
    assert is_harmless(text)
    assert f'"answer": "{SHOWN_AS_JSON}"' in text
    emulator.on_client_rpc = lambda *_: {"error": ATTACK}
    process, shown = await on_a_terminal(tb_mqtt, "rpc", "m", env=device)
    assert await process.wait() == 1
    assert is_harmless(await shown)


async def test_attributes_get_escapes_keys_and_values(tb_mqtt, emulator, device):
    await emulator.set_shared_attributes("device", {"mode": ATTACK})
    process, shown = await on_a_terminal(tb_mqtt, "attributes", "get", "--shared", "mode,\x1b[2J", env=device)
    assert await process.wait() == 1
    text = await shown
    assert is_harmless(text)
    assert SHOWN_AS_JSON in text


async def test_send_escapes_bad_lines_and_file_names(tb_mqtt, emulator, device, tmp_path):
    (tmp_path / "attack\x1b[2J.csv").write_text(f'ts,"{ATTACK}"\nsoon,1\n"{ATTACK}",2\n', newline="")
    process, shown = await on_a_terminal(tb_mqtt, "send", "--skip-bad", "-f", str(tmp_path / "attack\x1b[2J.csv"), env=device)
    await process.wait()
    assert is_harmless(await shown)
    process, shown = await on_a_terminal(tb_mqtt, "send", "-f", str(tmp_path / "not there\x1b[2J"), env=device)
    assert await process.wait() == 2
    assert is_harmless(await shown)


async def test_log_lines_are_escaped(tb_mqtt, emulator, device):
    """With -vv the log contains payloads and reasons from the server."""
    emulator.on_publish = lambda publish: Verdict.refuse(0x99) if publish.topic.endswith("/telemetry") else None
    process, shown = await on_a_terminal(tb_mqtt, "watch", "-vv", "--count", "1", env=device)
    async with asyncio.timeout(30):
        payload = ATTACK.encode()
        while not await emulator.publish_to("DEVICE-TOKEN", "v1/devices/me/attributes", payload):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0)
    await emulator.set_shared_attributes("device", {"a": 1})
    assert await process.wait() == 0
    assert is_harmless(await shown)


async def test_usage_errors_escape_arguments(tb_mqtt, device):
    for arguments in (("send", f"--{ATTACK}"), (ATTACK,), ("watch", "--reply", ATTACK), ("send", "a=1", "--host", ATTACK)):
        done = await tb_mqtt(*arguments, env=device)
        assert done.code == 2
        assert visible(done.err, keep="\n") == done.err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
async def test_rpc_indents_a_response_on_a_terminal(tb_mqtt, emulator, device):
    emulator.on_client_rpc = lambda *_: {"a": [1, "two"], "b": None}
    process, shown = await on_a_terminal(tb_mqtt, "rpc", "m", env=device)
    assert await process.wait() == 0
    assert (await shown).replace("\r\n", "\n") == '{\n  "a": [\n    1,\n    "two"\n  ],\n  "b": null\n}\n'
