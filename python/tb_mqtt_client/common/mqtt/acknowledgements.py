"""Packet ids, and the watch for missing PUBACKs.

Invariant: the time that a server has for a PUBACK starts when it could have sent it. That is later than the write: bytes wait in
this process, in the system and on a slow link, and earlier publishes are acknowledged first.
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
    """Replaces gmqtt's generator of packet ids, which frees the id in any acknowledgement, whatever the id was used for."""

    def __init__(self) -> None:
        self._last = 0
        self._awaited: dict[int, int] = {}

    def next_id(self) -> int:
        """Take the next free packet id for a PUBLISH; an id is used again after all others.

        Raises:
            BackpressureException: All 65,535 ids are in use.
        """
        awaited = self._awaited
        if len(awaited) >= LARGEST_ID:
            raise BackpressureException(f"all {LARGEST_ID:,} packet ids are in flight; publish again after some are acknowledged")
        packet_id = self._last % LARGEST_ID + 1
        while packet_id in awaited:
            packet_id = packet_id % LARGEST_ID + 1
        self._last = packet_id
        awaited[packet_id] = PacketType.PUBACK
        return packet_id

    def await_answer(self, packet_id: int, kind: PacketType) -> None:
        """Record that an id is used for another packet than a PUBLISH, and which acknowledgement that packet gets."""
        self._awaited[packet_id] = kind

    def acknowledge(self, packet_id: int, kind: PacketType) -> bool:
        """Free an id. Return False, and change nothing, unless an acknowledgement of this kind is awaited for it."""
        if self._awaited.get(packet_id) != kind:
            return False
        del self._awaited[packet_id]
        return True


class AckWatch:
    """Replaces gmqtt's storage. It keeps no packets: the in-flight window of ``MQTTManager`` has the messages."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: set[int] = set()
        self._order: deque[int] = deque()
        self.oldest: int | None = None
        """The packet id of the oldest publish without a PUBACK."""
        self.since: float = 0.0
        """When that publish became the oldest, or when its bytes were last seen to be in transit."""
        self.overtaken: bool = False
        """Whether a later publish was acknowledged before the oldest one, whose bytes must have reached the server then."""
        self.filled: Event = Event()
        """Set when there is an oldest publish; cleared by the waiting task, so that it does not wake for each publish."""

    def push_message(self, mid: int, _raw_package: bytes) -> None:
        """Add a PUBLISH that was written."""
        self._waiting.add(mid)
        self._order.append(mid)
        if self.oldest is None:
            self._begin(mid)
            if not self.filled.is_set():
                self.filled.set()

    def acknowledge(self, packet_id: int) -> None:
        """Remove a publish whose PUBACK arrived."""
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
        """Restart the time of the oldest publish."""
        self.since = self._clock()

    async def wait_empty(self) -> None:
        """Return at once: gmqtt's ``connect()`` waits here for packets that it has resent, and it resends none."""

    def _begin(self, packet_id: int) -> None:
        self.oldest = packet_id
        self.since = self._clock()
        self.overtaken = False

    def __len__(self) -> int:
        """Return the number of publishes without a PUBACK."""
        return len(self._waiting)
