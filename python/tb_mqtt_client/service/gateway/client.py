"""The client of a gateway: its own device, and many sub-devices."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, Literal, overload

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.config_loader import DeviceConfig, GatewayConfig
from tb_mqtt_client.common.exceptions import DeviceNotConnectedError, NoDeviceSessionError
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.mqtt_message import MQTT_5
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.mqtt_topics import (
    GATEWAY_ATTRIBUTES_REQUEST_TOPIC,
    GATEWAY_ATTRIBUTES_TOPIC,
    GATEWAY_CLAIM_TOPIC,
    GATEWAY_CONNECT_TOPIC,
    GATEWAY_DISCONNECT_TOPIC,
    GATEWAY_TELEMETRY_TOPIC,
)
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_disconnect_message import DeviceDisconnectMessage
from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest
from tb_mqtt_client.entities.gateway.gateway_requested_attribute_response import GatewayRequestedAttributeResponse
from tb_mqtt_client.entities.gateway.telemetry_metadata import TelemetryMetadata
from tb_mqtt_client.service.delivery.packing import UplinkPacker
from tb_mqtt_client.service.device.client import ATTRIBUTES_TIMEOUT, DeviceClient
from tb_mqtt_client.service.formats.json_gateway import JsonGatewayFormat
from tb_mqtt_client.service.formats.json_session_limits import SessionLimits
from tb_mqtt_client.service.formats.protocol import GatewayFormat
from tb_mqtt_client.service.gateway.announcer import Announcer
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.gateway.direct_event_dispatcher import DirectEventDispatcher
from tb_mqtt_client.service.gateway.gate import DeviceGate, RefusedShare
from tb_mqtt_client.service.gateway.gateway_client_interface import GatewayClientInterface
from tb_mqtt_client.service.gateway.incoming import GATEWAY_DOWNLINK_TOPICS, GatewayDownlink
from tb_mqtt_client.service.gateway.keep_alive import SubDeviceKeepAlive
from tb_mqtt_client.service.gateway.message_sender import GatewayMessageSender
from tb_mqtt_client.service.gateway.message_splitter import GatewayMessageSplitter
from tb_mqtt_client.service.gateway.notices import GatewayNotices
from tb_mqtt_client.service.gateway.requests import GatewayRequests
from tb_mqtt_client.service.gateway.traffic import SubDeviceTraffic
from tb_mqtt_client.service.message_service import SENDS_A_TURN
from tb_mqtt_client.service.session.setup import ANSWER_TOPICS

logger = get_logger(__name__)


class GatewayClient(DeviceClient, GatewayClientInterface):
    """All that ``DeviceClient`` does for the gateway's own device, and the same for its sub-devices.

    Datapoints of several sub-devices travel in one payload unless ``combine_devices`` is switched off in the configuration.
    What is of a sub-device always travels with QoS 1.

    Sessions come from ``connect_device`` and have callbacks. Methods that take one raise ``NoDeviceSessionError`` (also a
    ``TypeError`` and an ``AttributeError``) for what is none, and ``NotConnectedError`` before ``connect()``. For a session of
    another gateway, or of a device that was disconnected or deleted, they raise ``DeviceNotConnectedError`` (also a
    ``ValueError``): its data would make the platform create the device with the profile "default".
    """

    OPERATIONAL_TIMEOUT = 5.0
    """Seconds that the sub-devices' calls wait for an acknowledgement."""
    SUBSCRIPTIONS_TIMEOUT = 1.0
    """Published; subscriptions are waited for as long as the connection lasts."""

    _config: GatewayConfig
    _free_topics = (*ANSWER_TOPICS, *GATEWAY_DOWNLINK_TOPICS)

    def __init__(self, config: GatewayConfig | DeviceConfig | Mapping[str, Any] | None = None) -> None:
        self.device_manager = DeviceManager()
        """The sessions."""
        super().__init__(config)
        self._has_warned_of_version = False
        self._combines_devices = self._config.combine_devices
        self._gateway_format: GatewayFormat = JsonGatewayFormat(self._config.rpc_reply)
        payload_format = self._gateway_format
        manager, service, report = self._mqtt_manager, self._message_service, self._report
        self.event_dispatcher = DirectEventDispatcher(report)
        """For handlers of what no session's callback is for, see ``GatewayNotices``, and of answers to calls on their way out."""
        self._sender = GatewayMessageSender(payload_format, service, self._check_sendable)
        self._keep_alive = SubDeviceKeepAlive(self._config, payload_format, manager, self._admission)
        self._keep_alive.others_wait = service.has_service_messages
        share = RefusedShare(self._config.max_queued_messages, self._config.max_queued_bytes, SENDS_A_TURN)
        self._sub_devices = SubDeviceTraffic(service, DeviceGate(share), payload_format)
        self._sub_devices.on_acknowledged = self._keep_alive.acknowledged
        service.plug_in(self._sub_devices)
        self._announcer = Announcer(
            self._config, payload_format, service, self._sub_devices, self.device_manager, report, self._keep_alive
        )
        self._gateway_downlink = GatewayDownlink(
            self.event_dispatcher,
            payload_format,
            self.device_manager,
            report,
            self._send_message,
            self._stop_event,
            self._config.rpc_callback_timeout,
        )
        self._gateway_downlink.register_at(manager)
        self._gateway_requests = GatewayRequests(
            payload_format,
            self._gateway_downlink.attribute_responses,
            self._futures,
            manager,
            report,
            self._send_message,
            service.withdraw,
        )
        notices = GatewayNotices(
            self.device_manager,
            self._announcer,
            service,
            self._sub_devices,
            self.event_dispatcher,
            report,
            self._gateway_requests.forget,
            payload_format,
        )
        notices.register_at(manager, self._downlink.rpc_requests)
        manager.session_end_callbacks.append(lambda _: self._announcer.connection_ended())
        manager.on_acknowledged_in_parts = self._stop_combining

    @staticmethod
    def _as_config(config: DeviceConfig | Mapping[str, Any] | None) -> GatewayConfig:
        if isinstance(config, GatewayConfig):
            return config
        return GatewayConfig.from_device_config(config) if isinstance(config, DeviceConfig) else GatewayConfig(config)

    def _gateway_packer(self) -> UplinkPacker:
        self._gateway_splitter = GatewayMessageSplitter(futures=self._futures)
        topics = GATEWAY_TELEMETRY_TOPIC, GATEWAY_ATTRIBUTES_TOPIC
        self._packer = UplinkPacker(*topics, self._gateway_splitter, self._futures, gateway=True)
        return self._packer

    def _begin_work(self) -> None:
        self._announcer.set_closing(False)

    async def _disconnect(self) -> None:
        """Sub-devices stay registered, and are announced again after the next ``connect``."""
        self._announcer.set_closing(True)
        try:
            await self._gateway_requests.stop()
            for topic in GATEWAY_DOWNLINK_TOPICS:
                self._mqtt_manager.send_unsubscribe(topic)
        finally:
            await super()._disconnect()

    async def _shut_down(self) -> None:
        await super()._shut_down()
        self._announcer.stop()

    @overload
    async def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = ...,
        wait_for_publish: Literal[False] = ...,
    ) -> tuple[DeviceSession, list[Delivery]]: ...
    @overload
    async def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = ...,
        *,
        wait_for_publish: Literal[True],
    ) -> tuple[DeviceSession, PublishResult]: ...
    @overload
    async def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = ...,
        wait_for_publish: bool = ...,
    ) -> tuple[DeviceSession, PublishResult | list[Delivery]]: ...
    async def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = "default",
        wait_for_publish: bool = False,
    ) -> tuple[DeviceSession, PublishResult | list[Delivery]]:
        """Announce a sub-device; the platform creates it with ``device_profile`` when it does not exist.

        What is sent for the device is kept back until the platform has acknowledged the announcement. An announcement that is
        refused for a reason that may pass is repeated, at growing intervals, until it is accepted or the bounds in the
        configuration (``announce_attempts``, ``announce_timeout``) are reached.

        Args:
            device_name_or_device_connect_message: The device's name, or a message with name and profile.
            device_profile: The profile of a device that is created.
            wait_for_publish: Wait for at most ``OPERATIONAL_TIMEOUT`` seconds for the result.

        Returns:
            The session (the same one for the same name, or for the first name of a device that was renamed) and the
            ``PublishResult``, or a list with one future of it. The session's state is ``CONNECTED`` once the platform has
            acknowledged. When it has not after that time, the result has the reason code of its last refusal, or -1 without one.
            The future waits until the announcement is accepted or given up.

        Raises:
            ValueError: The name or the profile is empty, not a ``str``, or too long for the server.
            NotConnectedError: ``connect()`` was not called.

        """
        message = device_name_or_device_connect_message
        if not isinstance(message, DeviceConnectMessage):
            message = DeviceConnectMessage.build(message, device_profile)
        known = self.device_manager.get_by_name(message.device_name)
        if known is not None:
            message = DeviceConnectMessage.build(known.device_info.device_name, message.device_profile)
        publish = self._gateway_format.build_connect(message)
        self._check_sendable(publish)
        session = known or self.device_manager.register(message.device_name, message.device_profile)
        if known is None:
            session.state = DeviceSessionState.DISCONNECTED
        delivery = self._announcer.announce(session, publish)
        if not wait_for_publish:
            return session, [delivery]
        result = await self._wait_for(delivery, GATEWAY_CONNECT_TOPIC, -1, self.OPERATIONAL_TIMEOUT)
        if result.reason_code == LocalReasonCode.NOT_DELIVERED:
            # Why the platform has not taken the device, which is announced again.
            result = self._announcer.refusal(session) or result
        return session, result

    @overload
    async def disconnect_device(
        self, device_session: DeviceSession, wait_for_publish: Literal[False] = ...
    ) -> tuple[DeviceSession, list[Delivery]]: ...
    @overload
    async def disconnect_device(
        self, device_session: DeviceSession, wait_for_publish: Literal[True]
    ) -> tuple[DeviceSession, PublishResult]: ...
    @overload
    async def disconnect_device(
        self, device_session: DeviceSession, wait_for_publish: bool = ...
    ) -> tuple[DeviceSession, PublishResult | list[Delivery]]: ...
    async def disconnect_device(
        self, device_session: DeviceSession, wait_for_publish: bool = False
    ) -> tuple[DeviceSession, PublishResult | list[Delivery]]:
        """Tell the platform that a sub-device is gone, and forget its session.

        Requests that wait for an answer end with a ``NotConnectedError``. Datapoints that are queued are sent all the same, and
        when they come later, the platform takes the device for connected again: wait for their results first.
        """
        self._require_session(device_session)
        message = DeviceDisconnectMessage.build(device_session.device_info.device_name)
        [delivery] = await self._sender.send_device_disconnect(message)
        self.device_manager.unregister(device_session.device_info.device_id)
        self._gateway_requests.forget(device_session)
        self._announcer.forget(device_session)
        self._announcer.change_state(device_session, DeviceSessionState.DISCONNECTED)
        if not wait_for_publish:
            return device_session, [delivery]
        return device_session, await self._wait_for(delivery, GATEWAY_DISCONNECT_TOPIC, -1, self.OPERATIONAL_TIMEOUT)

    @overload
    async def send_device_timeseries(
        self,
        device_session: DeviceSession,
        data: Any,
        wait_for_publish: Literal[True] = ...,
        *,
        metadata: TelemetryMetadata | None = ...,
    ) -> PublishResult: ...
    @overload
    async def send_device_timeseries(
        self,
        device_session: DeviceSession,
        data: Any,
        wait_for_publish: Literal[False],
        *,
        metadata: TelemetryMetadata | None = ...,
    ) -> Delivery: ...
    @overload
    async def send_device_timeseries(
        self, device_session: DeviceSession, data: Any, wait_for_publish: bool = ..., *, metadata: TelemetryMetadata | None = ...
    ) -> PublishResult | Delivery: ...
    async def send_device_timeseries(
        self,
        device_session: DeviceSession,
        data: Any,
        wait_for_publish: bool = True,
        *,
        metadata: TelemetryMetadata | None = None,
    ) -> PublishResult | Delivery:
        """Send timeseries of a sub-device; ``data`` as in ``send_timeseries``.

        Returns the ``PublishResult``, or a future of it when ``wait_for_publish`` is false. ``metadata`` say where the data came
        from and when, for platforms of 3.8 and later: a call with them shares no record with others, so it costs some payload.
        """
        self._require_session(device_session)
        if metadata is not None and not isinstance(metadata, TelemetryMetadata):
            raise TypeError(f"metadata must be a TelemetryMetadata, not {metadata!r}")
        now, given = now_ms(), None if metadata is None else (metadata.connector, metadata.received_ts)
        encoded = EncodedUplink.timeseries(data, now, device_session.identity, self._config.round_floats, given)
        device_session.last_seen_at = now
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
        device_session.last_seen_at = now_ms()
        return await self._send_device_uplink(encoded, GATEWAY_ATTRIBUTES_TOPIC, wait_for_publish)

    async def _send_device_uplink(self, encoded: EncodedUplink, topic: str, wait_for_publish: bool) -> PublishResult | Delivery:
        entrance = self._message_service.entrance
        delivery = entrance.try_accept(encoded) or await entrance.accept(encoded)
        if not wait_for_publish:
            return delivery
        return await self._wait_for(delivery, topic, encoded.nbytes, self.OPERATIONAL_TIMEOUT)

    @overload
    async def send_device_attributes_request(
        self,
        device_session: DeviceSession,
        attribute_request: AttributeRequest,
        wait_for_publish: Literal[True] = ...,
        timeout: float | None = ...,
    ) -> PublishResult: ...
    @overload
    async def send_device_attributes_request(
        self,
        device_session: DeviceSession,
        attribute_request: AttributeRequest,
        wait_for_publish: Literal[False],
        timeout: float | None = ...,
    ) -> Delivery: ...
    @overload
    async def send_device_attributes_request(
        self,
        device_session: DeviceSession,
        attribute_request: AttributeRequest,
        wait_for_publish: bool = ...,
        timeout: float | None = ...,
    ) -> PublishResult | Delivery: ...
    async def send_device_attributes_request(
        self,
        device_session: DeviceSession,
        attribute_request: AttributeRequest,
        wait_for_publish: bool = True,
        timeout: float | None = ATTRIBUTES_TIMEOUT,
    ) -> PublishResult | Delivery:
        """Ask for attributes of a sub-device; the session's callback for attribute responses gets the answer.

        Keys of both scopes take two messages, and become one answer. Returns what became of the messages. Without an answer
        after ``timeout`` seconds the log says so. Raises ``ValueError`` without a key, since the platform does not give all
        attributes of a sub-device, and ``RuntimeError`` for a request that is waiting for its answer already.
        """
        self._require_session(device_session)
        request = await GatewayAttributeRequest.from_attribute_request(device_session, attribute_request)
        device_session.update_last_seen()
        delivery, answer = self._gateway_requests.attributes(request, timeout)
        self._gateway_requests.tell(request, answer)
        if not wait_for_publish:
            return delivery
        return await self._wait_for(delivery, GATEWAY_ATTRIBUTES_REQUEST_TOPIC, -1, self.OPERATIONAL_TIMEOUT)

    async def request_device_attributes(
        self,
        device_session: DeviceSession,
        shared_keys: list[str] | None = None,
        client_keys: list[str] | None = None,
        timeout: float | None = ATTRIBUTES_TIMEOUT,
    ) -> GatewayRequestedAttributeResponse:
        """Ask for attributes of a sub-device and give the answer; ``request_attributes`` asks for the gateway's own.

        Raises ``TimeoutError`` when there is none after ``timeout`` seconds, ``ValueError`` without a key, ``RequestRefusedError``
        when the platform does not take the request, and ``NotConnectedError`` when gateway or device are disconnected.
        """
        self._require_session(device_session)
        request = await GatewayAttributeRequest.build(device_session, shared_keys, client_keys)
        device_session.update_last_seen()
        _, answer = self._gateway_requests.attributes(request, timeout)
        return await answer

    @overload
    async def send_device_claim_request(
        self, device_session: DeviceSession, gateway_claim_request: GatewayClaimRequest, wait_for_publish: Literal[True] = ...
    ) -> PublishResult: ...
    @overload
    async def send_device_claim_request(
        self, device_session: DeviceSession, gateway_claim_request: GatewayClaimRequest, wait_for_publish: Literal[False]
    ) -> Delivery: ...
    @overload
    async def send_device_claim_request(
        self, device_session: DeviceSession, gateway_claim_request: GatewayClaimRequest, wait_for_publish: bool = ...
    ) -> PublishResult | Delivery: ...
    async def send_device_claim_request(
        self, device_session: DeviceSession, gateway_claim_request: GatewayClaimRequest, wait_for_publish: bool = True
    ) -> PublishResult | Delivery:
        """Let sub-devices be claimed by who knows their secrets: all of the request, which may be others than the session's.

        The result says that the platform took the request; whether it allows claiming it tells nobody. A future of the result when
        ``wait_for_publish`` is false.
        """
        self._require_session(device_session)
        if not isinstance(gateway_claim_request, GatewayClaimRequest):
            raise TypeError(f"gateway_claim_request must be a GatewayClaimRequest, not {gateway_claim_request!r}")
        request = copy(gateway_claim_request)
        request.set_device_session(device_session)
        [delivery] = await self._sender.send_claim_request(request)
        device_session.update_last_seen()
        if not wait_for_publish:
            return delivery
        return await self._wait_for(delivery, GATEWAY_CLAIM_TOPIC, -1, self.OPERATIONAL_TIMEOUT)

    def health(self) -> dict[str, Any]:
        """The same for a gateway, and ``devices``: how many sub-devices are registered."""
        return super().health() | {"devices": len(self.device_manager.all_devices)}

    def _require_session(self, device_session: DeviceSession) -> None:
        self._require_started()
        if not isinstance(device_session, DeviceSession):
            raise NoDeviceSessionError(f"device_session must be a DeviceSession, as connect_device gives, not {device_session!r}")
        if device_session.manager is not self.device_manager:
            raise DeviceNotConnectedError(
                f"device_session: {device_session.device_info.device_name!r} is not, or no more, a device of this gateway; "
                "connect_device announces it and gives its session"
            )

    async def _prepare_traffic(self) -> None:
        """Sub-sessions end with the connection: announce all devices again (docs/platform_contract.md, section 4)."""
        self._warn_of_weak_acknowledgements()
        self._announcer.announce_all()

    def _warn_of_weak_acknowledgements(self) -> None:
        """Log once that MQTT 3.1.1 hides refusals of sub-devices' data (docs/platform_contract.md, fact 2)."""
        if self._has_warned_of_version or self._mqtt_manager.mqtt_version == MQTT_5:
            return
        self._has_warned_of_version = True
        logger.warning(
            "This gateway is connected with MQTT 3.1.1, where an acknowledgement has no reason code: data of its devices that the "
            "platform drops, for a rate limit for example, counts as acknowledged. Use MQTT 5 (mqtt_version=5, the default) and a "
            "server that supports it"
        )

    def _stop_combining(self) -> None:
        """Send one device a message from now on, since the server does not acknowledge a combined message as a whole."""
        if not self._combines_devices:
            return
        self._combines_devices = False
        self._packer.max_devices = 1
        logger.warning(
            "The server acknowledges each device of a message on its own, as ThingsBoard before 4.2.1 does. From now on a message "
            "has the data of one device. Set combine_devices to false to have that from the first message on"
        )

    def _apply_limits(self, limits: SessionLimits) -> None:
        super()._apply_limits(limits)
        packer, splitter = self._packer, self._gateway_splitter
        splitter.max_payload_size = self._payload_size(GATEWAY_TELEMETRY_TOPIC, GATEWAY_ATTRIBUTES_TOPIC, limits)
        splitter.max_datapoints = self._gateway_rate_limiter.telemetry_datapoints_rate_limit.minimal_limit
        # One message token for each device entry: a payload must not need more than a window holds.
        message_limit = self._gateway_rate_limiter.telemetry_message_rate_limit.minimal_limit
        packer.max_devices = message_limit if self._combines_devices else 1
        self._keep_alive.max_payload_size = splitter.max_payload_size
