"""Answers to attribute requests."""

from __future__ import annotations

import asyncio

from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.service.callbacks import Callback, call_reporting
from tb_mqtt_client.service.device.handlers.response_handler import ResponseHandler

AttributeResponseCallback = Callback[None]
"""Called with a ``RequestedAttributeResponse``."""


class RequestedAttributeResponseHandler(ResponseHandler[RequestedAttributeResponse]):
    """Gives each answer to the request of its number."""

    async def register_request(self, request: AttributeRequest, callback: AttributeResponseCallback) -> None:
        """Call ``callback`` with the answer. Raises ``RuntimeError`` when the request's id is pending already."""
        answer = self.pending.add(request.request_id)
        self._hold(request.request_id, self._tell(answer, callback))

    async def _tell(self, answer: asyncio.Future[RequestedAttributeResponse], callback: AttributeResponseCallback) -> None:
        await call_reporting(self._report, "requested attributes", callback, await answer)

    def unregister_request(self, request_id: int) -> None:
        """Forget a request."""
        self.pending.discard(request_id)

    def _parse(self, topic: str, payload: bytes) -> RequestedAttributeResponse:
        return self._message_adapter.parse_requested_attribute_response(topic, payload)
