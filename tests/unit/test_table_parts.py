"""Parts of a table: the next one is read while one is accepted, and one that is no longer needed is dropped."""

import asyncio
import threading

import pytest

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.service.delivery.tables import TableSum, send_parts

ROWS = (None, None, EncodedUplink.timeseries({"key": 1}, 1_700_000_000_000))


class Reader:
    """Has some parts of one datapoint; then it ends, or fails."""

    def __init__(self, parts, error=None):
        self.left, self.error = parts, error
        self.begun = [threading.Event() for _ in range(parts + 1)]
        self.may_read = threading.Event()
        self.may_read.set()
        self.is_slow, self.slow = set(), threading.Event()
        self.ended = 0

    def read(self, max_datapoints):
        assert max_datapoints > 0
        assert self.may_read.wait(10)
        number = sum(event.is_set() for event in self.begun)
        self.begun[number].set()
        assert number not in self.is_slow or self.slow.wait(10)
        self.ended += 1
        if self.left:
            self.left -= 1
            return [ROWS]
        if self.error is not None:
            raise self.error
        return None


def accepted():
    delivery = asyncio.get_running_loop().create_future()
    delivery.set_result(PublishResult("topic", 1, 1, 1, 0, datapoints_count=1))
    return ROWS[2], delivery


async def send(reader, accept):
    return await send_parts(lambda: reader, accept, TableSum("topic", 1), wait_for_publish=True)


def run(work):
    """Run a coroutine function; nothing may be reported to the event loop, such as an error that was not looked at."""
    reported = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
        return await work()

    try:
        return asyncio.run(main())
    finally:
        assert reported == []


def test_the_next_part_is_read_while_one_is_accepted():
    reader, taken = Reader(3), []

    async def accept(_rows):
        taken.append(1)
        assert await asyncio.to_thread(reader.begun[len(taken)].wait, 10)
        # Not more than one.
        assert not any(event.is_set() for event in reader.begun[len(taken) + 1 :])
        return accepted()

    result = run(lambda: send(reader, accept))
    assert (len(taken), result.datapoints_count) == (3, 3)


def test_the_parts_before_one_that_cannot_be_read_are_accepted():
    reader, taken = Reader(2, ValueError("row 3")), []

    async def accept(_rows):
        taken.append(1)
        return accepted()

    with pytest.raises(ValueError, match="row 3") as raised:
        run(lambda: send(reader, accept))
    assert len(taken) == 2
    assert raised.value.__notes__ == ["The first 2 datapoints of the table were accepted before, and are delivered."]


@pytest.mark.parametrize("error", [None, ValueError("row 2")])
def test_a_part_that_was_read_ahead_of_one_that_is_refused_is_dropped(error):
    reader = Reader(1, error)

    async def refuse(_rows):
        assert await asyncio.to_thread(reader.begun[1].wait, 10)
        raise RuntimeError("refused")

    with pytest.raises(RuntimeError, match="refused"):
        run(lambda: send(reader, refuse))


def test_a_table_is_not_read_any_more_when_its_sending_has_failed():
    reader = Reader(2)
    reader.is_slow.add(1)

    async def refuse(_rows):
        assert await asyncio.to_thread(reader.begun[1].wait, 10)
        asyncio.get_running_loop().call_later(0.05, reader.slow.set)
        raise RuntimeError("refused")

    async def work():
        with pytest.raises(RuntimeError, match="refused"):
            await send(reader, refuse)
        assert reader.ended == 2

    run(work)


def test_cancelling_while_a_part_is_read():
    reader = Reader(2)
    reader.may_read.clear()

    async def accept(_rows):
        raise AssertionError("a part is accepted after the send was cancelled")

    async def work():
        task = asyncio.create_task(send(reader, accept))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        reader.may_read.set()

    before = threading.active_count()
    run(work)
    assert threading.active_count() == before
