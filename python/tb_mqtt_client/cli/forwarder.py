"""Passes the records of inputs to a client with a store, without waiting for their delivery."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.cli.consumer import RecordConsumer, SendOptions
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.reading import Batch
from tb_mqtt_client.cli.records import Record
from tb_mqtt_client.cli.sender import RecordSender
from tb_mqtt_client.cli.terminal import Terminal
from tb_mqtt_client.common.exceptions import StoreFullError


class Forwarder:
    """Takes the records of any number of inputs, also at the same time, and counts those of all of them."""

    def __init__(self, client: DeviceClient, options: SendOptions, terminal: Terminal) -> None:
        self._client = client
        self._options = options
        self._terminal = terminal
        self._sender = RecordSender(client, options)
        self.records: int = 0
        """The number of records that were accepted."""
        self.bad_lines: int = 0
        """The number of lines that were not accepted."""

    async def forward(self, batches: AsyncIterator[Batch]) -> tuple[int, int]:
        """Pass all records of an input to the client, and wait until they are on disk.

        Returns:
            The number of records and of bad lines of this input.

        Raises:
            CommandError: The input cannot be read (``ExitCode.USAGE``), or the store cannot take the records
                (``ExitCode.REFUSED``).
        """
        consumer = _Consumer(self._sender, self._options, self._terminal)
        try:
            await consumer.consume(batches)
        finally:
            self.records += consumer.records
            self.bad_lines += consumer.bad_lines
        try:
            await self._client.flush()
        except OSError as error:
            raise _store_failed(error) from error
        return consumer.records, consumer.bad_lines


class _Consumer(RecordConsumer):
    """Takes the records of one input."""

    advice_on_times = "ts_field in [agent] names the field or column with the time"

    def __init__(self, sender: RecordSender, options: SendOptions, terminal: Terminal) -> None:
        super().__init__(options, terminal)
        self._sender = sender

    async def consume(self, batches: AsyncIterator[Batch]) -> None:
        await self._consume(batches)

    async def _accept(self, record: Record) -> None:
        try:
            # The result is not kept: the store knows what is not delivered, and the client counts the rest.
            await self._sender.send(record)
        except (StoreFullError, OSError) as error:
            raise _store_failed(error) from error


def _store_failed(error: Exception) -> CommandError:
    return CommandError(f"The store cannot take the data: {error}", ExitCode.REFUSED)
