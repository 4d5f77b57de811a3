"""Queues a gateway's messages for its sub-devices."""

from __future__ import annotations

from collections.abc import Callable

from tb_mqtt_client.common.async_utils import Delivery, answer_as
from tb_mqtt_client.common.exceptions import NotConnectedError
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_disconnect_message import DeviceDisconnectMessage
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse
from tb_mqtt_client.entities.gateway.gateway_uplink_message import GatewayUplinkMessage
from tb_mqtt_client.service.formats.json_gateway import JsonGatewayFormat
from tb_mqtt_client.service.formats.protocol import GatewayFormat
from tb_mqtt_client.service.message_service import MessageService


class GatewayMessageSender:
    """Writes messages with an adapter and queues them. Each method gives a list with one future of the ``PublishResult``.

    ``qos`` is published; it changes nothing: at QoS 0 the server does not report refused messages for sub-devices
    (docs/platform_contract.md, section 4), so they are all published with QoS 1. Raises ``ValueError`` for what cannot be sent, and
    ``NotConnectedError`` without a queue.
    """

    def __init__(
        self,
        payload_format: GatewayFormat | None = None,
        message_queue: MessageService | None = None,
        check: Callable[[MqttPublishMessage], None] | None = None,
    ) -> None:
        """Without an adapter messages are JSON. ``check`` raises for messages that must not be queued."""
        self._payload_format = payload_format or JsonGatewayFormat()
        self._message_queue = message_queue
        self._check = check

    def set_payload_format(self, payload_format: GatewayFormat) -> None:
        """Write messages with another adapter. Raises ``ValueError`` for what is none."""
        if not isinstance(payload_format, JsonGatewayFormat):
            raise ValueError("payload_format must be an instance of GatewayFormat.")  # noqa: TRY004  # as the handlers do
        self._payload_format = payload_format

    def set_message_queue(self, message_queue: MessageService) -> None:
        """Queue messages here. Raises ``ValueError`` for what is no queue."""
        if not isinstance(message_queue, MessageService):
            raise ValueError("message_queue must be an instance of MessageService.")  # noqa: TRY004  # as set_payload_format
        self._message_queue = message_queue

    async def send_uplink_message(self, message: GatewayUplinkMessage, qos: int = 1) -> list[Delivery]:
        """Queue datapoints; the futures of ``message`` are answered too."""
        delivery = await self._queue().intake.accept(message.encoded)
        for future in message.get_delivery_futures():
            answer_as(future, delivery)
        return [delivery]

    async def send_device_connect(self, device_connect_message: DeviceConnectMessage, qos: int = 1) -> list[Delivery]:
        """Announce a sub-device."""
        return self._send(self._payload_format.build_connect(device_connect_message))

    async def send_device_disconnect(self, device_disconnect_message: DeviceDisconnectMessage, qos: int = 1) -> list[Delivery]:
        """Tell that a sub-device is gone."""
        return self._send(self._payload_format.build_disconnect(device_disconnect_message))

    async def send_attributes_request(self, attribute_request: GatewayAttributeRequest, qos: int = 1) -> list[Delivery]:
        """Ask for attributes of one scope."""
        return self._send(self._payload_format.build_attribute_request(attribute_request))

    async def send_rpc_response(self, rpc_response: GatewayRPCResponse, qos: int = 1) -> list[Delivery]:
        """Answer a call of the platform."""
        return self._send(self._payload_format.build_rpc_response(rpc_response))

    async def send_claim_request(self, claim_request: GatewayClaimRequest, qos: int = 1) -> list[Delivery]:
        """Let sub-devices be claimed."""
        message = self._payload_format.build_claim_request(claim_request)
        if claim_request.device_session is not None:
            # Not before the platform knows the device.
            message.device = claim_request.device_session.identity
        return self._send(message)

    def _send(self, message: MqttPublishMessage) -> list[Delivery]:
        queue = self._queue()
        if self._check is not None:
            self._check(message)
        # The caller's own: cancelling it changes nothing here.
        delivery: Delivery = message.delivery_futures[0].get_loop().create_future()
        message.delivery_futures.append(delivery)
        queue.submit(message)
        return [delivery]

    def _queue(self) -> MessageService:
        if self._message_queue is None:
            raise NotConnectedError("set_message_queue() must be called before anything is sent")
        return self._message_queue
