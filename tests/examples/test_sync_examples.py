"""Every example of the synchronous clients prints the documented output, and its data arrives at the platform."""

import asyncio


async def test_send_from_threads(emulator, sync_example):
    async with sync_example("sync/send_from_threads.py", "device") as program:
        output = await program.end()
    assert output.splitlines()[-1] == "datapoints acknowledged: 400"
    assert output.count("100 of 100 acknowledged") == 4
    assert len(emulator.device("device").telemetry) == 400


async def test_rpc_and_attributes(emulator, sync_example):
    async with sync_example("sync/rpc_and_attributes.py", "device") as program:
        await program.printed("Waiting for updates")
        assert await emulator.call_rpc("device", "restart", {"delay": 1}) == {"result": {"done": "restart"}}
        published = asyncio.Queue()
        emulator.on_publish = published.put_nowait
        await emulator.set_shared_attributes("device", {"mode": "eco"})
        await program.printed("set: mode = eco")
        assert (await published.get()).json() == {"applied": ["mode"]}
        output = await program.interrupt()
    assert output.endswith("stopping\n")


async def test_gateway(emulator, sync_example):
    async with sync_example("sync/gateway.py", "gateway") as program:
        output = await program.end()
    assert output.splitlines() == ["Meter 0: Success", "Meter 1: Success", "Meter 2: Success"]
    assert emulator.device("Meter 2").telemetry[0].value == 200
