"""Names that programs import from modules of SDK 1.x although they belong to other modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


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
