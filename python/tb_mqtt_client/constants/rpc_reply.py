"""Forms of a reply to a server-side RPC."""

from enum import StrEnum


class RPCReply(StrEnum):
    """How the result of a server-side RPC is sent. An error is ``{"error": error}`` in both forms."""

    WRAPPED = "wrapped"
    """``{"result": value}``, and ``{}`` for ``None``, as in SDK 2.0."""
    PLAIN = "plain"
    """The value alone, as in SDK 1.x."""
