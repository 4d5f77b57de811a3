"""Accepted sends that wait for the clock of the device: they have no time yet, so they are not written.

The rule: the numbers in the log rise from commit to commit. So a held send gets another number when it has its time, and the number
by which the queues know it stays valid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.service.store.log import StoredSend


class UnstampedSends:
    """The held sends of an open log, and the numbers in the log of those that were held."""

    def __init__(self, time: Callable[[], float]) -> None:
        """Hold nothing.

        Args:
            time: Returns the seconds of a monotonic clock.
        """
        self._time = time
        self._held: dict[int, tuple[StoredSend, float]] = {}
        self._renumbered: dict[int, int] = {}
        self._none_held: asyncio.Future[None] | None = None
        self._has_ended = False

    def __len__(self) -> int:
        """Return the number of held sends."""
        return len(self._held)

    def __contains__(self, number: object) -> bool:
        """Return whether the send with this number is held."""
        return number in self._held

    def hold(self, send: StoredSend) -> None:
        """Hold a send until the clock is set."""
        self._held[send[1]] = send, self._time()

    def remove(self, number: int) -> StoredSend | None:
        """Remove and return a held send, which has its result; ``None`` if it is not held."""
        held = self._held.pop(number, None)
        self._note_removed()
        return None if held is None else held[0]

    def number_in_log(self, number: int) -> int:
        """Return the number in the log of a send that is not held."""
        return self._renumbered.get(number, number)

    def forget(self, number: int) -> int:
        """Return the number in the log of a send that is not held, by which it is known from now on."""
        return self._renumbered.pop(number, number)

    def take_stamped(self, stamped: Callable[[EncodedUplink], EncodedUplink], first: int) -> list[tuple[StoredSend, StoredSend]]:
        """Remove and return all held sends, each as it was, and with its time and its number in the log.

        Args:
            stamped: Returns the data of a send with its times.
            first: The first free number in the log.
        """
        taken = []
        now, wall = self._time(), now_ms()
        for in_log, (held, since) in enumerate(self._held.values(), first):
            encoded, number, wrong_ms, priority, expires_ms = held
            accepted_ms = wall - int((now - since) * 1000)
            if expires_ms:
                # It was counted from the clock that was not set.
                expires_ms += accepted_ms - wrong_ms
            taken.append((held, (stamped(encoded), in_log, accepted_ms, priority, expires_ms)))
            self._renumbered[number] = in_log
        self._held.clear()
        self._note_removed()
        return taken

    async def wait_none_held(self) -> None:
        """Wait until no send is held, or until ``end_waits``."""
        while self._held and not self._has_ended:
            if self._none_held is None:
                self._none_held = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._none_held)

    def end_waits(self) -> None:
        """Let ``wait_none_held`` return, because the sends that are held have their results.

        They still count as held, so that they do not seem to be in the log.
        """
        self._has_ended = True
        self._note_removed()

    def _note_removed(self) -> None:
        if self._none_held is not None and (self._has_ended or not self._held):
            self._none_held.set_result(None)
            self._none_held = None
