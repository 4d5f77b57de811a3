"""The client of a gateway: its own device, and many sub-devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.config_loader import DeviceConfig, GatewayConfig
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.constants.mqtt_topics import (
    GATEWAY_ATTRIBUTES_REQUEST_TOPIC,
    GATEWAY_CLAIM_TOPIC,
    GATEWAY_CONNECT_TOPIC,
    GATEWAY_DISCONNECT_TOPIC,
)
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest
from tb_mqtt_client.entities.gateway.gateway_requested_attribute_response import GatewayRequestedAttributeResponse
from tb_mqtt_client.entities.gateway.telemetry_metadata import TelemetryMetadata
from tb_mqtt_client.service.device.client import ATTRIBUTES_TIMEOUT, DeviceClient
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.gateway.direct_event_dispatcher import DirectEventDispatcher
from tb_mqtt_client.service.gateway.sub_devices import SubDevices

logger = get_logger(__name__)


class GatewayClient(DeviceClient):
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

    def __init__(self, config: GatewayConfig | DeviceConfig | Mapping[str, Any] | None = None) -> None:
        gateway_config = _as_gateway_config(config)
        super().__init__(gateway_config)
        self._sub_devices = SubDevices(self._engine, gateway_config)

    @property
    def device_manager(self) -> DeviceManager:
        """The sessions of the sub-devices."""
        return self._sub_devices.manager

    @property
    def event_dispatcher(self) -> DirectEventDispatcher:
        """Takes handlers of events that have no callback of a session: see ``GatewayEventType``."""
        return self._sub_devices.event_dispatcher

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
        session, delivery = self._sub_devices.connect_device(message)
        if not wait_for_publish:
            return session, [delivery]
        result = await self._engine.wait_for(delivery, GATEWAY_CONNECT_TOPIC, -1, self.OPERATIONAL_TIMEOUT)
        if result.reason_code == LocalReasonCode.NOT_DELIVERED:
            # Why the platform has not taken the device, which is announced again.
            result = self._sub_devices.announcer.refusal(session) or result
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
        self._sub_devices.require_session(device_session)
        delivery = await self._sub_devices.disconnect_device(device_session)
        if not wait_for_publish:
            return device_session, [delivery]
        return device_session, await self._engine.wait_for(delivery, GATEWAY_DISCONNECT_TOPIC, -1, self.OPERATIONAL_TIMEOUT)

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
        limit = self.OPERATIONAL_TIMEOUT
        return await self._sub_devices.send_timeseries(device_session, data, metadata, wait_for_publish, limit)

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
        return await self._sub_devices.send_attributes(device_session, data, wait_for_publish, self.OPERATIONAL_TIMEOUT)

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
        self._sub_devices.require_session(device_session)
        request = await GatewayAttributeRequest.from_attribute_request(device_session, attribute_request)
        device_session.update_last_seen()
        delivery, response = self._sub_devices.requests.attributes(request, timeout)
        self._sub_devices.requests.pass_to_session(request, response)
        if not wait_for_publish:
            return delivery
        return await self._engine.wait_for(delivery, GATEWAY_ATTRIBUTES_REQUEST_TOPIC, -1, self.OPERATIONAL_TIMEOUT)

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
        self._sub_devices.require_session(device_session)
        request = await GatewayAttributeRequest.build(device_session, shared_keys, client_keys)
        device_session.update_last_seen()
        _, response = self._sub_devices.requests.attributes(request, timeout)
        return await response

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
        self._sub_devices.require_session(device_session)
        if not isinstance(gateway_claim_request, GatewayClaimRequest):
            raise TypeError(f"gateway_claim_request must be a GatewayClaimRequest, not {gateway_claim_request!r}")
        delivery = await self._sub_devices.send_claim_request(device_session, gateway_claim_request)
        if not wait_for_publish:
            return delivery
        return await self._engine.wait_for(delivery, GATEWAY_CLAIM_TOPIC, -1, self.OPERATIONAL_TIMEOUT)

    def health(self) -> dict[str, Any]:
        """Return the state as ``DeviceClient.health`` does, and ``devices``: the number of registered sub-devices."""
        return super().health() | {"devices": len(self.device_manager.all_devices)}


def _as_gateway_config(config: GatewayConfig | DeviceConfig | Mapping[str, Any] | None) -> GatewayConfig:
    if isinstance(config, GatewayConfig):
        return config
    return GatewayConfig.from_device_config(config) if isinstance(config, DeviceConfig) else GatewayConfig(config)
