"""The client of a gateway: its own device, and many sub-devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, overload

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink
from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.clock import now_ms
from tb_mqtt_client.common.config_loader import DeviceConfig, GatewayConfig
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.constants.mqtt_topics import (
    GATEWAY_ATTRIBUTES_TOPIC,
    GATEWAY_CONNECT_TOPIC,
    GATEWAY_DISCONNECT_TOPIC,
    GATEWAY_TELEMETRY_TOPIC,
)
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_disconnect_message import DeviceDisconnectMessage
from tb_mqtt_client.service.device.client import DeviceClient
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.gateway.message_adapter import JsonGatewayMessageAdapter
from tb_mqtt_client.service.session_limits import SessionLimits
from tb_mqtt_client.service.uplink_packer import UplinkPacker


class GatewayClient(DeviceClient):
    """All that ``DeviceClient`` does for the gateway's own device, and the same for its sub-devices.

    Datapoints of several sub-devices travel in one payload unless ``combine_devices`` is switched off in the configuration.
    """

    OPERATIONAL_TIMEOUT = 5.0
    """Seconds that the sub-devices' calls wait for an acknowledgement."""

    _config: GatewayConfig

    def __init__(self, config: GatewayConfig | DeviceConfig | Mapping[str, Any] | None = None) -> None:
        self.device_manager = DeviceManager()
        self._announcements: Counter[DeviceIdentity] = Counter()
        super().__init__(config)

    @staticmethod
    def _as_config(config: DeviceConfig | Mapping[str, Any] | None) -> GatewayConfig:
        if isinstance(config, GatewayConfig):
            return config
        return GatewayConfig.from_device_config(config) if isinstance(config, DeviceConfig) else GatewayConfig(config)

    def _gateway_packer(self) -> UplinkPacker | None:
        self._gateway_message_adapter = JsonGatewayMessageAdapter(futures=self._futures)
        return self._gateway_message_adapter.packer

    async def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = "default",
        wait_for_publish: bool = False,
    ) -> tuple[DeviceSession, PublishResult | list[Delivery]]:
        """Announce a sub-device; the platform creates it with ``device_profile`` when it does not exist.

        Returns its session (the same one for the same name) and the ``PublishResult``, or a list with one future of it. The
        device's datapoints are kept back until the platform acknowledged the announcement. Raises ``ValueError`` for an empty name.
        """
        message = device_name_or_device_connect_message
        if not isinstance(message, DeviceConnectMessage):
            message = DeviceConnectMessage.build(message, device_profile)
        self._require_started()
        session = self.device_manager.register(message.device_name, message.device_profile)
        delivery = self._announce(session, message)
        if not wait_for_publish:
            return session, [delivery]
        return session, await self._wait_for(delivery, GATEWAY_CONNECT_TOPIC, -1, self.OPERATIONAL_TIMEOUT)

    async def disconnect_device(
        self, device_session: DeviceSession, wait_for_publish: bool = False
    ) -> tuple[DeviceSession, PublishResult | list[Delivery]]:
        """Tell the platform that a sub-device is gone, and forget its session."""
        self._require_session(device_session)
        message = DeviceDisconnectMessage.build(device_session.device_info.device_name)
        publish = self._gateway_message_adapter.build_device_disconnect_message_payload(message, 1)
        self.device_manager.unregister(device_session.device_info.device_id)
        delivery = self._publish(publish)
        if not wait_for_publish:
            return device_session, [delivery]
        result = await self._wait_for(delivery, GATEWAY_DISCONNECT_TOPIC, -1, self.OPERATIONAL_TIMEOUT)
        return device_session, result

    @overload
    async def send_device_timeseries(
        self, device_session: DeviceSession, data: Any, wait_for_publish: Literal[True] = ...
    ) -> PublishResult: ...
    @overload
    async def send_device_timeseries(
        self, device_session: DeviceSession, data: Any, wait_for_publish: Literal[False]
    ) -> Delivery: ...
    @overload
    async def send_device_timeseries(
        self, device_session: DeviceSession, data: Any, wait_for_publish: bool = ...
    ) -> PublishResult | Delivery: ...
    async def send_device_timeseries(
        self, device_session: DeviceSession, data: Any, wait_for_publish: bool = True
    ) -> PublishResult | Delivery:
        """Send timeseries of a sub-device; ``data`` as in ``send_timeseries``.

        Returns the ``PublishResult``, or a future of it when ``wait_for_publish`` is false.
        """
        self._require_session(device_session)
        encoded = EncodedUplink.timeseries(data, now_ms(), device_session.identity, self._config.round_floats)
        return await self._send_device_uplink(encoded, GATEWAY_TELEMETRY_TOPIC, wait_for_publish)

    @overload
    async def send_device_attributes(
        self, device_session: DeviceSession, data: Any, wait_for_publish: Literal[True] = ...
    ) -> PublishResult: ...
    @overload
    async def send_device_attributes(
        self, device_session: DeviceSession, data: Any, wait_for_publish: Literal[False]
    ) -> Delivery: ...
    @overload
    async def send_device_attributes(
        self, device_session: DeviceSession, data: Any, wait_for_publish: bool = ...
    ) -> PublishResult | Delivery: ...
    async def send_device_attributes(
        self, device_session: DeviceSession, data: Any, wait_for_publish: bool = True
    ) -> PublishResult | Delivery:
        """Send client attributes of a sub-device; ``data`` as in ``send_attributes``."""
        self._require_session(device_session)
        encoded = EncodedUplink.attributes(data, device_session.identity, self._config.round_floats)
        return await self._send_device_uplink(encoded, GATEWAY_ATTRIBUTES_TOPIC, wait_for_publish)

    async def _send_device_uplink(self, encoded: EncodedUplink, topic: str, wait_for_publish: bool) -> PublishResult | Delivery:
        service = self._message_service
        delivery = service.try_publish_uplink(encoded) or await service.publish_uplink(encoded)
        if not wait_for_publish:
            return delivery
        return await self._wait_for(delivery, topic, encoded.nbytes, self.OPERATIONAL_TIMEOUT)

    def health(self) -> dict[str, Any]:
        """The same for a gateway, and ``devices``: how many sub-devices are registered."""
        return super().health() | {"devices": len(self.device_manager.all_devices)}

    def _require_session(self, device_session: DeviceSession) -> None:
        self._require_started()
        if not isinstance(device_session, DeviceSession):
            raise TypeError(f"device_session must be a DeviceSession, as connect_device gives, not {device_session!r}")

    def _announce(self, session: DeviceSession, message: DeviceConnectMessage) -> Delivery:
        """Send the connect message and keep the device's datapoints back until it is acknowledged."""
        identity = session.identity
        self._message_service.hold(identity)
        self._announcements[identity] += 1
        publish = self._gateway_message_adapter.build_device_connect_message_payload(message, 1)
        publish.delivery_futures[0].add_done_callback(partial(self._announced, identity))
        return self._publish(publish)

    def _announced(self, identity: DeviceIdentity, announcement: Delivery) -> None:
        self._announcements[identity] -= 1
        if not self._announcements[identity]:
            del self._announcements[identity]
        result = announcement.result()
        if result.is_successful():
            self._message_service.release(identity)
        elif result.reason_code != LocalReasonCode.NOT_DELIVERED:
            self._message_service.reject_held(identity, result)

    def _publish(self, message: MqttPublishMessage) -> Delivery:
        """Queue a message; the future is the caller's own, and cancelling it changes nothing here."""
        delivery: Delivery = message.delivery_futures[0].get_loop().create_future()
        message.delivery_futures.append(delivery)
        self._message_service.publish(message)
        return delivery

    async def _prepare_traffic(self) -> None:
        """Sub-sessions end with the connection: announce all devices again (platform_contract.md, section 4).

        An announcement that lost its connection is queued and goes by itself.
        """
        sessions = {session.identity: session for session in self.device_manager.all()}
        self._message_service.hold_all(sessions)
        for identity, session in sessions.items():
            if identity not in self._announcements:
                self._announce(session, DeviceConnectMessage.build(identity.name, identity.profile))

    def _apply_limits(self, limits: SessionLimits) -> None:
        super()._apply_limits(limits)
        packer, splitter = self._gateway_message_adapter.packer, self._gateway_message_adapter.splitter
        splitter.max_payload_size = self._payload_size(GATEWAY_TELEMETRY_TOPIC, GATEWAY_ATTRIBUTES_TOPIC, limits)
        splitter.max_datapoints = self._gateway_rate_limiter.telemetry_datapoints_rate_limit.minimal_limit
        # One message token for each device entry: a payload must not need more than a window holds.
        message_limit = self._gateway_rate_limiter.telemetry_message_rate_limit.minimal_limit
        packer.max_devices = message_limit if self._config.combine_devices else 1
