"""Answers to remote procedure calls of the device."""

from __future__ import annotations

import asyncio

from tb_mqtt_client.common.exceptions import RPCError
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.callbacks import Callback, call
from tb_mqtt_client.service.device.handlers.response_handler import ResponseHandler

RPCResponseCallback = Callback[None]
"""Called with an ``RPCResponse``."""


class RPCResponseHandler(ResponseHandler[RPCResponse]):
    """Gives each answer to the call of its number."""

    def register_request(self, request_id: int, callback: RPCResponseCallback | None = None) -> asyncio.Future[RPCResponse]:
        """The future of a call's answer; the callback gets it first.

        The future raises ``RPCError`` for an answer that is an error, and what the callback raised. Raises ``RuntimeError``
        when the id is pending already.
        """
        return self._hold(request_id, _outcome(self.pending.add(request_id), callback))

    def _parse(self, topic: str, payload: bytes) -> RPCResponse:
        return self._message_adapter.parse_rpc_response(topic, payload)


async def _outcome(answer: asyncio.Future[RPCResponse], callback: RPCResponseCallback | None) -> RPCResponse:
    response = await answer
    if callback is not None:
        await call(callback, response)
    if response.error is not None:
        raise RPCError(response)
    return response
