"""The owner of the tasks of a client ends them, spares tasks that wait for the end, and reports unexpected ends."""

import asyncio
from contextlib import suppress

import pytest

from tb_mqtt_client.common.tasks import Tasks


@pytest.fixture
def failures():
    return []


@pytest.fixture
async def tasks(failures):
    owner = Tasks(lambda task, error: failures.append((task.get_name(), error)))
    yield owner
    await owner.end_all()
    await asyncio.sleep(0)
    assert len(owner) == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def forever():
    await asyncio.Event().wait()


async def test_tasks_end_and_are_forgotten(tasks, failures):
    started = [tasks.start(forever(), "one"), tasks.keep(forever(), "two"), tasks.fork(forever(), "three")]
    assert [task.get_name() for task in started] == ["tb-mqtt-client one", "tb-mqtt-client two", "tb-mqtt-client three"]
    await tasks.end(started[:2])
    assert [task.cancelled() for task in started] == [True, True, False]
    await tasks.end_all()
    await asyncio.sleep(0)
    assert (len(tasks), failures) == (0, [])


@pytest.mark.parametrize("how", ["raises", "returns", "is cancelled"])
async def test_a_kept_task_that_ends_on_its_own_is_reported(tasks, failures, how):
    async def work():
        if how == "raises":
            raise LookupError("a defect")
        if how == "is cancelled":
            await forever()

    other = tasks.keep(forever(), "other")
    task = tasks.keep(work(), "work")
    if how == "is cancelled":
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    [(name, error)] = failures
    assert (name, repr(error)) == ("tb-mqtt-client work", "LookupError('a defect')" if how == "raises" else "None")
    assert not tasks.all_cancelled
    other.cancel()
    assert tasks.all_cancelled


async def test_a_kept_task_may_finish_its_work(tasks, failures):
    await tasks.keep(asyncio.sleep(0), "work", may_return=True)
    await asyncio.sleep(0)
    assert failures == []


async def test_an_exception_belongs_to_the_code_that_awaits_the_task(tasks, failures):
    async def work():
        raise LookupError("for the caller")

    with pytest.raises(LookupError, match="for the caller"):
        await tasks.start(work(), "work")
    assert failures == []


WAYS = {
    "directly": lambda work: work,
    "in a task": asyncio.create_task,
    "with gather": lambda work: asyncio.gather(work, asyncio.sleep(0)),
    "with a time limit": lambda work: asyncio.wait_for(work, 60),
}


@pytest.mark.parametrize("way", WAYS)
async def test_the_task_of_a_callback_is_known_in_awaited_code(tasks, way):
    async def callback():
        async def find():
            return tasks.current()

        found = await WAYS[way](find())
        return found[0] if isinstance(found, list) else found

    task = tasks.start(callback(), "callback")
    assert await task is task
    assert tasks.current() is None


async def test_only_the_innermost_callback_of_the_owner_counts(tasks):
    other = Tasks(pytest.fail)

    async def outer():
        async def inner():
            return tasks.current(), other.current()

        return await other.start(inner(), "inner")

    task = tasks.start(outer(), "outer")
    found, found_by_other = await task
    assert found is task
    assert found_by_other.get_name() == "tb-mqtt-client inner"


async def test_a_loop_of_the_client_does_not_count_as_a_callback(tasks):
    """Functions of the user run in the loop, and may start a task that ends the client; the loop must end then, too."""
    found = []

    async def loop():
        found.append(tasks.current())
        found.append(await asyncio.create_task(current()))

    async def current():
        return tasks.current()

    async def callback():
        await tasks.keep(loop(), "loop", may_return=True)

    await tasks.start(callback(), "callback")
    assert found == [None, None]


async def test_a_spared_task_and_its_parts_are_not_ended(tasks):
    async def callback():
        part = tasks.fork(forever(), "part")
        tasks.spare(tasks.current())
        parts.append(part)
        await part

    parts = []
    spared, other = tasks.start(callback(), "spared"), tasks.start(forever(), "other")
    await asyncio.sleep(0)
    await tasks.end_all()
    assert (spared.done(), parts[0].done(), other.cancelled()) == (False, False, True)
    tasks.spare_none()
    await tasks.end([spared])
    assert spared.cancelled()


async def test_a_task_that_ends_all_others_does_not_wait_for_itself(tasks):
    async def end():
        await tasks.end_all()
        return len(tasks)

    tasks.start(forever(), "other")
    assert await tasks.start(end(), "end") >= 1


async def test_responses_are_awaited_until_the_callback_itself_waits(tasks):
    release = asyncio.Event()

    async def callback():
        await release.wait()

    async def waiting():
        tasks.spare(tasks.current())
        await forever()

    tasks.start(callback(), "reply", owes_reply=True)
    tasks.start(waiting(), "waiting", owes_reply=True)
    tasks.start(forever(), "no reply")
    replies = asyncio.ensure_future(tasks.wait_replies())
    await asyncio.sleep(0.01)
    assert not replies.done()
    release.set()
    await replies
    tasks.spare_none()


async def test_a_callback_that_waits_for_the_end_is_not_waited_for(tasks):
    async def callback():
        await begin.wait()
        tasks.spare(tasks.current())
        await forever()

    begin = asyncio.Event()
    waiting = asyncio.ensure_future(tasks.wait([tasks.start(callback(), "callback")], 3600))
    await asyncio.sleep(0)
    begin.set()
    async with asyncio.timeout(10):
        await waiting
    tasks.spare_none()


async def test_a_task_that_does_not_end_is_reported(tasks, caplog):
    tasks.end_seconds = 0.01
    release = asyncio.Event()

    async def stubborn():
        with suppress(asyncio.CancelledError):
            await forever()
        await release.wait()

    task = tasks.start(stubborn(), "stubborn")
    await asyncio.sleep(0)
    await tasks.end([task])
    assert "tb-mqtt-client stubborn did not end within 0.01 s of being cancelled" in caplog.text
    assert tasks.is_ending(task)
    release.set()
    await task
