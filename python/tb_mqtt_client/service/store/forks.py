"""What a process that is forked from one with an open store does: it leaves the store to its parent.

The lock of a store and its open files are inherited. Without this, no process could open the store while the child runs, even after
the end of the parent.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Protocol
from weakref import WeakSet


class Forked(Protocol):
    """Something that belongs to the process that has made it."""

    def leave_to_parent(self) -> None:
        """Note that this is a forked process, and release what it has inherited."""


_watched: WeakSet[Forked] = WeakSet()


def watch_forks(one: Forked) -> None:
    """Call ``leave_to_parent`` in each process that is forked from this one, as long as the object exists."""
    _register()
    _watched.add(one)


@cache
def _register() -> None:
    # With the first store, not with the import. Systems without fork have no such function.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_leave_to_parent)


def _leave_to_parent() -> None:
    left = list(_watched)
    _watched.clear()
    for one in left:
        one.leave_to_parent()
