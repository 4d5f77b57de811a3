"""Sends about which nothing has to be decided: they are encoded straight into a native queue.

The rule: what may be queued here is lent by the capacity, so that no bound has to be checked, and nothing counted, for each send.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Any

from tb_mqtt_client._native import DeviceIdentity, GatheredSends, Gathering
from tb_mqtt_client.common.async_utils import DeliveryFuture, SendReceipt
from tb_mqtt_client.common.delivery import Delivery
from tb_mqtt_client.service.delivery.capacity import QueueCapacity
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.work_item import QueuedUplink


class PlainSends:
    """The youngest sends of an uplink queue, which have no terms and no place in an order of dropping."""

    def __init__(self, capacity: QueueCapacity, counter: DeliveryCounter, *, round_floats: bool) -> None:
        """Create an empty queue, which is closed.

        Args:
            capacity: Lends capacity for the sends.
            counter: Counts the datapoints.
            round_floats: Whether floats are rounded that the platform would store as text.
        """
        self.gathering: Gathering = Gathering(round_floats)
        """The sends, whose number is all that others may look at."""
        # Numbers of sends, each with how many sends have it, the oldest first.
        self._numbers: deque[list[int]] = deque()
        self._capacity = capacity
        self._counter = counter
        self._lent_sends = self._lent_bytes = 0
        self.push: Callable[[Any, int, SendReceipt, DeviceIdentity | None], int] = self.gathering.push
        """Encodes timeseries and queues them, see ``Gathering.push``: returns 0 if what was lent is used up."""
        self.gathers: bool = False
        """Whether ``gather_delivery`` may queue sends."""
        self.gathers_in_turn: bool = False
        """Whether that is true, and the other tasks of the event loop do not have to run before the next send."""
        self._thread = 0
        self._is_loop_running: Callable[[], bool] = bool
        self.create_future: Callable[[], DeliveryFuture]
        """See ``Intake``."""
        self.create_delivery: Callable[[], Delivery | DeliveryFuture]
        """See ``Intake``."""
        self.blocked: bool = False
        """Whether no sends may be queued, because the queue has lanes."""
        self.filled: asyncio.Event
        """That of the queue; to be set when a send is the first one here."""
        self.publish_at_once: Callable[[], bool]
        """Publishes the only send if it seems to be sent alone; returns whether the queue is empty then."""
        self._newly_counted = 0

    def belong_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Gather sends of a loop from now on, which runs in this thread."""
        self._thread, self._is_loop_running = get_ident(), loop.is_running

    @property
    def first_number(self) -> int:
        """The number of the oldest send, see `QueuedUplink`; there must be one."""
        self.count()
        return self._numbers[0][0]

    def number_next(self, number: int) -> None:
        """Give a number to the sends that are queued from now on."""
        self.count()
        if not self._numbers or self._numbers[-1][1]:
            self._numbers.append([number, 0])
        else:
            self._numbers[-1][0] = number

    def gather(self, data: Any, now: int, device: DeviceIdentity | None = None, is_awaited: bool = False) -> DeliveryFuture | None:
        """Encode timeseries straight into the queue if nothing has to be decided about the send.

        Args:
            data: As for ``DeviceClient.send_timeseries``.
            now: The current time, in milliseconds since the epoch.
            device: The sub-device of the data; None for the device itself.
            is_awaited: Whether the caller awaits the result next.

        Returns:
            The future of the result; None if ``gathers_in_turn`` is false then, or if this is not the thread of the event loop.
        """
        # Every send passes here, so `asyncio.get_running_loop()`, which makes a system call, is not used.
        if self.gathers_in_turn and get_ident() == self._thread and self._is_loop_running():
            future = self.create_future()
            if queued := self.push(data, now, future, device):
                if queued == 1 and not (is_awaited and self.publish_at_once()):
                    self.filled.set()
                return future
            self.close()
        return None

    def gather_delivery(self, data: Any, now: int, device: DeviceIdentity | None = None) -> Delivery | DeliveryFuture | None:
        """Do what ``gather`` does, for a function that does not wait.

        Returns:
            The pending result; None if ``Intake.begin_gathering`` has to be called first.
        """
        if self.gathers and get_ident() == self._thread and self._is_loop_running():
            delivery = self.create_delivery()
            if queued := self.push(data, now, delivery, device):
                if queued == 1:
                    self.filled.set()
                return delivery
        return None

    def open(self, sends: int, *, in_turn: bool) -> bool:
        """Let sends be queued until ``close``; return False if the queues are nearly full.

        Args:
            sends: The number of sends, at most.
            in_turn: The value of ``gathers_in_turn`` meanwhile.
        """
        self._lent_sends, self._lent_bytes = self._capacity.lend(sends)
        self.gathering.allow(self._lent_sends, self._lent_bytes)
        self.gathers = self._lent_sends > 0
        self.gathers_in_turn = self.gathers and in_turn
        return self.gathers

    def close(self) -> None:
        """Let nothing more be queued, and give back what was lent."""
        if not self.gathers:
            return
        self.gathers = self.gathers_in_turn = False
        self.gathering.allow(0, 0)
        self.count()
        self._capacity.end_loan(self._lent_sends, self._lent_bytes)

    def block(self) -> None:
        """Let nothing be queued until ``blocked`` is false again."""
        self.blocked = True
        self.close()

    def count(self) -> None:
        """Count the sends that were queued since they were counted last."""
        sends, nbytes, datapoints = self.gathering.take_added()
        if sends:
            if not self._numbers:
                self._numbers.append([0, 0])
            self._numbers[-1][1] += sends
            self._lent_sends -= sends
            self._lent_bytes -= nbytes
            self._capacity.take_lent(sends, nbytes)
            self._counter.accept(datapoints)
            self._newly_counted += sends

    def take_counted(self) -> int:
        """Count the sends, and return how many were counted since the last call of this method."""
        self.count()
        sends, self._newly_counted = self._newly_counted, 0
        return sends

    def take(self, sends: int = sys.maxsize, nbytes: int = sys.maxsize, datapoints: int = sys.maxsize) -> tuple[GatheredSends, int]:
        """Remove the oldest sends, as many as reach one of the bounds; there must be one.

        Returns:
            The sends, and the number of the first one.
        """
        self.count()
        number = self._numbers[0][0]
        gathered = self.gathering.take(sends, nbytes, datapoints)
        self._forget_numbers(len(gathered))
        return gathered, number

    def take_uplinks(self) -> list[QueuedUplink]:
        """Remove all sends, and return them as other queues have them."""
        self.count()
        numbers = [number for number, sends in self._numbers for _ in range(sends)]
        gathered, _ = self.take()
        encoded, receipts = gathered.encoded(), gathered.receipts
        return [(one, receipt, number, None) for one, receipt, number in zip(encoded, receipts, numbers, strict=True)]

    def _forget_numbers(self, sends: int) -> None:
        """Forget the numbers of the oldest sends, which were taken."""
        numbers = self._numbers
        while sends:
            taken = min(sends, numbers[0][1])
            numbers[0][1] -= taken
            sends -= taken
            # The last number stays for the sends that are queued next.
            if not numbers[0][1] and len(numbers) > 1:
                numbers.popleft()


def queued_uplinks(gathered: GatheredSends, number: int) -> list[QueuedUplink]:
    """Return sends as other queues have them, with the number of the first one."""
    return [(encoded, receipt, number, None) for encoded, receipt in zip(gathered.encoded(), gathered.receipts, strict=True)]
