"""Accepts the sends of a client with a store: memory is never full while the disk works."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import Delivery, SendReceipt
from tb_mqtt_client.common.exceptions import NotConnectedError
from tb_mqtt_client.service.delivery.intake import Intake
from tb_mqtt_client.service.delivery.send_store import SendStore


class StoredIntake(Intake):
    """Accepts sends that are written to a store. When the queues are full, the oldest sends stay on disk only."""

    def __init__(self, *arguments: Any, store: SendStore, release_oldest: Callable[[], int]) -> None:
        """Create the intake of a client.

        Args:
            *arguments: Those of ``Intake``.
            store: Keeps the sends.
            release_oldest: Moves the oldest sends that are on disk out of memory, and returns their number.
        """
        super().__init__(*arguments)
        self._store = store
        self._release_oldest = release_oldest

    def open(self) -> None:
        """Accept sends of the running loop; the store is open."""
        super().open()
        self._create_future = self._store.create_delivery

    def try_accept(self, encoded: EncodedUplink) -> Delivery | None:
        """Accept a send if it waits neither for capacity nor for the disk, see ``Intake.try_accept``."""
        if self._store.waits or not self._store.has_space(encoded.nbytes):
            return None
        return super().try_accept(encoded)

    async def accept(self, encoded: EncodedUplink) -> Delivery:
        """Accept a send, see ``Intake.accept``; with durability "always", wait until it is on disk or has its result.

        A caller that is cancelled while its send is being written has sent it.

        Raises:
            StoreFullError: The store is full, and ``on_full`` is to raise.
        """
        if not self._store.has_space(encoded.nbytes):
            has_space = await self._store.make_space(encoded.nbytes, self._release_oldest)
            self._require_not_closed()
            if not has_space:
                return self._dropped(encoded)
        delivery = await super().accept(encoded)
        if self._store.waits:
            await self._store.when_safe(delivery)
        return delivery

    def accept_for(self, encoded: EncodedUplink, receipt: SendReceipt) -> bool:
        """Accept a send of another thread if it does not wait, see ``Intake.accept_for``."""
        return self._store.has_space(encoded.nbytes) and super().accept_for(encoded, receipt)

    async def wait_for(self, encoded: EncodedUplink, receipt: SendReceipt) -> None:
        """Wait for space in the store and for capacity, and accept a send of another thread."""
        if not self._store.has_space(encoded.nbytes):
            has_space = await self._store.make_space(encoded.nbytes, self._release_oldest)
            self._require_not_closed()
            if not has_space:
                self._drop_new(encoded, receipt)
                return
        if self._capacity.try_take(encoded.nbytes) or await self._make_room(encoded.nbytes):
            self._queue(encoded, receipt)
        else:
            self._drop_new(encoded, receipt)

    def _queue(self, encoded: EncodedUplink, receipt: SendReceipt) -> None:
        if isinstance(receipt, asyncio.Future):
            delivery = receipt
        else:
            # The store needs futures of its own, which outlive the place of a send in memory.
            delivery = self._create_future()
            delivery.add_done_callback(partial(_pass_result, receipt))
        receipt, number = self._store.accept(encoded, delivery)
        self._counter.accept(encoded.datapoints)
        self._accepted += 1
        uplink = encoded, receipt, number
        if self._store.goes_behind(encoded):
            self._capacity.give_back(1, encoded.nbytes)
            self._store.release([uplink])
        elif self._sub_devices is not None and encoded.has_device:
            self._initial_queue.append(uplink)
        else:
            self._device_queue.append(uplink)

    def _share_changed(self, checks_each: bool) -> None:
        super()._share_changed(checks_each)
        self._store.read_more()

    async def _make_room(self, nbytes: int) -> bool:
        """Take capacity: move older sends to disk; by the queue policy if the disk does not work."""
        while not self._capacity.is_wanted and await self._store.commit():
            self._require_not_closed()
            released = self._release_oldest()
            if self._capacity.try_take(nbytes):
                return True
            if not released:
                break
        return await super()._make_room(nbytes)

    def _require_not_closed(self) -> None:
        if self._closed:
            self.require_open()
            raise NotConnectedError("the client was stopped while this send waited for its store")


def _pass_result(receipt: SendReceipt, delivery: Delivery) -> None:
    if not receipt.done():
        receipt.set_result(delivery.result())
