"""TCP connections to a name with several addresses: the attempts overlap, as in RFC 8305.

An address that drops packets then delays the connection by a fraction of a second only. asyncio's event loops could do this, but
uvloop's cannot. Separate functions for name resolution and TCP also let an error say which of the two took too long.
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
"""Seconds after which the next address is tried in parallel (RFC 8305, section 5)."""

AddressInfo = tuple[int, int, int, str, Any]
"""Family, type, protocol, canonical name and address, as ``socket.getaddrinfo`` returns them."""

_NO_ROUTE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
"""Errors of an address family that this machine does not support. Errors of the other family are more helpful."""


async def resolve(host: str, port: int) -> list[AddressInfo]:
    """Resolve a name.

    Args:
        host: A name or an IP address.
        port: The port in the returned addresses.

    Returns:
        The addresses, in the order that the system prefers.

    Raises:
        socket.gaierror: The name cannot be resolved.
    """
    try:
        # An IP address needs no DNS server, nor a thread that waits for one.
        numeric: list[AddressInfo] = list(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
        )
    except (OSError, UnicodeError):
        return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))
    return numeric


async def connect_first(addresses: Iterable[AddressInfo], delay: float = ATTEMPT_DELAY) -> socket.socket:
    """Connect to the first address that accepts a connection.

    Args:
        addresses: The addresses in order of preference; the attempts alternate between address families. The next attempt starts
            when the previous one has failed, or after ``delay``; earlier attempts continue.
        delay: Seconds between two attempts.

    Returns:
        A connected, non-blocking socket.

    Raises:
        OSError: No address accepts a connection. The error is that of the first address to which this machine has a route.
    """
    waiting = deque(alternate_families(addresses))
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
        raise _most_helpful(errors)
    finally:
        try:
            await _end(attempts, winner)
        except asyncio.CancelledError:
            if winner is not None:
                winner.close()
            raise


async def _end(attempts: set[asyncio.Task[socket.socket]], winner: socket.socket | None) -> None:
    """Close every connection except the winner. A cancelled attempt closes its own."""
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


def alternate_families(addresses: Iterable[AddressInfo]) -> list[AddressInfo]:
    """Alternate the address families, because one of them may be unusable on this machine (RFC 8305, section 4)."""
    families: dict[int, list[AddressInfo]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [address for address in chain.from_iterable(zip_longest(*families.values())) if address is not None]


def _most_helpful(errors: list[OSError]) -> OSError:
    if not errors:
        return socket.gaierror(socket.EAI_NONAME, "the name has no address")
    return next((error for error in errors if error.errno not in _NO_ROUTE), errors[0])
