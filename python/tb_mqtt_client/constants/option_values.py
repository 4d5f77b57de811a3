"""Values of the options that offer a choice."""

from enum import StrEnum
from typing import Final, Literal, TypeAlias

MQTT_3_1_1: Final = 4
MQTT_5: Final = 5
"""Values of ``mqtt_version``: the protocol versions as CONNECT numbers them."""


class QueuePolicy(StrEnum):
    """What a ``send_...`` call does when the queue is full."""

    WAIT = "wait"
    """Wait until the queue has space."""
    RAISE = "raise"
    """Raise ``QueueFullError`` and accept none of the call's data."""
    DROP_OLDEST = "drop_oldest"
    """Drop the oldest queued data of the lowest priority; its results have the reason code -2 (``LocalReasonCode.DROPPED``)."""
    DROP_NEWEST = "drop_newest"
    """Drop the data of the call itself; its result has the reason code -2."""


class TimestampSource(StrEnum):
    """The source of the timestamps of telemetry that is sent without ``ts``."""

    CLIENT = "client"
    """The client: the time of the send."""
    SERVER = "server"
    """The platform: the time at which the message arrives there."""


class ClockMode(StrEnum):
    """What a client does while the clock of its device is not set."""

    TRUST = "trust"
    """Use the clock as it is."""
    WAIT = "wait"
    """Hold telemetry without ``ts`` until the clock is credible, and give it the right time then."""
    CORRECT = "correct"
    """Also hold and correct telemetry whose ``ts`` the program took from the clock that was not set."""


class Priority(StrEnum):
    """The priority of a send among the sends that wait in the queue."""

    HIGH = "high"
    """Before everything else that waits, for rare data such as alarms."""
    NORMAL = "normal"
    """The default."""
    LOW = "low"
    """After data of normal priority; dropped first if the queue is full."""


PriorityName: TypeAlias = Literal["high", "normal", "low"]
"""The values of `Priority`."""


class Replay(StrEnum):
    """Whether new data waits for the backlog, which is older data that only a store has."""

    LIVE_FIRST = "live_first"
    """New data goes out as it comes, and the backlog gets a share of the limits."""
    IN_ORDER = "in_order"
    """New data goes out behind the backlog."""


class RPCReply(StrEnum):
    """How the result of a server-side RPC is sent. An error is ``{"error": error}`` in both forms."""

    WRAPPED = "wrapped"
    """``{"result": value}``, and ``{}`` for ``None``, as in SDK 2.0."""
    PLAIN = "plain"
    """The value alone, as in SDK 1.x."""
