"""Provisioning: a device without credentials requests them (docs/platform_contract.md, section 6)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.exceptions import TBMQTTError
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.provisioning_response import ProvisioningResponse, device_config
from tb_mqtt_client.common.tasks import Tasks, report_failure
from tb_mqtt_client.constants.mqtt_topics import PROVISION_RESPONSE_TOPIC
from tb_mqtt_client.constants.reason_codes import FIRST_FAILURE, reason_name
from tb_mqtt_client.entities.data.provisioning_request import ProvisioningRequest
from tb_mqtt_client.entities.server_address import ServerAddress
from tb_mqtt_client.service.formats.json_device import JsonDeviceFormat
from tb_mqtt_client.service.formats.protocol import DeviceFormat
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.requests.dispatch import InboundDispatcher, InboundReport

CLIENT_ID = "provision"
"""The MQTT client id of a session for provisioning, which has no user name."""


class ProvisioningClient:
    """Sends one provisioning request on its own connection."""

    def __init__(self, host: str, port: int, provision_request: ProvisioningRequest) -> None:
        """Prepare a request.

        Args:
            host: The server to which the request is sent. It may differ from the server to which the device will connect.
            port: The port of that server.
            provision_request: The request.
        """
        self._host = host
        self._port = port
        self._request = provision_request
        self._format: DeviceFormat = JsonDeviceFormat()

    async def provision(self) -> ProvisioningResponse:
        """Send the request and wait for the response, without a time limit.

        Returns:
            The platform's response.

        Raises:
            ValueError: The request lacks its key, secret or certificate.
            OSError: The server cannot be reached.
            ConnectionRefusedByServer: The server refused the session.
            TimeoutError: The server did not respond to CONNECT.
            ConnectionLostError: The server closed the connection without a response.
            TBMQTTError: The server refused the request.
        """
        request = self._format.build_provision_request(self._request)
        config = device_config(self._request)
        tasks = Tasks(report_failure)
        inbound = InboundDispatcher(InboundReport(), tasks)
        manager = MQTTManager(CLIENT_ID, inbound=inbound, tasks=tasks, mqtt_version=config.mqtt_version)
        try:
            # A request names one server, but the caller may have named another one.
            [route, *_] = await asyncio.to_thread(config.routes) if config.use_tls() else config.routes()
            await manager.connect_by(replace(route, server=ServerAddress(self._host, self._port)), keepalive=config.keepalive)
            return self._format.parse_provisioning_response(self._request, await self._exchange(manager, request))
        finally:
            await manager.stop()

    async def _exchange(self, manager: MQTTManager, request: MqttPublishMessage) -> bytes:
        """Publish the request and return the payload of the response."""
        # Subscribe first, because the platform responds immediately.
        await manager.subscribe(PROVISION_RESPONSE_TOPIC)
        response: asyncio.Future[bytes] = manager.session_future()

        async def receive(_topic: str, payload: bytes) -> None:
            if not response.done():
                response.set_result(payload)

        def acknowledged(delivery: DeliveryFuture) -> None:
            reason_code = delivery.result().reason_code
            if reason_code >= FIRST_FAILURE and not response.done():
                response.set_exception(TBMQTTError(f"The server refused the provisioning request: {reason_name(reason_code)}"))

        manager.register_handler(PROVISION_RESPONSE_TOPIC, receive)
        request.delivery_futures[0].add_done_callback(acknowledged)
        await manager.publish(request, force=True)
        return await response
