"""How many bytes of a socket are still on their way."""

from __future__ import annotations

import sys
from typing import Any


def unacknowledged_bytes(tcp_socket: Any) -> int:
    """Return the bytes that the system took and that the peer's TCP has not acknowledged; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    # Other systems lack these modules, or know the request for terminals only.
    import fcntl  # noqa: PLC0415
    import termios  # noqa: PLC0415

    try:
        # For a TCP socket this is SIOCOUTQ, see tcp(7).
        return int.from_bytes(fcntl.ioctl(tcp_socket.fileno(), termios.TIOCOUTQ, b"\0" * 4), sys.byteorder)
    except (OSError, ValueError):
        # The socket is closed; its descriptor is -1 then.
        return 0
