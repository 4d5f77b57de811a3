"""The futures of sends that have left memory: only their numbers lead to them."""

from __future__ import annotations

from weakref import WeakValueDictionary

from tb_mqtt_client.service.store.receipts import StoredDelivery


class ReleasedFutures:
    """Keeps a future alive while something waits for it, and otherwise knows it as long as the program refers to it."""

    def __init__(self) -> None:
        """Create it without any future."""
        self._held: dict[int, StoredDelivery] = {}
        self._unheld: WeakValueDictionary[int, StoredDelivery] = WeakValueDictionary()

    def add(self, delivery: StoredDelivery) -> None:
        """Note the future of a send that leaves memory."""
        (self._held if delivery.is_awaited else self._unheld)[delivery.number] = delivery

    def hold(self, delivery: StoredDelivery) -> None:
        """Keep a future: something waits for it."""
        if self._unheld.pop(delivery.number, None) is not None:
            self._held[delivery.number] = delivery

    def let_go(self, delivery: StoredDelivery) -> None:
        """Forget a future: nothing waits for it any more."""
        self._held.pop(delivery.number, None)
        self._unheld.pop(delivery.number, None)

    def find(self, future: object) -> StoredDelivery | None:
        """Return the future of a send that has left memory; ``None`` if it is not of one.

        Args:
            future: The future, or what the program has in its place.
        """
        if isinstance(future, StoredDelivery):
            known = self._held.get(future.number) or self._unheld.get(future.number)
            return known if known is future else None
        # Only a held future passes its result on.
        return next((delivery for delivery in self._held.values() if delivery.receiver is future), None)

    def take(self, number: int) -> StoredDelivery | None:
        """Remove and return the future of a send; ``None`` if the program does not refer to it."""
        return self._held.pop(number, None) or self._unheld.pop(number, None)

    def take_all(self) -> list[StoredDelivery]:
        """Remove and return all futures."""
        taken = [*self._held.values(), *self._unheld.values()]
        self._held.clear()
        self._unheld.clear()
        return taken
