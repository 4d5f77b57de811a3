"""Which publishes have no PUBACK, and since when the oldest of them could have got it.

The rule: a server has its time from the moment in which it could answer. That is not the write: bytes wait in this process, in the
system and on a slow link, and what was written before is answered before.
"""

from __future__ import annotations

import time
from asyncio import Event
from collections import deque
from collections.abc import Callable
from typing import Final

from tb_mqtt_client.common.exceptions import BackpressureException
from tb_mqtt_client.common.mqtt.packets import PacketType

LARGEST_ID: Final = 0xFFFF


class PacketIds:
    """Takes the place of gmqtt's generator, which frees whatever identifier any acknowledgement names."""

    def __init__(self) -> None:
        self._last = 0
        self._awaited: dict[int, int] = {}

    def next_id(self) -> int:
        """Take the next free identifier, for a PUBLISH. All others come before one is used again.

        Raises:
            BackpressureException: All 65,535 are in flight.
        """
        awaited = self._awaited
        if len(awaited) >= LARGEST_ID:
            raise BackpressureException(f"all {LARGEST_ID:,} packet ids are in flight; publish again when some are acknowledged")
        packet_id = self._last % LARGEST_ID + 1
        while packet_id in awaited:
            packet_id = packet_id % LARGEST_ID + 1
        self._last = packet_id
        awaited[packet_id] = PacketType.PUBACK
        return packet_id

    def await_answer(self, packet_id: int, kind: PacketType) -> None:
        """Say that an identifier was used for another packet than a PUBLISH, and which acknowledgement that gets."""
        self._awaited[packet_id] = kind

    def acknowledge(self, packet_id: int, kind: PacketType) -> bool:
        """Free an identifier. Return False, and change nothing, unless this kind of acknowledgement is awaited for it."""
        if self._awaited.get(packet_id) != kind:
            return False
        del self._awaited[packet_id]
        return True


class AckWatch:
    """Takes the place of gmqtt's storage, and keeps no packets: ``MQTTManager`` has the messages, with the futures that wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: set[int] = set()
        self._order: deque[int] = deque()
        self.oldest: int | None = None
        """Packet id of the oldest publish without its PUBACK."""
        self.since = 0.0
        """When the oldest became that, or when its bytes were last seen to be on their way."""
        self.overtaken = False
        """Whether a later publish was acknowledged before the oldest, which must have left by then."""
        self.filled = Event()
        """Set when there is an oldest one; cleared by the task that waits for it, which need not wake for each publish."""

    def push_message(self, mid: int, _raw_package: bytes) -> None:
        """A PUBLISH was written."""
        self._waiting.add(mid)
        self._order.append(mid)
        if self.oldest is None:
            self._begin(mid)
            if not self.filled.is_set():
                self.filled.set()

    def acknowledge(self, packet_id: int) -> None:
        """A PUBACK came."""
        self._waiting.discard(packet_id)
        if packet_id != self.oldest:
            self.overtaken = True
            return
        order, waiting = self._order, self._waiting
        while order and order[0] not in waiting:
            order.popleft()
        if order:
            self._begin(order[0])
        else:
            self.oldest = None

    def restart(self) -> None:
        """Give the oldest publish its whole time from now on."""
        self.since = self._clock()

    async def wait_empty(self) -> None:
        """Return at once: gmqtt's ``connect()`` waits here for packets that it has sent again, and it sends none."""

    def _begin(self, packet_id: int) -> None:
        self.oldest = packet_id
        self.since = self._clock()
        self.overtaken = False

    def __len__(self) -> int:
        """Publishes without a PUBACK."""
        return len(self._waiting)
