"""``tb-mqtt send --store``: put records into a store, which a client or ``tb-mqtt store drain`` sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Thread

from tb_mqtt_client.cli.consumer import RecordConsumer, SendOptions
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.reading import Batch
from tb_mqtt_client.cli.records import Record
from tb_mqtt_client.cli.settings import Settings
from tb_mqtt_client.cli.terminal import Terminal, counted
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.exceptions import StoreFullError, StoreInUseError
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.entities.store import Store
from tb_mqtt_client.service.store.writer import StoreWriter


class Storer(RecordConsumer):
    """Puts records into a store. All records that were read at once share a write."""

    def __init__(self, writer: StoreWriter, options: SendOptions, terminal: Terminal) -> None:
        super().__init__(options, terminal)
        self._writer = writer

    async def store_all(self, batches: AsyncIterator[Batch]) -> None:
        """Put all records into the store, which is on disk when this returns.

        Args:
            batches: The parsed input.

        Raises:
            CommandError: If a line is bad and ``skip_bad`` is not set (the records before it are in the store), if the input
                cannot be read, or if the store cannot take the records.
        """
        try:
            await self._consume(batches)
        finally:
            await self._batch_ended()

    async def _accept(self, record: Record) -> None:
        details, device = record.details, record.device
        profile = details.profile or self._options.device_profile
        if self._options.attributes:
            self._writer.add_attributes(record.values, device, profile, details.priority, details.expires_ms)
        else:
            # The time is always given, because a key of the record may be called "ts".
            timeseries = {"ts": now_ms() if record.ts is None else record.ts, "values": record.values}
            self._writer.add_timeseries(
                timeseries, device, profile, details.priority, details.expires_ms, metadata=details.metadata
            )

    async def _batch_ended(self) -> None:
        try:
            await asyncio.to_thread(self._writer.write)
        except (StoreFullError, OSError) as error:
            raise CommandError(f"The store cannot take the data: {error}", ExitCode.REFUSED) from error


async def open_writer(path: str, settings: Settings, timeout: float) -> StoreWriter:
    """Open a store for writing, with the limits of the configuration; wait while another process has it.

    Raises:
        CommandError: If another process has it for ``timeout`` seconds, or if it cannot be opened.
    """
    options = Store(path) if settings.store is None else replace(settings.store, path=path)
    try:
        try:
            return await asyncio.to_thread(StoreWriter, options, settings.config)
        except StoreInUseError as error:
            in_use = error
        return await _when_free(options, settings.config, timeout, in_use)
    except OSError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error


async def _when_free(options: Store, config: DeviceConfig, timeout: float, in_use: StoreInUseError) -> StoreWriter:
    """Open a store as soon as another process does not have it any more."""
    opened: Future[StoreWriter] = Future()

    def open_store() -> None:
        try:
            writer = StoreWriter(options, config, waits=True)
        except BaseException as error:  # noqa: BLE001  # the caller raises it
            opened.set_exception(error)
            return
        try:
            opened.set_result(writer)
        except InvalidStateError:
            # The caller has given up.
            writer.close()

    # The operating system ends the wait, which cannot be interrupted: the program must not wait for this thread at its end.
    Thread(target=open_store, name="tb-mqtt wait for store", daemon=True).start()
    try:
        # Cancelling the wait cancels `opened`.
        return await asyncio.wait_for(asyncio.wrap_future(opened), timeout)
    except TimeoutError:
        raise CommandError(f"Nothing was stored within {timeout:g} s: {in_use}", ExitCode.TIMEOUT) from None


@dataclass(frozen=True, slots=True)
class StoredTotals:
    """The totals of one ``send --store``."""

    path: str
    target: str
    stored: int
    """Datapoints that were put into the store."""
    in_store: int
    """Datapoints in the store, also from earlier."""
    records: int
    timeless: int
    bad_lines: int
    seconds: float

    def exit_code(self) -> ExitCode:
        """Return 0 if all records are in the store, and 5 if bad lines were skipped."""
        return ExitCode.INCOMPLETE if self.bad_lines else ExitCode.DONE

    def show(self, terminal: Terminal) -> None:
        """Print the totals to stdout."""
        if terminal.as_json:
            terminal.document(
                {
                    "stored": self.stored,
                    "in_store": self.in_store,
                    "records": self.records,
                    "records_without_time": self.timeless,
                    "bad_lines": self.bad_lines,
                    "seconds": round(self.seconds, 3),
                }
            )
            return
        mark = "warning" if self.bad_lines else "good"
        text = f"stored {counted(self.stored, 'datapoint')} in {self.path}, for {self.target}"
        terminal.line(terminal.marked(terminal.out, mark, text))
        if self.bad_lines:
            terminal.line(f"  bad lines: {self.bad_lines:,}")
        terminal.line(f"  {counted(self.records, 'record')}, {self.seconds:.1f} s; {self.in_store:,} to send in the store")


@contextmanager
def closing(writer: StoreWriter) -> Iterator[None]:
    """Close a store after the block."""
    try:
        yield
    finally:
        writer.close()
