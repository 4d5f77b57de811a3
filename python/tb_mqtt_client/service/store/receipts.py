"""The receipts of stored sends, and the futures that their callers get."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from tb_mqtt_client.common.async_utils import DeliveryFuture, SendReceipt
from tb_mqtt_client.common.publish_result import PublishResult


class Keeper(Protocol):
    """The store, as its receipts and futures see it."""

    def settle(self, receipt: Receipt, result: PublishResult) -> PublishResult:
        """Note that a send has its result. Return the result that its caller gets."""

    def when_safe(self, delivery: DeliveryFuture) -> asyncio.Future[None]:
        """Return a future that is resolved when a send is on disk, or has its result."""

    def hold(self, delivery: StoredDelivery) -> None:
        """Keep the future of a send that has left memory: something waits for it."""

    def let_go(self, delivery: StoredDelivery) -> None:
        """Forget the future of a send: nothing waits for it any more."""


class StoredDelivery(asyncio.Future[PublishResult]):
    """The future of a send's result, of a client with a store."""

    # Not the receipt: a send that has left memory needs no object but this one, and this one only if the program refers to it.
    __slots__ = ("_keeper", "datapoints", "is_awaited", "nbytes", "number", "receiver")

    def __init__(self, keeper: Keeper, receiver: SendReceipt | None = None, *, loop: asyncio.AbstractEventLoop) -> None:
        """Create the future of a send that has no number yet."""
        super().__init__(loop=loop)
        self._keeper = keeper
        self.receiver: SendReceipt | None = receiver
        """What the program has in place of this future, or ``None``."""
        self.number: int = 0
        """The number of the send; 0 for a send that was not accepted."""
        self.datapoints: int = 0
        """The datapoints of the send."""
        self.nbytes: int = 0
        """The encoded bytes of the send."""
        self.is_awaited: bool = False
        """Whether something was to be called or woken with the result."""

    @property
    def stored(self) -> asyncio.Future[None]:
        """A future that is resolved when the send is on disk, or has its result, whatever that is.

        From then on, neither the end of the process nor a power cut loses the data. If the disk fails, it stays pending until the
        disk works again, or the send has its result.
        """
        return self._keeper.when_safe(self)

    def add_done_callback(self, *arguments: Any, **options: Any) -> None:
        """Call a function with this future when it is done, see ``asyncio.Future``."""
        if not self.is_awaited:
            self.is_awaited = True
            self._keeper.hold(self)
        super().add_done_callback(*arguments, **options)

    def cancel(self, msg: Any = None) -> bool:
        """Cancel this future, not the send."""
        was_pending = super().cancel(msg)
        if was_pending:
            self._keeper.let_go(self)
        return was_pending


class Receipt:
    """What delivery resolves with the result of a stored send.

    It differs from the caller's future: a caller who was cancelled must not leave the send in the store.
    """

    __slots__ = ("_is_done", "_keeper", "delivery", "number")

    def __init__(self, keeper: Keeper, number: int, delivery: StoredDelivery | None) -> None:
        self._keeper = keeper
        self.number: int = number
        self.delivery: StoredDelivery | None = delivery
        """The caller's future; ``None`` if the program has no reference to it."""
        self._is_done = False

    def done(self) -> bool:
        """Return whether the send has its result."""
        return self._is_done

    def cancelled(self) -> bool:
        """Return False: a send is not cancelled."""
        return False

    def set_result(self, result: PublishResult) -> None:
        """Settle the send, and resolve the caller's future unless the caller was cancelled."""
        self._is_done = True
        result = self._keeper.settle(self, result)
        delivery = self.delivery
        if delivery is not None and not delivery.done():
            delivery.set_result(result)


class ReplayedReceipt(Receipt):
    """The receipt of a send that was read from disk."""

    __slots__ = ("_nbytes", "_on_done")

    def __init__(
        self, keeper: Keeper, number: int, delivery: StoredDelivery | None, nbytes: int, on_done: Callable[[int], None]
    ) -> None:
        super().__init__(keeper, number, delivery)
        self._nbytes = nbytes
        self._on_done = on_done

    def set_result(self, result: PublishResult) -> None:
        """Settle the send, and make space for further ones."""
        super().set_result(result)
        self._on_done(self._nbytes)

    def forget(self) -> None:
        """Make space for further sends, because this one has left memory again."""
        self._on_done(self._nbytes)
