"""What the store needs from the log, which holds the sends on disk: `_native.StoreLog`, or another one in tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.constants.option_values import Priority

StoredSend: TypeAlias = tuple[EncodedUplink, int, int, int, int]
"""A send: the datapoints, its number, when it was accepted in milliseconds since the epoch, its priority (0 normal, 1 high, 2 low),
and when it expires in milliseconds since the epoch (0 for never)."""
PRIORITIES: Final = (Priority.NORMAL, Priority.HIGH, Priority.LOW)
"""The priorities of sends, each at the index that stands for it in the log."""
HIGH_PRIORITY: Final = PRIORITIES.index(Priority.HIGH)
"""The priority of a send of high priority in the log."""
DroppedSend: TypeAlias = tuple[int, int, bool]
"""A send that was dropped: its number, its datapoints, and whether it had expired."""
ATTRIBUTES, HIGH, NORMAL, LOW = "attributes", "high", "normal", "low"
"""The lanes of the log: sends with attributes, and sends of each priority without attributes."""


class SendLog(Protocol):
    """The files of one store.

    One thread at a time calls the methods, which wait for the disk. The properties wait for nothing, in any thread.
    """

    @property
    def next_number(self) -> int:
        """The number for the next send."""

    @property
    def backlog_sends(self) -> int:
        """The number of released sends: those that are on disk only."""

    @property
    def backlog_attribute_sends(self) -> int:
        """The number of released sends with attributes."""

    @property
    def backlog_datapoints(self) -> int:
        """Datapoints of the released sends."""

    @property
    def backlog_bytes(self) -> int:
        """Bytes of the released sends."""

    @property
    def backlog_oldest_ms(self) -> int | None:
        """When the oldest released send was accepted, in milliseconds since the epoch."""

    @property
    def backlog_expires_ms(self) -> int | None:
        """A time before which no released send expires, in milliseconds since the epoch; ``None`` if none expires."""

    @property
    def disk_bytes(self) -> int:
        """Bytes of the files."""

    @property
    def damaged_places(self) -> int:
        """The number of damaged places that were found in the files."""

    @property
    def obstacles(self) -> list[str]:
        """Names of files of the store that something else had, such as a directory. It was moved to the quarantine."""

    @property
    def lost_datapoints(self) -> int:
        """Datapoints of sends that were lost by damage."""

    def commit(self, sends: Sequence[StoredSend], settled: Sequence[int]) -> None:
        """Write sends, and the numbers of sends that need no storing any more, and wait until they are on disk.

        Raises:
            OSError: Nothing counts as written; the call may be repeated.
        """

    def release(self, numbers: Sequence[int]) -> None:
        """Note that these sends have left memory."""

    def read(self, max_bytes: int, max_sends: int, lanes: Sequence[str]) -> list[StoredSend]:
        """Return released sends of some lanes, oldest first, which are in memory from now on."""

    def drop_oldest(self, nbytes: int) -> list[DroppedSend]:
        """Remove released sends, the oldest of the lowest priority first, until ``nbytes`` are free."""

    def drop_due(self, expired_at_ms: int, accepted_ms: tuple[int, int], max_sends: int) -> list[DroppedSend]:
        """Remove released sends that have expired by a time, or were accepted from one time on and before another one."""

    def close(self) -> None:
        """Close the files, and let another client open the store."""


OpenLog: TypeAlias = Callable[[str, str, int], SendLog]
"""Opens the log at a path, for an owner, with a size of its files. Raises ``OSError`` if that is not possible."""
