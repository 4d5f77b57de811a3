"""What a send of SDK 1.x returns."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final, Protocol

from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.constants.reason_codes import LocalReasonCode, ReasonCode
from tb_mqtt_client.one_x import settings
from tb_mqtt_client.sync.pending import Waiters

_CODES: Final[dict[int, int]] = {
    LocalReasonCode.NOT_DELIVERED: 7,
    LocalReasonCode.DROPPED: 15,
    ReasonCode.NOT_AUTHORIZED: 12,
    ReasonCode.TOPIC_NAME_INVALID: 3,
    ReasonCode.PACKET_TOO_LARGE: 9,
    ReasonCode.PAYLOAD_FORMAT_INVALID: 3,
    ReasonCode.MESSAGE_RATE_TOO_HIGH: 15,
    ReasonCode.QUOTA_EXCEEDED: 15,
}
"""The codes of ``TBPublishInfo`` for results of the client; others are 13, unknown."""


class Waiting(Protocol):
    """How the messages of one client are waited for."""

    @property
    def forgives_refusals(self) -> bool:
        """Whether data that the platform will never take has the code 0, because the program would send it again forever."""

    @property
    def waiters(self) -> Waiters:
        """Wakes the threads that wait for results."""

    def wait(self, delivery: Pending) -> bool:
        """Wait for a result for a limited time, and return whether it is there."""

    def not_yet(self) -> int:
        """Return the code of a message whose result is not there in time."""


class Pending(Protocol):
    """The pending result of a send."""

    def done(self) -> bool:
        """Return whether the result is there; never waits."""

    def result(self, timeout: float | None = None) -> PublishResult:
        """Wait for the result, and return it; raise ``TimeoutError`` after ``timeout`` seconds."""


def code_of(result: PublishResult, waiting: Waiting) -> int:
    """Return the code that a result has in ``TBPublishInfo``."""
    code = result.reason_code
    if code == 0 or (code > 0 and waiting.forgives_refusals):
        return 0
    return _CODES.get(code, 13)


class SentMessage:
    """A send or a message. Programs may use it as they use paho's ``MQTTMessageInfo``."""

    __slots__ = ("_delivery", "_waiting")

    def __init__(self, delivery: Pending, waiting: Waiting) -> None:
        self._delivery = delivery
        self._waiting = waiting

    @property
    def rc(self) -> int:
        """The code of the result; 0 while there is none."""
        return code_of(self._delivery.result(0), self._waiting) if self._delivery.done() else 0

    @property
    def mid(self) -> int:
        """The packet id, if one message carried everything and its result is there; otherwise 0."""
        return max(0, self._delivery.result(0).message_id) if self._delivery.done() else 0

    @property
    def result(self) -> PublishResult | None:
        """The result; ``None`` while there is none."""
        return self._delivery.result(0) if self._delivery.done() else None

    def is_settled(self) -> bool:
        """Return whether the result is there."""
        return self._delivery.done()

    def is_published(self) -> bool:
        """Return whether the platform has acknowledged it."""
        return self._delivery.done() and self._delivery.result(0).is_successful()

    def wait_for_publish(self, timeout: float | None = None) -> None:
        """Wait for the result.

        Args:
            timeout: Seconds; ``None`` for no limit.
        """
        with contextlib.suppress(TimeoutError):
            self._delivery.result(timeout)

    def settled_code(self) -> int:
        """Wait for the result for a limited time, and return its code."""
        delivery = self._delivery
        if not delivery.done() and not self._waiting.wait(delivery):
            return self._waiting.not_yet()
        result = delivery.result(0)
        return code_of(result, self._waiting) if result.reason_code else 0


class RefusedMessage:
    """Data that was not sent, because the platform would lose it."""

    __slots__ = ("rc",)
    mid = 0

    def __init__(self, waiting: Waiting) -> None:
        self.rc = 0 if waiting.forgives_refusals else 3

    def is_published(self) -> bool:
        """Return False."""
        return False

    def wait_for_publish(self, timeout: float | None = None) -> None:
        """Return at once: there is nothing to wait for."""

    def settled_code(self) -> int:
        """Return the code."""
        return self.rc


class NotSentMessage(RefusedMessage):
    """A message that no client has, because it is not connected."""

    __slots__ = ()

    def __init__(self) -> None:
        self.rc = TBPublishInfo.TB_ERR_NO_CONN


class TBPublishInfo:
    """The result of a send, which may have been split into several messages."""

    TB_ERR_AGAIN = -1
    TB_ERR_SUCCESS = 0
    TB_ERR_NOMEM = 1
    TB_ERR_PROTOCOL = 2
    TB_ERR_INVAL = 3
    TB_ERR_NO_CONN = 4
    TB_ERR_CONN_REFUSED = 5
    TB_ERR_NOT_FOUND = 6
    TB_ERR_CONN_LOST = 7
    TB_ERR_TLS = 8
    TB_ERR_PAYLOAD_SIZE = 9
    TB_ERR_NOT_SUPPORTED = 10
    TB_ERR_AUTH = 11
    TB_ERR_ACL_DENIED = 12
    TB_ERR_UNKNOWN = 13
    TB_ERR_ERRNO = 14
    TB_ERR_QUEUE_SIZE = 15
    ERRORS_DESCRIPTION = {  # noqa: RUF012  # as in SDK 1.x
        -1: "Previous error repeated.",
        0: "The operation completed successfully.",
        1: "Out of memory.",
        2: "A network protocol error occurred when communicating with the broker.",
        3: "Invalid function arguments provided.",
        4: "The client is not currently connected.",
        5: "The connection was refused.",
        6: "Entity not found (for example, trying to unsubscribe from a topic not currently subscribed to).",
        7: "The connection was lost.",
        8: "A TLS error occurred.",
        9: "Payload size is too large.",
        10: "This feature is not supported.",
        11: "Authorization failed.",
        12: "Access denied to the specified ACL.",
        13: "Unknown error.",
        14: "A system call returned an error.",
        15: "The queue size was exceeded.",
        16: "The keepalive time has been exceeded.",
    }

    __slots__ = ("message_info",)

    def __init__(self, message_info: Any) -> None:
        """Keep one message, or a list of messages.

        Args:
            message_info: A ``SentMessage``, an ``MQTTMessageInfo`` of paho, or a list of these.
        """
        self.message_info: Any = message_info

    def rc(self) -> int:
        """Return the code of the first message that failed; 0 if all are acknowledged or still in flight."""
        return next((code for one in self._messages() if (code := int(one.rc)) != 0), 0)

    def mid(self) -> Any:
        """Return the packet id, or a list with the packet id of each message; 0 before a message is acknowledged."""
        if isinstance(self.message_info, list):
            return [one.mid for one in self.message_info]
        return self.message_info.mid

    def get(self) -> int:
        """Wait until the platform has acknowledged all messages, for a limited time, and return the result.

        Returns:
            0 (``TB_ERR_SUCCESS``) only after the acknowledgement of all. ``TB_ERR_NO_CONN`` or ``TB_ERR_AGAIN`` if a message is not
            acknowledged in time, with and without a connection being down: the client still has it, and delivers it later.
            ``TB_ERR_CONN_LOST`` if the client was stopped before. The other codes mean that the platform does not take the data.
        """
        for one in self._messages():
            # In place of two more calls, since programs read the results of thousands of sends in a row.
            code = one.settled_code() if type(one) is SentMessage else _settled(one)
            if code:
                return code
        return 0

    def is_settled(self) -> bool:
        """Return whether the results of all messages are there; never waits."""
        return all(not isinstance(one, SentMessage) or one.is_settled() for one in self._messages())

    def _messages(self) -> Sequence[Any]:
        return self.message_info if isinstance(self.message_info, list) else [self.message_info]


class RecordInfo(TBPublishInfo):
    """The result of a record that is sent as it is. Most sends are such records, so this one object is everything that one makes.

    It is the receiver of the result, and the pending result of its only message.
    """

    __slots__ = ("_result", "_waiting")

    def __init__(self, waiting: Waiting) -> None:
        """Wait for the result of a send."""
        self._waiting = waiting
        self._result: PublishResult | None = None

    @property
    def message_info(self) -> Any:
        """A list with the message."""
        return [SentMessage(self, self._waiting)]

    def get(self) -> int:
        """As ``TBPublishInfo.get``."""
        result = self._result
        if result is None:
            if not self._waiting.wait(self):
                return self._waiting.not_yet()
            result = self.result(0)
        return code_of(result, self._waiting) if result.reason_code else 0

    def is_settled(self) -> bool:
        """Return whether the result is there; never waits."""
        return self._result is not None

    def done(self) -> bool:
        """Return whether the result is there; never waits."""
        return self._result is not None

    def cancelled(self) -> bool:
        """Return False: the result is always wanted."""
        return False

    def result(self, timeout: float | None = None) -> PublishResult:
        """Wait for the result, and return it.

        Args:
            timeout: Seconds; ``None`` for no limit.

        Raises:
            TimeoutError: The result is not there in time.
            RuntimeError: This thread runs an event loop, which must not be blocked, or the client is broken.
        """
        if self._result is None:
            self._waiting.waiters.wait(self, timeout)
        assert self._result is not None
        return self._result

    def set_result(self, result: PublishResult, /) -> None:
        """Take the result; the client calls this in its event loop."""
        self._result = result
        waiters = self._waiting.waiters
        if not waiters.is_due:
            waiters.schedule()


class SentMessages:
    """The messages of one publish. Programs may use it as they use paho's ``MQTTMessageInfo``."""

    __slots__ = ("_info",)

    def __init__(self, info: TBPublishInfo) -> None:
        """Stand for the messages of a result."""
        self._info = info

    @property
    def rc(self) -> int:
        """The code of the first message that failed; 0 if there is none."""
        return self._info.rc()

    @property
    def mid(self) -> int:
        """Return 0: several messages have no packet id in common."""
        return 0

    def is_published(self) -> bool:
        """Return whether the platform has acknowledged all messages."""
        return all(one.is_published() for one in self._info._messages())

    def wait_for_publish(self, timeout: float | None = None) -> None:
        """Wait for the results.

        Args:
            timeout: Seconds for each message; ``None`` for no limit.
        """
        for one in self._info._messages():
            one.wait_for_publish(timeout)


def _settled(message: Any) -> int:
    if isinstance(message, SentMessage | RefusedMessage):
        return message.settled_code()
    message.wait_for_publish(timeout=settings.DEFAULT_TIMEOUT)
    return int(message.rc)
