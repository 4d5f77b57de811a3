"""Remote procedure calls of the platform to sub-devices.

The rule: whatever a callback does, the platform gets an answer, as long as it can be told to which call.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tb_mqtt_client.common.async_utils import await_or_stop
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.gateway.direct_event_dispatcher import DirectEventDispatcher
from tb_mqtt_client.service.gateway.message_adapter import GatewayMessageAdapter
from tb_mqtt_client.service.inbound_report import InboundReport
from tb_mqtt_client.service.platform_calls import DEFAULT_CALLBACK_TIMEOUT, PlatformCalls


class GatewayRPCHandler:
    """Gives calls to the sessions of their devices, and answers as ``DEVICE_RPC_RESPONSE`` events to the dispatcher."""

    def __init__(
        self,
        event_dispatcher: DirectEventDispatcher,
        message_adapter: GatewayMessageAdapter,
        device_manager: DeviceManager,
        stop_event: asyncio.Event,
        report: InboundReport | None = None,
        callback_timeout: float = DEFAULT_CALLBACK_TIMEOUT,
    ) -> None:
        self._event_dispatcher = event_dispatcher
        self._message_adapter = message_adapter
        self._device_manager = device_manager
        self._stop_event = stop_event
        self._report = report or InboundReport()
        self.calls = PlatformCalls(self._report, callback_timeout)

    async def handle(self, topic: str, payload: bytes) -> None:
        """Answer a call: it is over when its answer is acknowledged, so that calls do not pile up as answers. Raises nothing.

        The answer is the callback's, or an error when it raises, takes too long, gives nonsense or is not there, and when there
        is no such device here. ``None`` is a success without a result. One-way calls look the same and get an answer too.
        """
        response = await self._response(topic, payload)
        if response is None:
            return
        deliveries = await self._event_dispatcher.dispatch(response)
        for delivery in deliveries or ():
            await await_or_stop(delivery, self._stop_event, None)

    def refusal(self, topic: str, payload: bytes) -> GatewayRPCResponse | None:
        """The answer to a call for which there is no room."""
        try:
            request = self._message_adapter.parse_rpc_request(topic, self._message_adapter.deserialize_to_dict(payload))
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            return None
        return _error(request.device_name, request.request_id, "The gateway has too many calls to answer")

    async def _response(self, topic: str, payload: bytes) -> GatewayRPCResponse | None:
        data: dict[str, Any] = {}
        try:
            data = self._message_adapter.deserialize_to_dict(payload)
            request = self._message_adapter.parse_rpc_request(topic, data)
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            return _answer_to_malformed(data, error)
        session = self._device_manager.resolve(request.device_name)
        if session is None:
            self._report.message_unexpected(topic, f"there is no device {request.device_name!r}")
            return _error(request.device_name, request.request_id, "The gateway has no such device")
        session.update_last_seen()
        request.set_device_session(session)
        if session.rpc_request_callback is None:
            return _error(request.device_name, request.request_id, "The device has no callback for RPC calls")
        return await self._called(topic, payload, session, request)

    async def _called(
        self, topic: str, payload: bytes, session: DeviceSession, request: GatewayRPCRequest
    ) -> GatewayRPCResponse | None:
        async def answer() -> GatewayRPCResponse:
            return _as_response(request, await self._event_dispatcher.dispatch(request, device_session=session))

        def failed(error: BaseException) -> GatewayRPCResponse:
            return _error(request.device_name, request.request_id, error)

        return await self.calls.run(topic, payload, f"the RPC call {request.method!r} to {request.device_name}", answer, failed)


def _as_response(request: GatewayRPCRequest, returned: Any) -> GatewayRPCResponse:
    """The answer to just this call, under the name by which the platform asked. Raises ``ValueError`` for what is no JSON."""
    if not isinstance(returned, RPCResponse):
        return GatewayRPCResponse.build(request.device_name, request.request_id, returned)
    return GatewayRPCResponse.of_device(request.device_name, returned.with_fields(request_id=request.request_id))


def _error(device_name: str, request_id: int | str, error: str | BaseException) -> GatewayRPCResponse:
    return GatewayRPCResponse.build(device_name, request_id, error=error)


def _answer_to_malformed(data: dict[str, Any], error: Exception) -> GatewayRPCResponse | None:
    """What can be told about a call of which at least device and number can be read."""
    call = data.get("data")
    device_name, request_id = data.get("device"), call.get("id") if isinstance(call, dict) else None
    if not isinstance(device_name, str) or not device_name or type(request_id) is not int:
        return None
    return _error(device_name, request_id, str(error))
