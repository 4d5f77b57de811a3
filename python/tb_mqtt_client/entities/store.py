"""The options of a client's store."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final

MIB: Final = 2**20


class Durability(StrEnum):
    """When a send is on disk."""

    GROUP = "group"
    """Within ``commit_interval`` seconds. A killed process or a power cut loses at most the sends of that time."""
    ALWAYS = "always"
    """Before the send returns, unless the platform has acknowledged it by then. Sends at the same time share a commit."""
    SPILL = "spill"
    """Only while the client is disconnected, when the queues in memory are full, and at ``stop()``. A killed process or a power cut
    loses everything that was not acknowledged, except the data that was written at these times."""


class WhenFull(StrEnum):
    """What a ``send_...`` call does when the store is full."""

    WAIT = "wait"
    """Wait until the store has space."""
    RAISE = "raise"
    """Raise ``StoreFullError`` and accept none of the call's data."""
    DROP_OLDEST = "drop_oldest"
    """Drop the oldest data of the store, whose results have the reason code -2 (``LocalReasonCode.DROPPED``)."""
    DROP_NEWEST = "drop_newest"
    """Drop the data of the call itself; its result has the reason code -2."""


@dataclass(frozen=True)
class Store:
    """A directory in which a client keeps accepted sends until their results are known.

    What is in it when the process ends, the next client with the same path, platform and credential sends.
    """

    path: str
    """The directory, which is created if it does not exist. One client uses it at a time."""
    max_bytes: int = 512 * MIB
    """Bytes that the files may take."""
    max_age: float | None = None
    """Seconds after which data that is on disk only is dropped; ``None`` for no limit."""
    min_free: int = 256 * MIB
    """Bytes of the file system that stay free."""
    durability: Durability = Durability.GROUP
    """When a send is on disk."""
    commit_interval: float = 0.02
    """Seconds after the first unwritten send until a commit, with durability ``group``, and ``spill`` without a session."""
    on_full: WhenFull = WhenFull.WAIT
    """What a send does when the store is full."""

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: An option has a value that it cannot have; the text names it.
        """
        if not isinstance(self.path, str | os.PathLike) or not os.fspath(self.path):
            raise ValueError(f"store: path must be a str that names a directory, not {self.path!r}")
        if "\0" in os.fspath(self.path):
            raise ValueError(f"store: path must not contain NUL: {self.path!r}")
        self._set("path", os.fspath(self.path))
        self._set("max_bytes", _bytes("max_bytes", self.max_bytes, MIB))
        self._set("min_free", _bytes("min_free", self.min_free, 0))
        self._set("max_age", None if self.max_age is None else _seconds("max_age", self.max_age))
        self._set("commit_interval", _seconds("commit_interval", self.commit_interval))
        self._set("durability", _choice("durability", Durability, self.durability))
        self._set("on_full", _choice("on_full", WhenFull, self.on_full))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def of(cls, name: str, value: Any) -> Store | None:
        """Return the store that a user gave as an option.

        Args:
            name: The option or environment variable, for errors.
            value: A ``Store``, a dict of its fields, or the path alone. An empty text means no store.

        Raises:
            ValueError: The value is none of these, or a field has a value that it cannot have.
        """
        if isinstance(value, Store):
            return value
        if isinstance(value, str | os.PathLike):
            return cls(os.fspath(value)) if os.fspath(value) else None
        if not isinstance(value, Mapping):
            text = f'{name} must be a path, a Store, or a dict such as {{"path": "queue", "durability": "always"}}, not {value!r}'
            raise ValueError(text)  # noqa: TRY004  # one error for all options
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(value) - set(names), key=str)
        if unknown or "path" not in value:
            what = f"has the unknown key {unknown[0]!r}" if unknown else "has no path"
            raise ValueError(f"{name} {what}; its keys are {', '.join(names)}")
        return cls(**value)


def _bytes(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"store: {name} must be a number of bytes, at least {least}, not {value!r}")
    return value


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"store: {name} must be a positive number of seconds, not {value!r}")
    return float(value)


def _choice(name: str, kind: type[StrEnum], value: Any) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"store: {name} must be one of {', '.join(kind)}, not {value!r}") from None
