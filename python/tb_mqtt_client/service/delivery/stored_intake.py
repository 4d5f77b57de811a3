"""Accepts the sends of a client with a store: memory is never full while the disk works."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import DeliveryFuture, SendReceipt
from tb_mqtt_client.common.delivery import Delivery
from tb_mqtt_client.common.exceptions import NotConnectedError
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.service.delivery.intake import Intake
from tb_mqtt_client.service.delivery.send_store import SendStore
from tb_mqtt_client.service.delivery.terms import SendTerms
from tb_mqtt_client.service.delivery.until_stored import UntilStored
from tb_mqtt_client.service.delivery.work_item import QueuedUplink


class StoredIntake(Intake):
    """Accepts sends that are written to a store. When the queues are full, the oldest sends stay on disk only."""

    def __init__(self, *arguments: Any, store: SendStore, release_oldest: Callable[[], int], clock: Callable[[], int]) -> None:
        """Create the intake of a client.

        Args:
            *arguments: Those of ``Intake``.
            store: Keeps the sends.
            release_oldest: Moves the oldest sends that are on disk out of memory, and returns their number.
            clock: Returns monotonic nanoseconds.
        """
        super().__init__(*arguments)
        self._store = store
        self.waits_for_disk: bool = store.waits
        self._release_oldest = release_oldest
        self._clock = clock
        self._marks_next_number = False
        self._line = asyncio.Lock()
        self._in_line = 0
        """How many callers wait for space in the store or for capacity, or take it after those."""

    def open(self) -> None:
        """Accept sends of the running loop; the store is open."""
        self._open_with(self._store.create_delivery, self._store.create_delivery)

    def try_accept(self, encoded: EncodedUplink, terms: SendTerms | None = None) -> DeliveryFuture | None:
        """Accept a send if it waits neither for capacity nor for the disk, see ``Intake.try_accept``."""
        if self._store.waits or self._in_line or not self._store.has_space(encoded.nbytes):
            return None
        return super().try_accept(encoded, terms)

    async def accept(self, encoded: EncodedUplink, terms: SendTerms | None = None) -> DeliveryFuture:
        """Accept a send, see ``Intake.accept``; with durability "always", wait until it is on disk or has its result.

        A caller that is cancelled while its send is being written has sent it.

        Raises:
            StoreFullError: The store is full, and ``on_full`` is to raise.
        """
        delivery = await super().accept(encoded, terms)
        if self._store.waits:
            await self._store.when_safe(delivery)
        return delivery

    async def accept_all(self, uplinks: Sequence[EncodedUplink], terms: SendTerms | None = None) -> list[DeliveryFuture]:
        """Accept several sends, see ``Intake.accept_all``; with durability "always", they are written to disk together."""
        if self._store.waits:
            return await asyncio.gather(*[self.accept(encoded, terms) for encoded in uplinks])
        return await super().accept_all(uplinks, terms)

    def enqueue(self, encoded: EncodedUplink, terms: SendTerms | None = None) -> Delivery | DeliveryFuture:
        """Accept a send without ever waiting, see ``Intake.enqueue``.

        Raises:
            StoreFullError: The store is full, and ``on_full`` is not ``drop_newest``.
        """
        store = self._store
        if not store.has_space(encoded.nbytes):
            if store.drops_newest:
                return self._dropped(encoded)
            raise store.full_error()
        if not self._capacity.has_room(encoded.nbytes):
            self._release_oldest()
        return super().enqueue(encoded, terms)

    def _may_accept_plain(self) -> bool:
        """Return False: each send is written to the store."""
        return False

    def accept_for(self, encoded: EncodedUplink, receipt: SendReceipt, terms: SendTerms | None) -> bool:
        """Accept a send of another thread if it does not wait, see ``Intake.accept_for``."""
        return not self._in_line and self._store.has_space(encoded.nbytes) and super().accept_for(encoded, receipt, terms)

    async def _take_for(self, encoded: EncodedUplink, receipt: SendReceipt, terms: SendTerms | None) -> None:
        """Wait for space in the store and for capacity, and accept a send of another thread."""
        if await self._take_capacity(encoded.nbytes):
            self.mark_if_due()
            self._queue(encoded, receipt, terms)
        else:
            self._drop_new(encoded, receipt)

    def _queue(self, encoded: EncodedUplink, receipt: SendReceipt, terms: SendTerms | None) -> None:
        until_stored = receipt if isinstance(receipt, UntilStored) else None
        if self._store.is_own(receipt):
            delivery = receipt
        else:
            # The store needs futures of its own, which outlive the place of a send in memory.
            delivery = self._store.create_delivery(receipt if until_stored is None else until_stored.receiver)
            delivery.add_done_callback(partial(_pass_result, receipt))
        if terms is None:
            receipt, number = self._store.accept(encoded, delivery)
        else:
            expires_ms = terms.expires_ms(self._clock(), now_ms())
            receipt, number = self._store.accept(encoded, delivery, terms.stored_priority, expires_ms)
        if self._marks_next_number:
            self._marks_next_number = False
            self._accept_times.mark(number)
        if until_stored is not None:
            self._store.when_safe(delivery).add_done_callback(until_stored.note_stored)
        self._counter.accept(encoded.datapoints)
        self._accepted += 1
        uplink: QueuedUplink = encoded, receipt, number, terms
        if self._store.goes_behind(encoded):
            self._capacity.give_back(1, encoded.nbytes)
            self._store.release([uplink])
        else:
            self._put(uplink)

    def _mark(self) -> None:
        # The store numbers the sends.
        self._marks_next_number = True

    def _share_changed(self, checks_each: bool) -> None:
        super()._share_changed(checks_each)
        self._store.read_more()

    async def _take_capacity(self, nbytes: int) -> bool:
        """Wait for space in the store, and take capacity, in the order of the callers; return False to drop the send."""
        # A send that finds capacity while others wait for the disk must not overtake them: a later value of an attribute would
        # arrive first.
        self._in_line += 1
        try:
            async with self._line:
                self._require_not_closed()
                if not self._store.has_space(nbytes):
                    has_space = await self._store.make_space(nbytes, self._release_oldest)
                    self._require_not_closed()
                    if not has_space:
                        return False
                return await super()._take_capacity(nbytes)
        finally:
            self._in_line -= 1

    async def _make_room(self, nbytes: int) -> bool:
        """Take capacity: move older sends to disk; by the queue policy if the disk does not work."""
        while not self._capacity.is_wanted and await self._store.commit():
            self._require_not_closed()
            released = self._release_oldest()
            if self._capacity.try_take(nbytes):
                return True
            # Others may have taken the memory that this commit has freed: their sends have to be written, too.
            if not released and not self._store.has_unwritten:
                break
        return await super()._make_room(nbytes)

    def _require_not_closed(self) -> None:
        if self._closed:
            self.require_open()
            raise NotConnectedError("the client was stopped while this send waited for its store")


def _pass_result(receipt: SendReceipt, delivery: DeliveryFuture) -> None:
    if not receipt.done():
        receipt.set_result(delivery.result())
