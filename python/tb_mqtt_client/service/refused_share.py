"""How much of the queue data of refused sub-devices may take.

The rule: devices that the platform refuses, perhaps permanently, leave half of the queue to the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

LARGE_SEND_BYTES = 65_536


class RefusedShare:
    """Counts what is kept back for devices that were refused and are to be announced again."""

    def __init__(self, max_messages: int = sys.maxsize, max_bytes: int = sys.maxsize, at_once: int = 0) -> None:
        """``max_messages`` and ``max_bytes`` are those of the queue; ``at_once``: sends that may be accepted before they count."""
        self._max_messages = max(1, max_messages // 2)
        self._max_bytes = max_bytes // 2
        self._at_once = at_once
        self.messages = 0
        self.bytes = 0
        self.on_change: Callable[[bool], None] = lambda _: None
        """Called with whether each send has to be looked at, because the share may soon be used up."""

    @property
    def is_used_up(self) -> bool:
        """Return True if data of refused devices has to wait, or is dropped."""
        return self.messages >= self._max_messages or self.bytes >= self._max_bytes

    def update(self, refused_devices: int, messages: int, nbytes: int) -> None:
        """Count messages that are kept back (negative: that left). ``refused_devices``: how many devices there are now."""
        self.messages += messages
        self.bytes += nbytes
        is_near = (
            self.messages + self._at_once >= self._max_messages or self.bytes + self._at_once * LARGE_SEND_BYTES >= self._max_bytes
        )
        self.on_change(refused_devices > 0 and is_near)
