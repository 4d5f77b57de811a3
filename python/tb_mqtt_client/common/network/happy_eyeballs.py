"""TCP to a name with several addresses: one that swallows packets costs a fraction of a second (RFC 8305).

Event loops race addresses themselves if they are asyncio's own; uvloop's cannot. The steps are separate here for a second reason:
an error can say whether the name or the connection took too long.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Any

ATTEMPT_DELAY = 0.25
"""Seconds that an address has for itself before the next one is tried too (RFC 8305, section 5)."""

AddressInfo = tuple[int, int, int, str, Any]
"""Family, type, protocol, canonical name and address, as ``socket.getaddrinfo`` returns them."""

_NO_ROUTE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
"""Errors of an address family that this machine does not have: those of the other family say more."""


async def resolve(host: str, port: int) -> list[AddressInfo]:
    """Return the addresses of a name in the order in which the system prefers them. Raises ``socket.gaierror``."""
    try:
        # An address needs no name server, and no thread that waits for one.
        numeric: list[AddressInfo] = list(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
        )
    except (OSError, UnicodeError):
        return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))
    return numeric


async def connect_first(addresses: Iterable[AddressInfo], delay: float = ATTEMPT_DELAY) -> socket.socket:
    """Connect to whichever address answers first.

    Args:
        addresses: Tried in this order, but with alternating address families. The next one is tried when the one before has failed
            or has not answered within ``delay``; attempts that are under way go on.
        delay: Seconds between two attempts.

    Returns:
        A connected, non-blocking socket.

    Raises:
        OSError: No address accepts a connection: the error of the first one to which there is a route.
    """
    waiting = deque(_interleaved(addresses))
    attempts: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    winner: socket.socket | None = None
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.create_task(_connect(waiting.popleft()), name="tb-mqtt-client connection attempt"))
            await asyncio.wait(attempts, timeout=delay if waiting else None, return_when=asyncio.FIRST_COMPLETED)
            for attempt in [attempt for attempt in attempts if attempt.done()]:
                error = attempt.exception()
                if error is None:
                    winner = attempt.result()
                    return winner
                attempts.remove(attempt)
                if not isinstance(error, OSError):
                    raise error
                errors.append(error)
        raise _most_telling(errors)
    finally:
        try:
            await _end(attempts, winner)
        except asyncio.CancelledError:
            if winner is not None:
                winner.close()
            raise


async def _end(attempts: set[asyncio.Task[socket.socket]], winner: socket.socket | None) -> None:
    """Close every connection but the winner. An attempt that is cancelled closes its own."""
    for attempt in attempts:
        if attempt.done() and attempt.exception() is None and attempt.result() is not winner:
            attempt.result().close()
        attempt.cancel()
    await asyncio.gather(*attempts, return_exceptions=True)


async def _connect(address: AddressInfo) -> socket.socket:
    family, kind, protocol, _, target = address
    connecting = socket.socket(family, kind, protocol)
    try:
        connecting.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connecting, target)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _interleaved(addresses: Iterable[AddressInfo]) -> list[AddressInfo]:
    """Alternate the address families: a whole family may be unusable here (RFC 8305, section 4)."""
    families: dict[int, list[AddressInfo]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [address for address in chain.from_iterable(zip_longest(*families.values())) if address is not None]


def _most_telling(errors: list[OSError]) -> OSError:
    if not errors:
        return socket.gaierror(socket.EAI_NONAME, "the name has no address")
    return next((error for error in errors if error.errno not in _NO_ROUTE), errors[0])
