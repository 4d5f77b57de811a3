"""The seam between delivery and the store beneath it: what the queues need from a store, and what they do for one.

The rule: a send is in memory, on disk, or both. A client without a store has none of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeGuard

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import DeliveryFuture, SendReceipt
from tb_mqtt_client.common.exceptions import StoreFullError
from tb_mqtt_client.service.delivery.backlog import BacklogLeft
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.terms import SendTerms
from tb_mqtt_client.service.delivery.work_item import QueuedUplink


class SendStore(Protocol):
    """Keeps accepted sends until their outcome is known. All methods but coroutines return at once, without touching the disk."""

    waits: bool
    """Whether each send waits until it is on disk or has its result."""

    @property
    def is_open(self) -> bool:
        """Whether the store is open, so that sends can be accepted."""

    @property
    def has_backlog(self) -> bool:
        """Whether sends have left memory, or are being read back."""

    def backlog_left(self) -> BacklogLeft:
        """Return the part of the backlog that is on disk only."""

    @property
    def has_unwritten(self) -> bool:
        """Whether a commit would write sends."""

    def attach(self, queues: StoredQueues) -> None:
        """Keep the sends of these queues."""

    def create_delivery(self, receiver: SendReceipt | None = None) -> DeliveryFuture:
        """Return the future of a new send.

        Args:
            receiver: What the program got in place of this future; ``None`` if it gets this future.
        """

    def is_receipt_of(self, receipt: SendReceipt, future: object) -> bool:
        """Return whether a receipt is that of a send, for which the program has this future or receiver."""

    def is_own(self, receipt: SendReceipt) -> TypeGuard[DeliveryFuture]:
        """Return whether a receipt is a future that ``create_delivery`` has returned."""

    def accept(
        self, encoded: EncodedUplink, delivery: DeliveryFuture, priority: int = 0, expires_ms: int = 0
    ) -> tuple[SendReceipt, int]:
        """Take over a send, which is written to disk later. Return its receipt, and its number among all sends of the store.

        Args:
            encoded: The datapoints.
            delivery: The future of the send.
            priority: See ``SendTerms.stored_priority``.
            expires_ms: When the send expires, in milliseconds since the epoch; 0 for never.
        """

    def goes_behind(self, encoded: EncodedUplink) -> bool:
        """Return whether a new send must not overtake the backlog, so that it has to be released at once."""

    def has_space(self, nbytes: int) -> bool:
        """Return whether a send fits in the store."""

    @property
    def drops_newest(self) -> bool:
        """Whether a send that does not fit is dropped."""

    def full_error(self) -> StoreFullError:
        """Return the error of a send that does not fit and does not wait."""

    async def make_space(self, nbytes: int, release_oldest: Callable[[], int]) -> bool:
        """Wait, raise or drop until a send fits, as the user chose. Return False if the send itself is to be dropped.

        Args:
            nbytes: The encoded bytes of the send.
            release_oldest: Moves the oldest sends that are on disk out of memory, and returns their number.

        Raises:
            StoreFullError: The send does not fit.
        """

    async def commit(self) -> bool:
        """Write all accepted sends to disk. Return False if that failed."""

    def when_safe(self, delivery: DeliveryFuture) -> asyncio.Future[None]:
        """Return a future that is resolved when a send is on disk, or has its result."""

    def is_on_disk(self, number: int) -> bool:
        """Return whether an unsettled send is on disk."""

    def holds(self, receipt: SendReceipt) -> bool:
        """Return whether the unsettled send of a receipt is on disk."""

    def release(self, uplinks: list[QueuedUplink]) -> None:
        """Note that these sends have left memory. Those that are not on disk yet leave it when they are."""

    def withdraw(self, future: object) -> bool:
        """Remove a send that has left memory, and resolve it as dropped. Return False if there is no such send.

        Args:
            future: The future of the send, or what the program got in its place.
        """

    def read_more(self) -> None:
        """Note that what ``StoredQueues.bytes_set_aside`` returns has changed."""

    async def finish(self) -> None:
        """Write everything to disk. From now on, receipts that get a result stay in the store."""

    async def close(self) -> None:
        """Close the files. Results of sends that are on disk only are set to kept."""


class StoredQueues(Protocol):
    """What a store needs from the queues of its client."""

    counter: DeliveryCounter

    def backlog_terms(self, accepted_ms: int, expires_ms: int, *, is_urgent: bool = False) -> SendTerms:
        """Return the terms of a send that was read from disk.

        Args:
            accepted_ms: When it was accepted, in milliseconds since the epoch.
            expires_ms: When it expires, in milliseconds since the epoch; 0 for never.
            is_urgent: Whether it goes before the others of the backlog.
        """

    def queue_backlog(self, uplinks: list[QueuedUplink]) -> None:
        """Queue sends that were read from disk, oldest first. They take capacity even if there is none."""

    def bytes_set_aside(self) -> int | None:
        """Return the bytes of sends that stay in memory for any time because the platform refuses their devices.

        ``None`` if they take all the capacity that they may take.
        """

    def is_memory_wanted(self) -> bool:
        """Return whether a sender waits for capacity."""

    def store_changed(self) -> None:
        """Note that the backlog became empty, or that the disk works again."""
