"""A limit for the peer's answer, in a loop that may be blocked."""

import asyncio
import time

import pytest

from tb_mqtt_client.common import timing as module
from tb_mqtt_client.common.timing import running_timeout


async def answer_after(seconds, future):
    await asyncio.sleep(seconds)
    future.set_result("answer")


@pytest.fixture(autouse=True)
def short_blockage(monkeypatch):
    monkeypatch.setattr(module, "BLOCKED_LOOP_SECONDS", 0.05)


async def test_an_answer_in_time():
    async with running_timeout(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seconds", [0, 0.01])
async def test_no_answer(seconds):
    with pytest.raises(TimeoutError):
        async with running_timeout(seconds):
            await asyncio.Event().wait()


async def test_an_answer_that_is_read_when_the_loop_runs_again():
    """With ``asyncio.timeout`` it came too late, although it had been there in time."""
    future = asyncio.get_running_loop().create_future()
    async with running_timeout(0.1):
        answering = asyncio.ensure_future(answer_after(0.05, future))
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251  # what is tested
        assert await future == "answer"
    await answering


async def test_a_loop_that_is_blocked_again_and_again_ends_all_the_same():
    async def block():
        while True:
            time.sleep(0.1)  # noqa: ASYNC251  # what is tested
            await asyncio.sleep(0)

    blocking = asyncio.ensure_future(block())
    with pytest.raises(TimeoutError):
        async with running_timeout(0.01):
            await asyncio.Event().wait()
    blocking.cancel()


async def test_a_cancellation_goes_through_and_leaves_no_timer():
    async def wait():
        async with running_timeout(0.05):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.06)
