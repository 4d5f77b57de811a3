"""A timeout that does not count the time in which the event loop is blocked."""

import asyncio
import time

import pytest

from tb_mqtt_client.common import timing as module
from tb_mqtt_client.common.timing import running_timeout


async def respond_after(seconds, future):
    await asyncio.sleep(seconds)
    future.set_result("response")


@pytest.fixture(autouse=True)
def short_blockage(monkeypatch):
    monkeypatch.setattr(module, "BLOCKED_LOOP_SECONDS", 0.05)


async def test_a_block_that_ends_in_time_does_not_raise():
    async with running_timeout(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seconds", [0, 0.01])
async def test_a_block_that_takes_too_long_raises(seconds):
    with pytest.raises(TimeoutError):
        async with running_timeout(seconds):
            await asyncio.Event().wait()


async def test_a_response_that_arrives_while_the_loop_is_blocked_is_in_time():
    """With ``asyncio.timeout``, a response that arrived in time would be too late."""
    future = asyncio.get_running_loop().create_future()
    async with running_timeout(0.1):
        responding = asyncio.ensure_future(respond_after(0.05, future))
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251  # the case of this test
        assert await future == "response"
    await responding


async def test_the_timeout_ends_although_the_loop_is_blocked_again_and_again():
    async def block():
        while True:
            time.sleep(0.1)  # noqa: ASYNC251  # the case of this test
            await asyncio.sleep(0)

    blocking = asyncio.ensure_future(block())
    with pytest.raises(TimeoutError):
        async with running_timeout(0.01):
            await asyncio.Event().wait()
    blocking.cancel()


async def test_a_cancellation_is_passed_on_and_leaves_no_timer():
    async def wait():
        async with running_timeout(0.05):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.06)
