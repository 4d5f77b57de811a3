"""Which message makes the server end the connection: suspects are published apart from all others, in ever smaller groups.

The rule: problems of the server never reject data. A message is rejected only if it repeatedly ends the connection while it is the
only one in flight, in sessions in which the server acknowledges other messages, over at least a minute. All other messages are
published meanwhile. A message with datapoints is rejected only if other messages with datapoints were acknowledged since it became
a suspect: a server that has lost its message queue or its database still acknowledges requests and announcements.
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
from tb_mqtt_client.constants.mqtt_topics import DEVICE_ATTRIBUTES_TOPIC, MessageKind, Route
from tb_mqtt_client.constants.reason_codes import BLAMING_DISCONNECTS, ReasonCode
from tb_mqtt_client.service.delivery.transport import SessionEnd
from tb_mqtt_client.service.delivery.work_item import WorkItem
from tb_mqtt_client.service.delivery.workers import MessageQueueWorker

CLEAR_BLAME = BLAMING_DISCONNECTS - {ReasonCode.SERVER_SHUTTING_DOWN}
"""Reason codes of a DISCONNECT that is for a message. 0x8B may be for one, or for a server that stops."""
MOST_SUSPECTS = 300
"""Messages that are suspects at most: they are not in the queue, whose bounds do not count them."""
STRIKES = 3
"""So many times a message has to end the connection on its own until it is rejected."""
STRIKE_INTERVAL = 30.0
"""Seconds between two of these, so that they are spread over a minute."""
RECOVERY_SHARE = 1 / 30
"""Of the interval, so a second: the break before a part of a group is tried if the server cannot give reasons."""
LONGEST_INTERVAL = 300.0
"""Seconds between two trials of a message in sessions in which nothing else is acknowledged."""
PROOF_SECONDS = 0.3
"""How long a trial waits for the server to acknowledge something else first."""

Halve = Callable[[WorkItem, bool], list[WorkItem]]
"""Replaces a message that carries several sends by two or more, and, if the second argument is True, one that carries several
datapoints of a single send. An empty list if there is nothing to replace."""


def is_suspicious(end: SessionEnd) -> bool:
    """Return whether the end of a connection may be due to a message: MQTT 3.1.1 and old servers give no reason."""
    if end.reason_code is not None:
        return end.reason_code in BLAMING_DISCONNECTS
    return end.by_server or isinstance(end.error, TimeoutError)


@dataclass(eq=False, slots=True)
class Group:
    """Messages that are published together, and apart from all others."""

    messages: list[WorkItem]
    failures: int = 0
    """Trials that ended with the connection."""
    strikes: int = 0
    """Those of a single message, in a session that worked."""
    first_strike: float | None = None
    not_before: float = 0.0
    data_before: int = 0
    """Messages with datapoints that the server had acknowledged when these became suspects."""


class Suspects:
    """The groups of suspects, and the decisions about them."""

    def __init__(self, halve: Halve, data_acknowledged: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        """Create an empty collection.

        Args:
            halve: Cuts a message that carries several sends.
            data_acknowledged: Returns how many messages with datapoints the server has acknowledged.
            clock: Returns monotonic seconds.
        """
        self._halve = halve
        self._data_acknowledged = data_acknowledged
        self._clock = clock
        self.groups: deque[Group] = deque()
        """The groups, in the order in which they were made."""
        self._filled = asyncio.Event()
        self.interval = STRIKE_INTERVAL
        """Seconds between two trials of a single message."""
        self.current: Group | None = None
        """The group whose trial is running."""
        self._in_flight: set[WorkItem] = set()
        self._worked = False

    def is_empty(self) -> bool:
        """Return True if there are no suspects."""
        return not self.groups

    def free_places(self) -> int:
        """Return how many messages may be added."""
        return max(0, MOST_SUSPECTS - sum(len(group.messages) for group in self.groups))

    def all(self) -> list[WorkItem]:
        """Return all suspects."""
        return [message for group in self.groups for message in group.messages]

    def clear(self) -> list[WorkItem]:
        """Remove all suspects that are not in flight, and return them."""
        left = [message for message in self.all() if message not in self._in_flight]
        for group in list(self.groups):
            group.messages = [message for message in group.messages if message in self._in_flight]
            if not group.messages:
                self.groups.remove(group)
        return left

    def add(self, messages: list[WorkItem]) -> None:
        """Suspect messages that were in flight together."""
        if messages:
            self._append(Group(messages, data_before=self._data_acknowledged()))

    def remove_first(self, matches: Callable[[WorkItem], bool]) -> WorkItem | None:
        """Remove and return a message that matches and is not in flight; ``None`` if none does."""
        for group in self.groups:
            for message in group.messages:
                if group is not self.current and matches(message):
                    self._take(group, message)
                    return message
        return None

    def published(self, message: WorkItem) -> None:
        """Note that a message of the running trial, if there is one, is in flight."""
        if self.current is not None:
            self._in_flight.add(message)

    def settled(self, message: WorkItem) -> None:
        """Remove a message of the running trial, which was acknowledged, refused, or replaced by its parts."""
        if self.current is not None and message in self.current.messages:
            self._take(self.current, message)

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
        """Begin a trial; return False if the group is gone. ``worked``: whether the server has acknowledged a message before."""
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
        if len(group.messages) > 1 or self._halved(group, end):
            # A limit may be the reason that was not given: it has to recover.
            self._split(group, 0.0 if end.tells_reasons else self._clock() + self.interval * RECOVERY_SHARE)
            return []
        return self._judge(group, end)

    def _split(self, group: Group, not_before: float) -> None:
        if not self._worked and group.failures < 2:
            # Perhaps the server ends every connection: try the group once more.
            group.not_before = not_before
            self._append(group)
            return
        middle = (len(group.messages) + 1) // 2
        for part in (group.messages[:middle], group.messages[middle:]):
            if part:
                self._append(Group(part, not_before=not_before, data_before=group.data_before))

    def _halved(self, group: Group, end: SessionEnd) -> bool:
        """Replace the only message of a group by its halves, if it carries several sends.

        Without a reason the message may as well have exceeded a limit: then datapoints of one send are parted, too.
        """
        if not self._worked and group.failures < 2:
            return False
        halves = self._halve(group.messages[0], not end.tells_reasons)
        if halves:
            group.messages = halves
        return bool(halves)

    def _judge(self, group: Group, end: SessionEnd) -> list[WorkItem]:
        """Count the end of a connection against a single message; return the message if it is to be rejected."""
        now = self._clock()
        if end.reason_code in CLEAR_BLAME:
            return group.messages
        if self._worked and self._takes_others(group):
            group.strikes += 1
            if group.first_strike is None:
                group.first_strike = now
            if group.strikes >= STRIKES and now - group.first_strike >= self.interval * (STRIKES - 1):
                return group.messages
            group.not_before = now + self.interval
        else:
            group.not_before = now + min(LONGEST_INTERVAL, self.interval * 2.0 ** min(group.failures - 1, 16))
        self._append(group)
        return []

    def _takes_others(self, group: Group) -> bool:
        """Return whether the server has acknowledged something like the only message of a group since that is a suspect."""
        return not group.messages[0].has_datapoints or self._data_acknowledged() > group.data_before

    def _append(self, group: Group) -> None:
        self.groups.append(group)
        self._filled.set()

    def _take(self, group: Group, message: WorkItem) -> None:
        group.messages.remove(message)
        if not group.messages:
            self.groups.remove(group)


def empty_message() -> WorkItem:
    """Return a publish without data that belongs to its session.

    The platform acknowledges it and counts it as a message (docs/platform_contract.md, section 3).
    """
    message = MqttPublishMessage(DEVICE_ATTRIBUTES_TOPIC, b"{}", route=Route(MessageKind.KEEP_ALIVE))
    return WorkItem.of(message, resend=False)


class SuspectWorker(MessageQueueWorker):
    """Publishes one group of suspects after the other, while nothing else is in flight."""

    def __init__(
        self, *args: Any, suspects: Suspects, wait_announced: Callable[[WorkItem], Awaitable[None]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._suspects = suspects
        self._wait_announced = wait_announced

    def is_empty(self) -> bool:
        """Return True if there are no suspects."""
        return self._suspects.is_empty()

    async def _work(self) -> None:
        """Do one trial."""
        group = await self._suspects.wait_due()
        transport = self._transport
        await wait_for_set(transport.opened)
        session = transport.connections
        for message in list(group.messages):
            await self._wait_announced(message)
        worked = await transport.wait_worked(PROOF_SECONDS)
        async with transport.alone():
            if not self._is_in(session):
                # The devices are announced again, and what the server acknowledged was in another session.
                return
            if not worked and len(group.messages) == 1:
                # There is nothing else to be acknowledged, and the message would stay a suspect.
                await self._publish_in(session, empty_message())
                await wait_for_set(transport.idle)
                worked = transport.has_worked
            if not self._is_in(session) or not self._suspects.begin(group, worked=worked):
                return
            try:
                for message in list(group.messages):
                    await self._publish_in(session, message)
                await wait_for_set(transport.idle)
            finally:
                self._suspects.end()

    def _is_in(self, session: int) -> bool:
        """Return whether the session of this number is open for traffic."""
        return self._transport.opened.is_set() and self._transport.connections == session

    async def _publish_in(self, session: int, message: WorkItem) -> None:
        """Publish a message when the limits admit it, unless the session ends before."""
        while self._is_in(session):
            if not self._fits(message):
                self._suspects.settled(message)
                return
            if not self._transport.has_room.is_set():
                await wait_for_set(self._transport.has_room)
                continue
            wait = self._publisher.try_publish(message)
            if not wait:
                self._suspects.published(message)
                return
            await self._admission.wait(wait)
