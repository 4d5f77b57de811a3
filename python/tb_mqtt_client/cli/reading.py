"""Read input of any length without blocking the event loop: a thread reads and parses, and the loop receives batches.

A batch ends where reading has to wait, so that input that arrives slowly (``tail -f``) is sent at once.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import CancelledError

from tb_mqtt_client.cli.records import Parsed

Batch = list[Parsed]
Parse = Callable[[Iterable[tuple[int, bytes]]], Iterator[Parsed]]

CHUNK = 64 * 1024
"""Bytes to read at a time."""
BATCH = 1000
"""The most items in one batch."""
LONGEST_LINE = 16 * 2**20
"""Bytes in a line, far more than any payload. Without a limit, input without a newline would fill the memory."""


class InputReader:
    """Reads one file descriptor to its end, once.

    Attributes:
        bytes_read: The number of bytes that were read.
    """

    def __init__(self, descriptor: int, parse: Parse) -> None:
        """Prepare to read.

        Args:
            descriptor: The file descriptor; the caller closes it.
            parse: Turns ``(number, line)`` pairs into items. It may raise ``ValueError`` if the whole input is unusable.
        """
        self._descriptor = descriptor
        self._parse = parse
        self._batch: Batch = []
        self._queue: asyncio.Queue[Batch | Exception | None] = asyncio.Queue(2)
        self._is_reading = self._is_stopped = False
        self.bytes_read = 0

    async def batches(self) -> AsyncIterator[Batch]:
        """Yield all items of the input in batches.

        Raises:
            OSError: If reading fails.
            ValueError: If ``parse`` raises it, or if a line is longer than ``LONGEST_LINE``.
        """
        loop = asyncio.get_running_loop()
        # A daemon thread instead of an executor: reading from a terminal or pipe cannot be interrupted, and the exit of the
        # program must not wait for it.
        self._is_reading = True
        threading.Thread(target=self._pump, args=(loop,), name="tb-mqtt input", daemon=True).start()
        while (item := await self._next()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    async def stop(self) -> None:
        """Read no further, and wait until the thread has ended, so that the descriptor can be closed.

        A read that waits for data is not interrupted: this is for files, and for sockets that were shut down.
        """
        self._is_stopped = True
        while self._is_reading:
            await self._next()

    async def _next(self) -> Batch | Exception | None:
        item = await self._queue.get()
        self._is_reading = isinstance(item, list)
        return item

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        def put(item: Batch | Exception | None) -> None:
            asyncio.run_coroutine_threadsafe(self._queue.put(item), loop).result()

        def flush() -> None:
            if self._batch:
                batch, self._batch = self._batch, []
                put(batch)

        def read() -> bytes:
            flush()
            if self._is_stopped:
                return b""
            chunk = os.read(self._descriptor, CHUNK)
            self.bytes_read += len(chunk)
            return chunk

        try:
            try:
                for item in self._parse(numbered_lines(read)):
                    self._batch.append(item)
                    if len(self._batch) == BATCH:
                        flush()
                flush()
                put(None)
            except (OSError, ValueError) as error:
                flush()
                put(error)
        except (CancelledError, RuntimeError):
            # The event loop has ended, so the input is no longer needed.
            return


def numbered_lines(read: Callable[[], bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of an input with their line ends, numbered from 1.

    Args:
        read: Returns the next bytes, and no bytes at the end of the input.

    Raises:
        ValueError: If a line is longer than ``LONGEST_LINE``.
    """
    number, rest = 0, b""
    while chunk := read():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            yield number, line + b"\n"
        if len(rest) > LONGEST_LINE:
            raise ValueError(f"line {number + 1} is longer than {LONGEST_LINE} bytes")
    if rest:
        yield number + 1, rest
