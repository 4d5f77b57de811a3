"""Numbers for requests that are built before a client sends them."""

from __future__ import annotations

import itertools
from typing import ClassVar


class _RequestIdProducer:
    """Counts from 1, for the whole process.

    These are names for a program to tell its requests apart. What goes on the wire is a number of the client's own, see
    ``common/request_id_generator.py``: clients that share this counter do not depend on it.
    """

    _ids: ClassVar[itertools.count[int]]

    def __init_subclass__(cls) -> None:
        cls.reset()

    @classmethod
    async def get_next(cls) -> int:
        """The next number."""
        return next(cls._ids)

    @classmethod
    def reset(cls) -> None:
        """Begin with 1 again."""
        cls._ids = itertools.count(1)


class RPCRequestIdProducer(_RequestIdProducer):
    """For ``RPCRequest.build``."""


class AttributeRequestIdProducer(_RequestIdProducer):
    """For ``AttributeRequest.build``."""
