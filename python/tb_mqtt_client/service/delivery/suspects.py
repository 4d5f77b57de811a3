"""Finds the message for which the server ends the connection: suspects are published alone, in ever smaller groups.

The rule: problems of the server never reject data. A message is rejected only if it repeatedly ends the connection while it is the
only one in flight, in sessions in which the server acknowledges other messages, over at least a minute. All other messages are
published meanwhile. A message with datapoints is rejected only if other messages with datapoints were acknowledged since it became
a suspect: a server that has lost its message queue or its database still acknowledges requests and announcements. The same is
true for a message that the server refuses for a failure of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tb_mqtt_client.common.async_utils import wait_for_set
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.queue import AsyncDeque
from tb_mqtt_client.constants.mqtt_topics import DEVICE_ATTRIBUTES_TOPIC, MessageKind, Route
from tb_mqtt_client.constants.reason_codes import BLAMING_DISCONNECTS, ReasonCode
from tb_mqtt_client.service.delivery.transport import SessionEnd
from tb_mqtt_client.service.delivery.work_item import WorkItem
from tb_mqtt_client.service.delivery.workers import MessageQueueWorker, WorkerContext

CLEAR_BLAME = BLAMING_DISCONNECTS - {ReasonCode.SERVER_SHUTTING_DOWN}
"""Reason codes of a DISCONNECT that certainly has a message as its cause. 0x8B may also come from a server that shuts down."""
MOST_SUSPECTS = 300
"""The largest number of suspects. They are not in the queue, so the capacity of the queue does not count them."""
STRIKES = 3
"""A message is rejected when it has ended this many connections while it was the only one in flight."""
STRIKE_INTERVAL = 30.0
"""Seconds between two trials of a message on its own, so that three strikes take at least a minute."""
RECOVERY_SHARE = 1 / 30
"""The pause before a part of a group is tried, as a share of the strike interval, if the server cannot report reasons."""
LONGEST_INTERVAL = 300.0
"""Seconds between two trials of a message in sessions in which nothing else is acknowledged."""
PROOF_SECONDS = 0.3
"""Seconds that a trial waits for the server to acknowledge another message first."""

Halve = Callable[[WorkItem, bool], list[WorkItem]]
"""Splits a message of several sends into two or more and returns these. If the second argument is True, it also splits a message
of a single send that has several datapoints. It returns an empty list if the message cannot be split."""


def is_suspicious(end: SessionEnd) -> bool:
    """Return whether a message may have caused the end of a connection. MQTT 3.1.1 and old servers do not send a reason code."""
    if end.reason_code is not None:
        return end.reason_code in BLAMING_DISCONNECTS
    return end.by_server or isinstance(end.error, TimeoutError)


@dataclass(eq=False, slots=True)
class Group:
    """Messages that are published together, and apart from all others."""

    items: list[WorkItem]
    failures: int = 0
    """Trials of the group in which the connection ended."""
    strikes: int = 0
    """Failed trials of a single message, in sessions in which the server acknowledged another message."""
    first_strike: float | None = None
    """Monotonic seconds of the first strike."""
    not_before: float = 0.0
    """Monotonic seconds before which no trial of the group begins."""
    data_before: int = 0
    """The number of messages with datapoints that the server had acknowledged when the group became suspect."""


class Suspects:
    """Keeps the groups of suspects, and decides which suspects are rejected."""

    def __init__(self, halve: Halve, data_acknowledged: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        """Create an empty collection.

        Args:
            halve: Splits a message that carries several sends.
            data_acknowledged: Returns how many messages with datapoints the server has acknowledged.
            clock: Returns monotonic seconds.
        """
        self._halve = halve
        self._data_acknowledged = data_acknowledged
        self._clock = clock
        self.groups: deque[Group] = deque()
        """The groups, the oldest first."""
        self._filled = asyncio.Event()
        self.interval = STRIKE_INTERVAL
        """Seconds between two trials of a single message."""
        self.proof_seconds = PROOF_SECONDS
        """Seconds that a trial waits for an acknowledgement of another message first."""
        self.max_suspects = MOST_SUSPECTS
        """The largest number of suspects."""
        self.current: Group | None = None
        """The group whose trial is running."""
        self._in_flight: set[WorkItem] = set()
        self._worked = False

    def is_empty(self) -> bool:
        """Return True if there are no suspects."""
        return not self.groups

    def free_places(self) -> int:
        """Return how many messages may be added."""
        return max(0, self.max_suspects - sum(len(group.items) for group in self.groups))

    def all(self) -> list[WorkItem]:
        """Return all suspects."""
        return [item for group in self.groups for item in group.items]

    def clear(self) -> list[WorkItem]:
        """Remove all suspects that are not in flight, and return them."""
        left = [item for item in self.all() if item not in self._in_flight]
        for group in list(self.groups):
            group.items = [item for item in group.items if item in self._in_flight]
            if not group.items:
                self.groups.remove(group)
        return left

    def add(self, items: list[WorkItem], seconds: float = 0.0) -> None:
        """Make one group of messages that were in flight together; its trial begins after some seconds at the earliest."""
        if items:
            self._append(Group(items, not_before=self._clock() + seconds, data_before=self._data_acknowledged()))

    def count_failure(self, item: WorkItem) -> None:
        """Count a refusal of a message for a failure of the server.

        The platform refuses data of sub-devices in this way while its message queue is away, and whenever something unexpected
        happens (docs/platform_contract.md, section 4).
        """
        acknowledged = self._data_acknowledged()
        if item.first_failure is None:
            item.first_failure = self._clock()
        elif acknowledged > item.data_before:
            item.strikes += 1
        item.data_before = acknowledged

    def is_to_blame(self, item: WorkItem) -> bool:
        """Return whether a message is the cause of its failures: the server has taken other data between several of them, over at
        least a minute.
        """
        if item.first_failure is None or item.strikes < STRIKES:
            return False
        return self._clock() - item.first_failure >= self.interval * (STRIKES - 1)

    def remove_first(self, matches: Callable[[WorkItem], bool]) -> WorkItem | None:
        """Remove and return a message that matches and is not in flight; ``None`` if none does."""
        for group in self.groups:
            for item in group.items:
                if group is not self.current and matches(item):
                    self._take(group, item)
                    return item
        return None

    def published(self, item: WorkItem) -> None:
        """Note that a message of the running trial, if there is one, is in flight."""
        if self.current is not None:
            self._in_flight.add(item)

    def settled(self, item: WorkItem) -> None:
        """Remove a message of the running trial, which was acknowledged, refused, or replaced by its parts."""
        if self.current is not None and item in self.current.items:
            self._take(self.current, item)

    async def wait_due(self) -> Group:
        """Wait for the next group whose trial may begin; the one with the fewest failures goes first."""
        while True:
            now = self._clock()
            due = [group for group in self.groups if group.not_before <= now]
            if due:
                return min(due, key=lambda group: group.failures)
            self._filled.clear()
            first = min((group.not_before for group in self.groups), default=None)
            try:
                async with asyncio.timeout(None if first is None else first - now):
                    await self._filled.wait()
            except TimeoutError:
                continue

    def begin(self, group: Group, *, worked: bool) -> bool:
        """Begin the trial of a group.

        Args:
            group: The group to publish.
            worked: Whether the server has acknowledged a message of this session.

        Returns:
            False if the group no longer exists.
        """
        if group not in self.groups:
            return False
        self.current, self._worked = group, worked
        return True

    def end(self) -> None:
        """End the trial."""
        self.current = None
        self._in_flight.clear()

    def failed(self, end: SessionEnd) -> list[WorkItem]:
        """Split, repeat or judge the group whose trial ended with the connection; return the messages to be rejected."""
        group = self.current
        self.end()
        if group is None or group not in self.groups:
            return []
        if not is_suspicious(end):
            return []
        group.failures += 1
        self.groups.remove(group)
        if len(group.items) > 1 or self._halved(group, end):
            # If the server cannot report a reason, a rate limit may be the cause: its tokens have to refill.
            self._split(group, 0.0 if end.tells_reasons else self._clock() + self.interval * RECOVERY_SHARE)
            return []
        return self._judge(group, end)

    def _split(self, group: Group, not_before: float) -> None:
        if not self._worked and group.failures < 2:
            # The server may be ending every connection, so the group is published once more before it is split.
            group.not_before = not_before
            self._append(group)
            return
        middle = (len(group.items) + 1) // 2
        for part in (group.items[:middle], group.items[middle:]):
            if part:
                self._append(Group(part, not_before=not_before, data_before=group.data_before))

    def _halved(self, group: Group, end: SessionEnd) -> bool:
        """Replace the only message of a group by its halves, if it carries several sends; return whether it was replaced.

        Without a reason code the message may also have exceeded a limit: then a single send is split as well.
        """
        if not self._worked and group.failures < 2:
            return False
        halves = self._halve(group.items[0], not end.tells_reasons)
        if halves:
            group.items = halves
        return bool(halves)

    def _judge(self, group: Group, end: SessionEnd) -> list[WorkItem]:
        """Count the end of a connection against a single message; return the message if it is to be rejected."""
        now = self._clock()
        if end.reason_code in CLEAR_BLAME:
            return group.items
        if self._worked and self._accepts_others(group):
            group.strikes += 1
            if group.first_strike is None:
                group.first_strike = now
            if group.strikes >= STRIKES and now - group.first_strike >= self.interval * (STRIKES - 1):
                return group.items
            group.not_before = now + self.interval
        else:
            group.not_before = now + min(LONGEST_INTERVAL, self.interval * 2.0 ** min(group.failures - 1, 16))
        self._append(group)
        return []

    def _accepts_others(self, group: Group) -> bool:
        """Return whether the server has acknowledged a message like this single suspect since it became one.

        For a suspect with datapoints, that is another message with datapoints; for any other suspect, the session suffices.
        """
        return not group.items[0].has_datapoints or self._data_acknowledged() > group.data_before

    def _append(self, group: Group) -> None:
        self.groups.append(group)
        self._filled.set()

    def _take(self, group: Group, item: WorkItem) -> None:
        group.items.remove(item)
        if not group.items:
            self.groups.remove(group)


def empty_message() -> WorkItem:
    """Return a message without data that is not published again when its session ends.

    The platform acknowledges it and counts it as a message (docs/platform_contract.md, section 3).
    """
    message = MqttPublishMessage(DEVICE_ATTRIBUTES_TOPIC, b"{}", route=Route(MessageKind.KEEP_ALIVE))
    return WorkItem.of(message, resend=False)


class SuspectWorker(MessageQueueWorker):
    """Publishes one group of suspects after the other, while nothing else is in flight."""

    def __init__(
        self,
        name: str,
        queue: AsyncDeque[Any],
        context: WorkerContext,
        *,
        suspects: Suspects,
        wait_announced: Callable[[WorkItem], Awaitable[None]],
    ) -> None:
        """Create a worker.

        Args:
            name: See `MessageQueueWorker`.
            queue: Stays empty: the messages are in `suspects`.
            context: See `MessageQueueWorker`.
            suspects: The groups of suspects.
            wait_announced: Waits until the sub-devices of a message are announced in this session.
        """
        super().__init__(name, queue, context)
        self._suspects = suspects
        self._wait_announced = wait_announced

    def is_empty(self) -> bool:
        """Return True if there are no suspects."""
        return self._suspects.is_empty()

    async def _work(self) -> None:
        """Publish the next group of suspects, and wait until each of them is acknowledged or the connection ends."""
        group = await self._suspects.wait_due()
        transport = self._transport
        await wait_for_set(transport.opened)
        session = transport.connections
        for item in list(group.items):
            await self._wait_announced(item)
        worked = await transport.wait_worked(self._suspects.proof_seconds)
        async with transport.alone():
            if not self._is_in(session):
                # The devices have to be announced again, and the acknowledgement that was waited for was of another session.
                return
            if not worked and len(group.items) == 1:
                # Without any other message to acknowledge, the session would prove nothing and the suspect would remain one.
                await self._publish_in(session, empty_message())
                await wait_for_set(transport.idle)
                worked = transport.has_worked
            if not self._is_in(session) or not self._suspects.begin(group, worked=worked):
                return
            try:
                for item in list(group.items):
                    await self._publish_in(session, item)
                await wait_for_set(transport.idle)
            finally:
                self._suspects.end()

    def _is_in(self, session: int) -> bool:
        """Return whether the session of this number is open for traffic."""
        return self._transport.opened.is_set() and self._transport.connections == session

    async def _publish_in(self, session: int, item: WorkItem) -> None:
        """Publish a message when the limits admit it, unless the session ends before."""
        while self._is_in(session):
            if not self._check(item):
                self._suspects.settled(item)
                return
            if not self._transport.has_room.is_set():
                await wait_for_set(self._transport.has_room)
                continue
            wait = self._publisher.try_publish(item)
            if not wait:
                self._suspects.published(item)
                return
            await self._admission.wait(wait)
