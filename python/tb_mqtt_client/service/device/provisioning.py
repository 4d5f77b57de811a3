"""Provisioning: a device without credentials asks for them (docs/platform_contract.md, section 6)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.exceptions import TBMQTTError
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.provisioning_response import ProvisioningResponse, device_config
from tb_mqtt_client.constants.mqtt_topics import PROVISION_RESPONSE_TOPIC
from tb_mqtt_client.constants.reason_codes import FIRST_FAILURE, reason_name
from tb_mqtt_client.entities.data.provisioning_request import ProvisioningRequest
from tb_mqtt_client.entities.server_address import ServerAddress
from tb_mqtt_client.service.formats.json_device import JsonDeviceFormat
from tb_mqtt_client.service.formats.protocol import DeviceFormat
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.requests.dispatch import InboundDispatcher, InboundReport

logger = get_logger(__name__)

CLIENT_ID = "provision"
"""Makes the session one in which nothing but provisioning is done; there is no user name then."""


class ProvisioningClient:
    """One request on a connection of its own, which is closed however it ends."""

    def __init__(self, host: str, port: int, provision_request: ProvisioningRequest) -> None:
        """``host`` and ``port`` are where it connects to, should that be elsewhere than the device will."""
        self._host = host
        self._port = port
        self._request = provision_request
        self._format: DeviceFormat = JsonDeviceFormat()

    async def provision(self) -> ProvisioningResponse:
        """Ask, and wait for the answer without a limit.

        Raises ``ValueError`` for a request that the platform could not read, ``OSError`` when the server cannot be reached,
        ``ConnectionRefusedByServer`` with the server's reason, ``TimeoutError`` when it does not answer to CONNECT,
        ``ConnectionLostError`` when it closes without an answer, and ``TBMQTTError`` when it refuses the request's PUBLISH.
        """
        request = self._format.build_provision_request(self._request)
        config = device_config(self._request)
        manager = MQTTManager(CLIENT_ID, inbound=InboundDispatcher(InboundReport()), mqtt_version=config.mqtt_version)
        try:
            # There is one server, that of the request; the caller may have named another one.
            [route, *_] = await asyncio.to_thread(config.routes) if config.use_tls() else config.routes()
            await manager.connect_by(replace(route, server=ServerAddress(self._host, self._port)), keepalive=config.keepalive)
            return self._format.parse_provisioning_response(self._request, await self._exchange(manager, request))
        finally:
            await manager.stop()

    async def _exchange(self, manager: MQTTManager, request: MqttPublishMessage) -> bytes:
        """The request, and the payload of its answer."""
        # Before the request: the platform answers at once.
        await manager.subscribe(PROVISION_RESPONSE_TOPIC)
        answer: asyncio.Future[bytes] = manager.session_future()

        async def receive(_topic: str, payload: bytes) -> None:
            if not answer.done():
                answer.set_result(payload)

        def acknowledged(delivery: Delivery) -> None:
            reason_code = delivery.result().reason_code
            if reason_code >= FIRST_FAILURE and not answer.done():
                answer.set_exception(TBMQTTError(f"The server refused the provisioning request: {reason_name(reason_code)}"))

        manager.register_handler(PROVISION_RESPONSE_TOPIC, receive)
        request.delivery_futures[0].add_done_callback(acknowledged)
        await manager.publish(request, force=True)
        return await answer
