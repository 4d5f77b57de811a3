"""Callbacks for attribute updates, by the numbers that SDK 1.x gives to subscriptions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any

Callback = Callable[..., Any]


class AttributeSubscriptions:
    """The callbacks of a client. They outlive connections, unlike those of SDK 1.x."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_id = 0
        self._callbacks: dict[int, tuple[Hashable, Callback, bool]] = {}

    def add(self, key: Hashable, callback: Callback, *, is_repeated: bool) -> int:
        """Add a callback, and return its number.

        Args:
            key: The key of the attribute.
            callback: The callback.
            is_repeated: Whether the program subscribes in its callback for connections, so that it does so again after each
                reconnect, as SDK 1.x required. The callback of the last time is replaced then.
        """
        with self._lock:
            if is_repeated:
                same = [
                    number
                    for number, (other_key, other, was_repeated) in self._callbacks.items()
                    if was_repeated and other_key == key and _is_same(other, callback)
                ]
                if same:
                    self._callbacks[same[0]] = (key, callback, True)
                    return same[0]
            self._last_id += 1
            self._callbacks[self._last_id] = (key, callback, is_repeated)
            return self._last_id

    def replace(self, key: Hashable, callback: Callback) -> int:
        """Add a callback in place of all others with its key, and return its number."""
        with self._lock:
            self._callbacks = {number: one for number, one in self._callbacks.items() if one[0] != key}
            self._last_id += 1
            self._callbacks[self._last_id] = (key, callback, False)
            return self._last_id

    def remove(self, number: Any) -> bool:
        """Remove a callback, or all of them if ``number`` is ``"*"``. Return whether there was one."""
        with self._lock:
            if number == "*":
                had = bool(self._callbacks)
                self._callbacks = {}
                return had
            return self._callbacks.pop(number, None) is not None

    def callbacks(self, *keys: Hashable) -> list[Callback]:
        """Return the callbacks of some keys: those of the first key first."""
        with self._lock:
            known = list(self._callbacks.values())
        return [callback for key in keys for own, callback, _ in known if own == key]


def _is_same(first: Callback, second: Callback) -> bool:
    """Return whether two callbacks are the same, or were made by the same line of the program, as lambdas are."""
    if first == second:
        return True
    codes = [getattr(getattr(one, "__func__", one), "__code__", None) for one in (first, second)]
    owners = [getattr(one, "__self__", None) for one in (first, second)]
    return codes[0] is not None and codes[0] is codes[1] and owners[0] is owners[1]
