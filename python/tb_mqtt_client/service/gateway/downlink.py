"""What the platform sends to a gateway for its sub-devices: attribute updates, calls, answers, and notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.mqtt_topics import (
    GATEWAY_ATTRIBUTES_RESPONSE_TOPIC,
    GATEWAY_ATTRIBUTES_TOPIC,
    GATEWAY_RPC_TOPIC,
)
from tb_mqtt_client.entities.gateway.event_type import GatewayEventType
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.direct_event_dispatcher import DirectEventDispatcher
from tb_mqtt_client.service.gateway.handlers.gateway_attribute_updates_handler import GatewayAttributeUpdatesHandler
from tb_mqtt_client.service.gateway.handlers.gateway_requested_attributes_response_handler import (
    GatewayRequestedAttributeResponseHandler,
)
from tb_mqtt_client.service.gateway.handlers.gateway_rpc_handler import GatewayRPCHandler
from tb_mqtt_client.service.gateway.message_adapter import GatewayMessageAdapter
from tb_mqtt_client.service.inbound_report import InboundReport
from tb_mqtt_client.service.mqtt_manager import MQTTManager

GATEWAY_DOWNLINK_TOPICS = (GATEWAY_ATTRIBUTES_TOPIC, GATEWAY_ATTRIBUTES_RESPONSE_TOPIC, GATEWAY_RPC_TOPIC)
"""The platform sends these unasked, and does not count their subscriptions (platform_contract.md, section 4)."""


class GatewayDownlink:
    """The handlers of these messages, and the answers that calls get."""

    def __init__(
        self,
        dispatcher: DirectEventDispatcher,
        adapter: GatewayMessageAdapter,
        device_manager: DeviceManager,
        report: InboundReport,
        send: Callable[[MqttPublishMessage], Delivery],
        stop_event: asyncio.Event,
        rpc_callback_timeout: float,
    ) -> None:
        """``send`` queues a publish."""
        self._adapter = adapter
        self._send = send
        self.attribute_updates = GatewayAttributeUpdatesHandler(dispatcher, adapter, device_manager, report)
        self.attribute_responses = GatewayRequestedAttributeResponseHandler(dispatcher, adapter, device_manager, report)
        self.rpc = GatewayRPCHandler(dispatcher, adapter, device_manager, stop_event, report, rpc_callback_timeout)
        dispatcher.register(GatewayEventType.DEVICE_RPC_RESPONSE, self._take_answer)

    def register_at(self, manager: MQTTManager) -> None:
        """Take the messages."""
        manager.register_handler(GATEWAY_ATTRIBUTES_TOPIC, self.attribute_updates.handle, side_by_side=True)
        manager.register_handler(GATEWAY_ATTRIBUTES_RESPONSE_TOPIC, self.attribute_responses.handle)
        manager.register_handler(
            GATEWAY_RPC_TOPIC, self.rpc.handle, side_by_side=True, owes_answer=True, on_refused=self._refuse_call
        )

    def _take_answer(self, response: GatewayRPCResponse) -> list[Delivery]:
        delivery = self._send_answer(response)
        return [] if delivery is None else [delivery]

    def _send_answer(self, answer: GatewayRPCResponse) -> Delivery | None:
        def send(response: GatewayRPCResponse) -> Delivery:
            return self._send(self._adapter.build_rpc_response_payload(response, 1))

        def failed(error: BaseException) -> GatewayRPCResponse:
            return GatewayRPCResponse.build(str(answer.device_name), answer.request_id, error=str(error))

        return self.rpc.calls.answer(send, answer, failed)

    def _refuse_call(self, topic: str, payload: bytes) -> None:
        refusal = self.rpc.refusal(topic, payload)
        if refusal is not None:
            self.rpc.calls.refuse(lambda: self._send_answer(refusal))
