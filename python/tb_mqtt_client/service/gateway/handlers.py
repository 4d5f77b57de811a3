"""The handlers of RPC requests and attributes for all or some sub-devices of a gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

from tb_mqtt_client.service.requests.handlers import Handlers


class SubDeviceHandlers:
    """Finds the handlers for the name of a sub-device."""

    def __init__(self, make: Callable[[], Handlers]) -> None:
        """Start without handlers; ``make`` makes an empty group of them."""
        self._make = make
        self._groups: dict[tuple[str, ...], Handlers] = {}

    def of(self, devices: str | Iterable[str]) -> Handlers:
        """Return the handlers for some devices.

        Args:
            devices: Names or patterns with the wildcards ``*``, ``?`` and ``[...]``, or one of them. Case matters.

        Raises:
            TypeError: A name is not a ``str``.
            ValueError: There is no name, or one is empty.
        """
        names: tuple[str, ...] = (devices,) if isinstance(devices, str) else tuple(devices) if isinstance(devices, Iterable) else ()
        if not (isinstance(devices, Iterable) and all(isinstance(name, str) for name in names)):
            raise TypeError(f"devices must be a name, a pattern such as 'boiler*', or several of them, not {devices!r}")
        if not names or not all(names):
            raise ValueError("devices must name at least one device; '*' stands for all of them")
        return self._groups.setdefault(tuple(sorted(set(names))), self._make())

    def matching(self, names: set[str]) -> list[Handlers]:
        """Return the handlers for a device with these names.

        Those that were registered with one of the names come before those with a pattern, and otherwise earlier ones first.
        """
        found = [(patterns, handlers) for patterns, handlers in list(self._groups.items()) if _match(patterns, names)]
        # ``sort`` keeps the order of equal elements.
        found.sort(key=lambda one: names.isdisjoint(one[0]))
        return [handlers for _, handlers in found]

    def remove(self, function: Callable[..., Any]) -> bool:
        """Remove a function. Return whether it was there."""
        removed = [handlers.remove(function) for handlers in list(self._groups.values())]
        return any(removed)


def _match(patterns: tuple[str, ...], names: set[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns for name in names)
