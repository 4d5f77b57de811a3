"""Numbers of requests: those that a program sees, and those on the wire.

``RPCRequest.build`` and ``AttributeRequest.build`` number requests for the whole process, before anybody knows which client will
send them; that is published, and so is ``reset()``, with which a program may make a number come twice. So a client cannot lean
on these numbers. It puts a number of its own on the wire (``RequestIds``), remembers whose it is, and gives the answer back
under the number that the program knows. The wire number of a client is never in use twice at a time: whatever other
clients do, however often one request object is sent, through reconnects, and beside ``getSessionLimits``, which takes
its number from the same counter.
"""

from __future__ import annotations

from collections.abc import Container

from tb_mqtt_client.entities.data.request_ids import AttributeRequestIdProducer, RPCRequestIdProducer

__all__ = ["AttributeRequestIdProducer", "RPCRequestIdProducer", "RequestIds"]

LARGEST_ID = 2**31 - 1
"""The server reads an int32 and disconnects for anything else (docs/platform_contract.md, sections 2 and 8)."""


class RequestIds:
    """The numbers that one client puts on the wire: 1, 2, 3 and so on, and from 1 again after ``LARGEST_ID``.

    The server forgets a number 60 s after its use (docs/platform_contract.md, section 2); one comes again after two thousand
    million others.
    """

    def __init__(self, last: int = 0) -> None:
        self._last = last

    def next(self, in_use: Container[int] = ()) -> int:
        """The next number that is not in use."""
        while True:
            self._last = self._last % LARGEST_ID + 1
            if self._last not in in_use:
                return self._last
