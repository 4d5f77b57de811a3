"""Sends tables with data in columns: in parts, which are ordinary sends, so that memory stays flat however large a table is.

While one part is sent, the next one is encoded in a thread without the interpreter's lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Final

from tb_mqtt_client import _native
from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.publish_result import PublishResult

DATAPOINTS_A_PART: Final = 32_768
"""Datapoints that are read at a time: enough that a part costs little beside its datapoints, and few enough that other sends get
their turn within milliseconds."""

MAX_PENDING_BYTES: Final = 8_388_608
"""Bytes of a table that may be without a result while its sender waits. They fill the in-flight window of a usual session, and
leave the queue to other sends."""

Rows = tuple[str | None, str | None, EncodedUplink]
"""Rows of one device: its name and profile, and their datapoints."""


def open_table(
    table: Any,
    ts: str,
    key: str | None,
    value: str | None,
    device: str | None,
    profile: str | None,
    round_floats: bool,
) -> _native.TableReader:
    """Return a reader of a table, see ``DeviceClient.send_table`` and ``GatewayClient.send_table``.

    Raises:
        NotImplementedError: The package was built without the feature ``arrow``.
    """
    reader_class = getattr(_native, "TableReader", None)
    if reader_class is None:
        raise NotImplementedError("this build of tb_mqtt_client cannot send tables: it was built without the cargo feature arrow")
    for name, column in {"ts": ts, "key": key, "value": value, "device": device, "profile": profile}.items():
        if not isinstance(column, str) and (column is not None or name == "ts"):
            raise TypeError(f"{name} must be the name of a column, not {column!r}")
    reader: _native.TableReader = reader_class(
        table, ts, key=key, value=value, device=device, profile=profile, round_floats=round_floats
    )
    return reader


class TableSum:
    """The result of a table: the sum of the results of its parts."""

    def __init__(self, topic: str, qos: int) -> None:
        """Create the result of a table of which no part is sent yet.

        Args:
            topic: The topic of a table without datapoints.
            qos: Its QoS.
        """
        self.delivery: DeliveryFuture = asyncio.get_running_loop().create_future()
        """The future of the result of all parts."""
        self.datapoints: int = 0
        """Datapoints that were accepted."""
        self._sum: PublishResult | None = None
        self._empty = topic, qos
        self._pending_parts = 0
        self._pending_bytes = 0
        self._is_complete = False
        self._changed: asyncio.Future[None] | None = None

    def add(self, encoded: EncodedUplink, delivery: DeliveryFuture) -> None:
        """Add an accepted part."""
        self.datapoints += encoded.datapoints
        self._pending_parts += 1
        self._pending_bytes += encoded.nbytes
        delivery.add_done_callback(partial(self._settled, encoded.nbytes))

    def complete(self) -> None:
        """Note that there is no further part."""
        self._is_complete = True
        self._resolve_if_settled()

    async def wait_for_room(self) -> None:
        """Wait until fewer bytes than ``MAX_PENDING_BYTES`` are without a result."""
        while self._pending_bytes >= MAX_PENDING_BYTES:
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed

    def _settled(self, nbytes: int, delivery: DeliveryFuture) -> None:
        self._pending_parts -= 1
        self._pending_bytes -= nbytes
        result = delivery.result()
        # One result at a time, so that a table of any size keeps one object.
        self._sum = result if self._sum is None else PublishResult.merge([self._sum, result])
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._resolve_if_settled()

    def _resolve_if_settled(self) -> None:
        # A caller may have cancelled the future.
        if self._is_complete and not self._pending_parts and not self.delivery.done():
            topic, qos = self._empty
            self.delivery.set_result(self._sum or PublishResult(topic, qos, -1, 0, 0))


def _read_part(reader: _native.TableReader) -> asyncio.Future[list[Rows] | None]:
    """Begin to read the next part of a table in a thread. The future has its rows; none at the end of the table."""
    # Unlike `asyncio.to_thread`, this begins at once, also if the caller does not give the event loop a turn.
    read = partial(copy_context().run, reader.read, DATAPOINTS_A_PART)
    return asyncio.get_running_loop().run_in_executor(None, read)


async def send_parts(
    open_reader: Callable[[], _native.TableReader],
    accept: Callable[[Rows], Awaitable[tuple[EncodedUplink, DeliveryFuture]]],
    total: TableSum,
    wait_for_publish: bool,
) -> PublishResult | list[DeliveryFuture]:
    """Send a table in parts.

    Args:
        open_reader: Opens the table. It is called, and the table is read, in a thread, because reading may compute the table. The
            thread reads one part ahead. It has ended when this returns or raises, but not when this is cancelled.
        accept: Accepts the rows of one device, and returns their datapoints and the future of their result.
        total: The result of the table.
        wait_for_publish: Whether to wait for the results.

    Returns:
        The result of the table, or a list with one future of it.
    """
    reader = await asyncio.to_thread(open_reader)
    ahead = _read_part(reader)
    try:
        while (parts := await ahead) is not None:
            ahead = _read_part(reader)
            for rows in parts:
                if wait_for_publish:
                    await total.wait_for_room()
                total.add(*await accept(rows))
    except Exception as error:
        if total.datapoints:
            error.add_note(f"The first {total.datapoints:,} datapoints of the table were accepted before, and are delivered.")
        # The program may close the source of the table next.
        await asyncio.gather(ahead, return_exceptions=True)
        raise
    finally:
        ahead.cancel()
    total.complete()
    return await total.delivery if wait_for_publish else [total.delivery]
