"""``tb-mqtt watch`` prints events of the platform, one JSON object per line, and sends responses."""

import asyncio
import json
import os
import signal

import pytest
from command_line import finished

from tb_mqtt_client.emulator import Verdict


class Watcher:
    """A running ``watch``, whose lines can be read one by one."""

    def __init__(self, process):
        self.process = process

    async def line(self):
        return json.loads(await self.process.stdout.readline())

    async def ended(self):
        done = await finished(self.process)
        assert "Traceback" not in done.err
        return done


@pytest.fixture
async def start(tb_mqtt, emulator, device):
    """Return a function that starts a watcher and waits until it is connected and subscribed."""
    processes = []

    async def start(*arguments):
        process = await tb_mqtt.start("watch", *arguments, env=device)
        processes.append(process)
        # The command prints this line when it is ready.
        assert b"watching as a device of" in await process.stderr.readline()
        return Watcher(process)

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_watch_prints_attribute_updates_and_deletions(start, emulator):
    watcher = await start("--count", "2")
    await emulator.set_shared_attributes("device", {"mode": "eco", "limits": [1, {"a": None}]})
    first = await watcher.line()
    assert (first["event"], first["values"]) == ("attributes", {"mode": "eco", "limits": [1, {"a": None}]})
    assert isinstance(first["ts"], int)
    await emulator.delete_shared_attributes("device", ["mode"])
    second = await watcher.line()
    assert (second["event"], second["keys"]) == ("deleted", ["mode"])
    assert (await watcher.ended()).code == 0


async def test_watch_sends_the_given_results(start, emulator):
    watcher = await start("--reply-to", "getState", '{"open":true}', "--reply", "null", "--count", "2")
    assert await emulator.call_rpc("device", "getState", {"door": 1}) == {"result": {"open": True}}
    request = await watcher.line()
    assert (request["event"], request["method"], request["params"]) == ("rpc", "getState", {"door": 1})
    assert request["response"] == {"result": {"open": True}}
    assert await emulator.call_rpc("device", "other") == {}
    assert (await watcher.line())["params"] is None
    assert (await watcher.ended()).code == 0


async def test_watch_sends_and_prints_a_plain_result(start, emulator):
    watcher = await start("--plain", "--reply", "false", "--count", "1")
    assert await emulator.call_rpc("device", "getValue") is False
    assert (await watcher.line())["response"] is False
    assert (await watcher.ended()).code == 0


async def test_watch_sends_an_error_for_a_method_without_a_result(start, emulator):
    watcher = await start("--count", "1")
    response = await emulator.call_rpc("device", "open")
    assert "has no reply" in response["error"]
    assert (await watcher.line())["response"] == response
    assert (await watcher.ended()).code == 0


async def test_watch_ends_after_the_given_time(start):
    watcher = await start("--for", "0.05")
    done = await watcher.ended()
    assert (done.code, done.out) == (0, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_watch_ends_on_signals(start, emulator, number, code):
    watcher = await start()
    watcher.process.send_signal(number)
    assert (await watcher.ended()).code == code
    assert emulator.device("device").session is None


async def test_watch_ends_when_its_reader_exits(tb_mqtt, emulator, device):
    """``tb-mqtt watch | head -1`` ends without an error message."""
    output, stdout = os.pipe()
    process = await tb_mqtt.start("watch", env=device, stdout=stdout)
    os.close(stdout)
    await process.stderr.readline()
    os.close(output)
    await emulator.set_shared_attributes("device", {"a": 1})
    error = await process.stderr.read()
    assert await process.wait() == 141
    assert error == b""


async def test_watch_continues_after_a_lost_connection(tb_mqtt, emulator, device, tmp_path):
    (tmp_path / "tb.toml").write_text("reconnect_delay_min = 0.001\nreconnect_delay_max = 0.01\n")
    process = await tb_mqtt.start("watch", "--count", "1", "--config", str(tmp_path / "tb.toml"), env=device)
    await process.stderr.readline()
    await emulator.disconnect_device("device")
    async with asyncio.timeout(30):
        while not await emulator.set_shared_attributes("device", {"a": 1}):  # noqa: ASYNC110  # a subscription has no event
            await asyncio.sleep(0)
    done = await finished(process)
    assert (done.code, done.json["values"]) == (0, {"a": 1})
    assert "The connection ended" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reply", "text"], "'text' is not valid JSON"),
        (["--reply-to", "m", "{"], "--reply-to m: '{' is not valid JSON"),
        (["--reply-to", "m", "[" * 100_000], "is not valid JSON"),
        (["--reply", "[" * 100_000], "is not valid JSON"),
        (["--count", "0"], "0 is not in the range"),
        (["--for", "-1"], "-1 is not a positive number"),
    ],
)
async def test_unusable_arguments_are_reported(tb_mqtt, device, arguments, message):
    done = await tb_mqtt("watch", *arguments, env=device)
    assert (done.code, message in done.err) == (2, True)


async def test_watch_continues_if_the_platform_refuses_a_response(start, emulator):
    emulator.on_publish = lambda publish: Verdict.refuse(0x83) if "rpc/response" in publish.topic else None
    watcher = await start("--reply", "1", "--count", "1")
    with pytest.raises(TimeoutError):
        await emulator.call_rpc("device", "m", timeout=0.5)
    assert (await watcher.line())["method"] == "m"
    assert (await watcher.ended()).code == 0
