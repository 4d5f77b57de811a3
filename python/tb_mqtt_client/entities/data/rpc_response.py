"""Responses of client-side and server-side RPC."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from tb_mqtt_client.constants.json_typing import validate_json_compatibility
from tb_mqtt_client.constants.option_values import RPCReply
from tb_mqtt_client.entities.factory_made import FactoryMade


class _RespondLater(Enum):
    RESPOND_LATER = "respond later"

    def __repr__(self) -> str:
        return self.name


RESPOND_LATER = _RespondLater.RESPOND_LATER
"""Returned by a callback for server-side RPC: the program sends the response on its own, with ``send_rpc_response``, or none at all
to a one-way RPC."""

UNKNOWN_ID = "unknown"
"""The id of a response whose request is known otherwise, as in a callback. Ids of the platform are numbers."""


class RPCStatus(Enum):
    """The outcome of an RPC. ``str()`` returns the value."""

    SUCCESS = "SUCCESS"
    ERROR = "ERROR"
    TIMEOUT = "TIMEOUT"
    NOT_FOUND = "NOT_FOUND"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, init=False, repr=False)
class RPCResponse(FactoryMade):
    """The response to an RPC.

    A program makes responses to server-side RPC with ``build`` and ``plain``. The client makes those to client-side RPC.
    """

    request_id: int | str
    """The id of the request."""
    status: RPCStatus | None = None
    """The outcome."""
    result: Any = None
    """The result, a JSON value. The result of a client-side RPC is the entire response, also if it is an error."""
    error: str | dict[str, Any] | None = None
    """The error; ``None`` on success."""
    reply: RPCReply | None = None
    """The form in which a result is sent to the platform; ``None`` for the client's option ``rpc_reply``."""

    @classmethod
    def build(
        cls, request_id: int | str, result: Any | None = None, error: str | dict[str, Any] | BaseException | None = None
    ) -> Self:
        """Make a response to a server-side RPC.

        Args:
            request_id: The id of the request.
            result: The result, a JSON value.
            error: ``None`` for success; otherwise a text, a dict of JSON values, or an exception, of which the message, the type
                and the traceback are sent.

        Raises:
            ValueError: The error has another type, or JSON cannot express the error or, without one, the result.
        """
        if error is None:
            validate_json_compatibility(result)
            return cls._made(request_id=request_id, status=RPCStatus.SUCCESS, result=result, error=None)
        return cls._made(request_id=request_id, status=RPCStatus.ERROR, result=result, error=_checked_error(error))

    @classmethod
    def plain(cls, result: Any = None, *, request_id: int | str = UNKNOWN_ID) -> Self:
        """Make a success whose reply is the value alone, not ``{"result": value}``.

        Some widgets, such as the platform's switches, expect this form: ``return RPCResponse.plain(False)``.

        Args:
            result: The result, a JSON value.
            request_id: The id of the request. A callback may omit it; ``send_rpc_response`` requires it.

        Raises:
            ValueError: JSON cannot express the result.
        """
        validate_json_compatibility(result)
        return cls._made(request_id=request_id, status=RPCStatus.SUCCESS, result=result, error=None, reply=RPCReply.PLAIN)

    @classmethod
    def timed_out(cls, request_id: int | str, error: str | BaseException, result: Any | None = None) -> Self:
        """Make a response with the status ``TIMEOUT``.

        Args:
            request_id: The id of the request.
            error: A text or an exception.
            result: The result, a JSON value.

        Raises:
            ValueError: As ``build``.
        """
        return cls.build(request_id, result, error).with_fields(status=RPCStatus.TIMEOUT)

    @classmethod
    def of_reply(cls, request_id: int | str, reply: Any) -> Self:
        """Read the platform's response to a client-side RPC.

        Args:
            request_id: The id of the request.
            reply: Any JSON value. A dict with an "error" that is not null is an error. ``{"error": "timeout"}`` means that the
                rule chain did not respond within 60 s (docs/platform_contract.md, section 2).
        """
        error = reply.get("error") if isinstance(reply, dict) else None
        if error is None:
            status = RPCStatus.SUCCESS
        elif error == "timeout":
            status = RPCStatus.TIMEOUT
        else:
            status = RPCStatus.ERROR
        return cls._made(request_id=request_id, status=status, result=reply, error=error)

    def to_payload_format(self, default: RPCReply = RPCReply.WRAPPED) -> Any:
        """Return the reply as JSON: ``{"result": r, "error": e}`` without parts that are ``None``, or the plain result.

        Args:
            default: The form of a result if ``reply`` is ``None``.
        """
        if self.error is None and (self.reply or default) is RPCReply.PLAIN:
            return self.result
        parts = {"result": self.result, "error": self.error}
        return {name: part for name, part in parts.items() if part is not None}

    def __repr__(self) -> str:
        return f"RPCResponse(request_id={self.request_id}, result={self.result}, error={self.error})"


def _checked_error(error: str | dict[str, Any] | BaseException) -> str | dict[str, Any]:
    if isinstance(error, BaseException):
        details = "".join(traceback.format_exception(error))
        return {"message": str(error), "type": type(error).__name__, "details": details}
    if not isinstance(error, str | dict):
        raise ValueError("Error must be a string, dictionary, or an exception instance")  # noqa: TRY004  # the type and the text are public
    validate_json_compatibility(error)
    return error
