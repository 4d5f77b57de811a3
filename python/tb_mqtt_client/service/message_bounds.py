"""The most that one message with datapoints may hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MessageBounds:
    """Bounds that rate limits set: a message with more than a limit's capacity could never be admitted. 0 stands for no bound."""

    datapoints: int = 0
    devices: int = 0


NO_BOUNDS = MessageBounds()


def smallest_bound(*bounds: int) -> int:
    """Return the smallest of bounds in which 0 stands for no bound."""
    return min((bound for bound in bounds if bound), default=0)
