"""Values that only their factory methods make."""

from __future__ import annotations

from typing import Any, Self, TypeVar

T = TypeVar("T")


class FactoryMade:
    """Calling the class is refused, so that no value exists which its factory has not checked. Can be copied and pickled.

    For frozen dataclasses with ``init=False``.
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        raise TypeError(f"Direct instantiation of {cls.__name__} is not allowed. Use {cls.__name__}.build(...).")

    @classmethod
    def _made(cls, **fields: Any) -> Self:
        """A value of these fields, which are checked already."""
        return _restore(cls, fields)

    def with_fields(self, **fields: Any) -> Self:
        """A copy in which these fields, which are checked already, are others."""
        return _restore(type(self), self.__dict__ | fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), dict(self.__dict__))


def _restore(cls: type[T], fields: dict[str, Any]) -> T:
    value = object.__new__(cls)
    value.__dict__.update(fields)
    return value
