"""Outcomes of remote procedure calls, in either direction."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from tb_mqtt_client.constants.json_typing import validate_json_compatibility
from tb_mqtt_client.constants.option_values import RPCReply
from tb_mqtt_client.entities.factory_made import FactoryMade

UNKNOWN_ID = "unknown"
"""Stands for the id of a response that a callback returns: the request has the id. The platform's ids are numbers."""


class RPCStatus(Enum):
    """How a call ended; ``str()`` gives the value."""

    SUCCESS = "SUCCESS"
    ERROR = "ERROR"
    TIMEOUT = "TIMEOUT"
    NOT_FOUND = "NOT_FOUND"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, init=False, repr=False)
class RPCResponse(FactoryMade):
    """The outcome of an RPC, made by ``build`` or ``plain``.

    Of a client-side RPC, ``result`` is the whole reply, whatever the status.
    """

    request_id: int | str
    status: RPCStatus | None = None
    result: Any = None
    error: str | dict[str, Any] | None = None
    reply: RPCReply | None = None
    """The form in which a result is sent to the platform. ``None``: the client's ``rpc_reply``."""

    @classmethod
    def build(
        cls, request_id: int | str, result: Any | None = None, error: str | dict[str, Any] | BaseException | None = None
    ) -> Self:
        """A success with ``result``, or the error: a ``str``, a dict, or an exception, which is told with its traceback.

        Raises ``ValueError`` for other errors and for what JSON cannot carry.
        """
        if error is None:
            validate_json_compatibility(result)
            return cls._made(request_id=request_id, status=RPCStatus.SUCCESS, result=result, error=None)
        return cls._made(request_id=request_id, status=RPCStatus.ERROR, result=result, error=_checked_error(error))

    @classmethod
    def plain(cls, result: Any = None, *, request_id: int | str = UNKNOWN_ID) -> Self:
        """Make a success whose reply is the value alone, not ``{"result": value}``.

        For widgets that read the reply itself, such as the stock switches: ``return RPCResponse.plain(False)``.

        Args:
            result: Any JSON value.
            request_id: The id of the request. A callback may leave it out; ``send_rpc_response`` needs it.

        Raises:
            ValueError: If JSON cannot carry the value.
        """
        validate_json_compatibility(result)
        return cls._made(request_id=request_id, status=RPCStatus.SUCCESS, result=result, error=None, reply=RPCReply.PLAIN)

    @classmethod
    def timed_out(cls, request_id: int | str, error: str | BaseException, result: Any | None = None) -> Self:
        """For a call to which no answer came: ``TIMEOUT``."""
        return cls.build(request_id, result, error).with_fields(status=RPCStatus.TIMEOUT)

    @classmethod
    def of_reply(cls, request_id: int | str, reply: Any) -> Self:
        """Read the platform's reply to a call of the device.

        A dict with an "error" that is not null is an error, and ``{"error": "timeout"}`` is what the platform says after 60 s
        without an answer of its rule chain (docs/platform_contract.md, section 2). Everything else is a result.
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
            default: The form of a result whose ``reply`` is ``None``.
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
        raise ValueError("Error must be a string, dictionary, or an exception instance")  # noqa: TRY004  # published type and text
    validate_json_compatibility(error)
    return error
