"""A base class of values that only factory methods make."""

from __future__ import annotations

from typing import Any, Self, TypeVar

T = TypeVar("T")


class FactoryMade:
    """A base class of frozen dataclasses with ``init=False``, whose factory methods check all fields.

    Calling the class raises ``TypeError``, so every value has been checked. Values can be copied and pickled.
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        raise TypeError(f"Direct instantiation of {cls.__name__} is not allowed. Use {cls.__name__}.build(...).")

    @classmethod
    def _made(cls, **fields: Any) -> Self:
        """Return a value with these fields, which the caller has checked."""
        return _restore(cls, fields)

    def with_fields(self, **fields: Any) -> Self:
        """Return a copy with other values of these fields, which the caller has checked."""
        return _restore(type(self), self.__dict__ | fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), dict(self.__dict__))


def _restore(cls: type[T], fields: dict[str, Any]) -> T:
    value = object.__new__(cls)
    value.__dict__.update(fields)
    return value
