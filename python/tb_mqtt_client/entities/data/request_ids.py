"""Ids of requests: in a program, and on the wire.

``RPCRequest.build`` and ``AttributeRequest.build`` assign ids for the whole process, because a request may be built before it is
known which client sends it. A program may also reset these ids. Clients therefore cannot rely on their uniqueness: each client puts
its own number on the wire (``RequestIds``) and assigns the response to the id that the program knows.
"""

from __future__ import annotations

import itertools
from collections.abc import Container
from typing import ClassVar, Final

LARGEST_ID: Final = 2**31 - 1
"""The largest id that the server accepts. It disconnects for others (docs/platform_contract.md, sections 2 and 8)."""


class _RequestIdProducer:
    """Counts from 1 for the whole process."""

    _ids: ClassVar[itertools.count[int]]

    def __init_subclass__(cls) -> None:
        cls.reset()

    @classmethod
    def next_id(cls) -> int:
        """Return the next id. Any thread may call this."""
        return next(cls._ids)

    @classmethod
    async def get_next(cls) -> int:
        """Return the next id."""
        return cls.next_id()

    @classmethod
    def reset(cls) -> None:
        """Start again at 1."""
        cls._ids = itertools.count(1)


class RPCRequestIdProducer(_RequestIdProducer):
    """Assigns the ids of ``RPCRequest.build``."""


class AttributeRequestIdProducer(_RequestIdProducer):
    """Assigns the ids of ``AttributeRequest.build``."""


class RequestIds:
    """The ids that one client puts on the wire: 1, 2, 3 and so on, and 1 again after ``LARGEST_ID``.

    The server forgets an id 60 s after its use (docs/platform_contract.md, section 2), long before it is used again.
    """

    def __init__(self, last: int = 0) -> None:
        """Continue after ``last``."""
        self._last = last

    def next(self, in_use: Container[int] = ()) -> int:
        """Return the next id that is not in ``in_use``."""
        while True:
            self._last = self._last % LARGEST_ID + 1
            if self._last not in in_use:
                return self._last
