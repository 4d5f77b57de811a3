"""An unexpected error in a part of the client does not lose data and does not stop the client."""

import asyncio

import pytest
from device_peer import make_client

from engine_parts import engine_of
from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.service.delivery import outcomes


@pytest.fixture
async def contexts():
    """Return a list of the contexts that the exception handler of the loop gets."""
    seen = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    return seen


def fail(*_arguments):
    raise LookupError("a defect")


@pytest.mark.parametrize("code", [0, 0x97, 0x99])
async def test_an_error_after_a_puback_does_not_change_the_result(emulator, device, contexts, monkeypatch, code):
    """The caller gets the result of the PUBACK, and the connection stays open."""
    emulator.on_publish = lambda _: Verdict.refuse(code) if code else None
    monkeypatch.setattr(outcomes.Outcomes, "acknowledged", fail)
    async with asyncio.timeout(5):
        assert (await device.send_timeseries({"a": 1})).reason_code == code
    monkeypatch.undo()
    emulator.on_publish = None
    assert [str(context["exception"]) for context in contexts] == ["a defect"]
    assert (await device.send_timeseries({"a": 1})).is_successful()
    assert device.statistics.reconnects == 0


async def test_an_error_at_the_end_of_a_session_does_not_prevent_the_next_one(emulator, device, contexts):
    """The other callbacks for the end of the session are called too."""
    ends = []
    engine_of(device).mqtt_manager.session_end_callbacks[:0] = [fail]
    engine_of(device).mqtt_manager.session_end_callbacks.append(ends.append)
    await emulator.disconnect_device("device")
    async with asyncio.timeout(5):
        assert (await device.send_timeseries({"a": 1}, timeout=None)).is_successful()
    assert len(ends) == 1
    assert [str(context["exception"]) for context in contexts] == ["a defect"]
    engine_of(device).mqtt_manager.session_end_callbacks.remove(fail)


async def test_an_error_in_the_watch_for_pubacks_ends_the_connection(emulator):
    """Without the watch, data could wait forever for a PUBACK; it is sent on the next connection."""
    client = make_client(emulator, ack_timeout=0.05)
    await client.connect()
    swallow = iter([True])
    emulator.on_publish = lambda _: Verdict.ignore() if next(swallow, False) else None
    engine_of(client).mqtt_manager.patches.on_overdue = fail
    async with asyncio.timeout(5):
        assert (await client.send_timeseries({"a": 1}, timeout=None)).is_successful()
    assert client.statistics.reconnects == 1
    assert "a defect" in client.statistics.last_disconnect
    await client.stop()


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), MemoryError(), RecursionError(), OverflowError("too large")], ids=repr
)
async def test_an_error_in_name_resolution_does_not_end_the_attempts(emulator, monkeypatch, caplog, error):
    """connect() raises the error; for a lost connection it is logged, and the next attempt follows."""
    resolve, failures = asyncio.get_running_loop().getaddrinfo, [error] * 3

    async def getaddrinfo(host, *arguments, **options):
        if failures:
            raise failures.pop()
        return await resolve("127.0.0.1" if host == "platform.test" else host, *arguments, **options)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    client = make_client(emulator, host="platform.test")
    with pytest.raises(type(error)):
        await client.connect()
    failures.clear()
    await client.connect()
    failures[:] = [error] * 3
    await emulator.disconnect_device("device")
    async with asyncio.timeout(5):
        assert (await client.send_timeseries({"a": 1}, timeout=None)).is_successful()
    assert sum(repr(error) in message and "Connecting failed" in message for message in caplog.messages) == 3
    await client.stop()
