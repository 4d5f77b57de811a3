"""Names that programs import from modules of SDK 1.x although they belong to other modules, and names that programs assign to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from logging import Logger
from types import ModuleType
from typing import Any

from tb_mqtt_client.one_x import settings


def reexports(module: str, sources: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a module, which imports the source of a name when the name is used.

    So the modules of SDK 1.x have all names that they had, and importing them loads nothing that is not needed.

    Args:
        module: The name of the module.
        sources: ``"module"`` or ``"module:name"`` for each name.
    """

    def get(name: str) -> Any:
        source = sources.get(name)
        if source is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, member = source.partition(":")
        found = import_module(place)
        return getattr(found, member) if member else found

    return get


class _OneXModule(ModuleType):
    """A module in which an assignment to a setting takes effect everywhere."""

    @property
    def log(self) -> Logger:
        return settings.log

    @log.setter
    def log(self, value: Logger) -> None:
        settings.log = value

    @property
    def DEFAULT_TIMEOUT(self) -> float:
        return settings.DEFAULT_TIMEOUT

    @DEFAULT_TIMEOUT.setter
    def DEFAULT_TIMEOUT(self, value: float) -> None:
        settings.DEFAULT_TIMEOUT = value


def become_one_x_module(module: ModuleType) -> None:
    """Let assignments to ``log`` and ``DEFAULT_TIMEOUT`` of a module change the settings of this package."""
    module.__class__ = _OneXModule
