"""The sub-devices of one gateway, as a component of its engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink, TableReader
from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.config_loader import GatewayConfig
from tb_mqtt_client.common.delivery import Delivery
from tb_mqtt_client.common.exceptions import DeviceNotConnectedError, NoDeviceSessionError
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.mqtt_topics import GATEWAY_CONNECT_TOPIC, GATEWAY_TELEMETRY_TOPIC
from tb_mqtt_client.constants.option_values import MQTT_5, Priority
from tb_mqtt_client.constants.reason_codes import ReasonCode
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_disconnect_message import DeviceDisconnectMessage
from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest
from tb_mqtt_client.entities.gateway.telemetry_metadata import TelemetryMetadata
from tb_mqtt_client.service.delivery.plain_sends import PlainSends
from tb_mqtt_client.service.delivery.tables import Rows, TableSum, send_parts
from tb_mqtt_client.service.engine import Component, Engine
from tb_mqtt_client.service.formats.json_gateway import JsonGatewayFormat
from tb_mqtt_client.service.formats.protocol import GatewayFormat
from tb_mqtt_client.service.gateway.announcer import Announcer
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.gateway.direct_event_dispatcher import DirectEventDispatcher
from tb_mqtt_client.service.gateway.gate import DeviceGate, RefusedShare
from tb_mqtt_client.service.gateway.incoming import GATEWAY_DOWNLINK_TOPICS, GatewayDownlink
from tb_mqtt_client.service.gateway.keep_alive import SubDeviceKeepAlive
from tb_mqtt_client.service.gateway.notices import GatewayNotices
from tb_mqtt_client.service.gateway.requests import GatewayRequests
from tb_mqtt_client.service.gateway.traffic import SubDeviceTraffic
from tb_mqtt_client.service.message_service import SENDS_A_TURN
from tb_mqtt_client.service.sends import Sends

logger: ExtendedLogger = get_logger(__name__)


class SubDevices(Component):
    """Announces the sub-devices in every session, and sends and receives for them."""

    topics: tuple[str, ...] = GATEWAY_DOWNLINK_TOPICS

    def __init__(self, engine: Engine, config: GatewayConfig) -> None:
        self._engine = engine
        self._sends: Sends = engine.sends
        self._config = config
        self._has_warned_of_version = False
        self._combines_devices = config.combine_devices
        if not config.combine_devices:
            engine.admission.set_most_devices(1)
        self.manager: DeviceManager = DeviceManager()
        """The sessions."""
        manager, service, report = engine.mqtt_manager, engine.message_service, engine.report
        self.format: GatewayFormat = JsonGatewayFormat(config.rpc_reply)
        self.event_dispatcher: DirectEventDispatcher = DirectEventDispatcher(report)
        keep_alive = SubDeviceKeepAlive(config, self.format, manager, engine.admission, engine.tasks, service.has_service_messages)
        share = RefusedShare(config.max_queued_messages, config.max_queued_bytes, SENDS_A_TURN)
        self.traffic: SubDeviceTraffic = SubDeviceTraffic(service, DeviceGate(share), self.format, keep_alive.acknowledged)
        self.traffic.identity_of_found = self._identity_of_found
        service.plug_in(self.traffic)
        self._gate = self.traffic.gate
        self.announcer: Announcer = Announcer(config, self.format, service, self.traffic, self.manager, report, keep_alive)
        self.downlink: GatewayDownlink = GatewayDownlink(
            self.event_dispatcher,
            self.format,
            self.manager,
            report,
            engine.tasks,
            engine.sends.send_message,
            config.rpc_callback_timeout,
        )
        self.downlink.register_at(manager)
        self.requests: GatewayRequests = GatewayRequests(
            self.format,
            self.downlink.attribute_responses,
            engine.futures,
            manager,
            report,
            engine.tasks,
            engine.sends.send_message,
            service.withdraw,
        )
        notices = GatewayNotices(
            self.manager, self.announcer, service, self.traffic, self.event_dispatcher, report, self.requests.forget, self.format
        )
        notices.register_at(manager, engine.downlink.rpc_requests)
        manager.on_acknowledged_in_parts = self._stop_combining
        engine.add(self)

    # The life of the client.

    def connecting(self) -> None:
        """Treat the end of a connection as a loss from now on."""
        self.announcer.set_closing(False)

    def before_traffic(self) -> None:
        """Announce all devices again: their sessions ended with the connection (docs/platform_contract.md, section 4)."""
        self._warn_of_weak_acknowledgements()
        self.announcer.announce_all()

    def session_ended(self) -> None:
        """Note that the sub-devices' sessions ended with the connection."""
        self.announcer.connection_ended()

    async def disconnect(self) -> None:
        """End requests and subscriptions. Devices stay registered, and are announced again after the next ``connect``."""
        self.announcer.set_closing(True)
        await self.requests.stop()
        for topic in GATEWAY_DOWNLINK_TOPICS:
            self._engine.mqtt_manager.send_unsubscribe(topic)

    def stopped(self) -> None:
        """Resolve the announcements that would have been repeated."""
        self.announcer.stop()

    # What the gateway's client does for its sub-devices.

    def require_session(self, device_session: DeviceSession) -> None:
        """Raise an error unless something can be sent for this session.

        Raises:
            NotConnectedError: ``connect()`` was not called, or the client is stopped.
            NoDeviceSessionError: The argument is not a ``DeviceSession``.
            DeviceNotConnectedError: The session is not one of this gateway, or no longer.
        """
        self._engine.guard.require_started()
        self.require_own(device_session)

    def session_of(self, device: DeviceSession | str) -> DeviceSession:
        """Return the session of a name, and announce the device if there is none. Return a session as it is.

        Raises:
            NotConnectedError: ``connect()`` was not called, or the client is stopped.
            NoDeviceSessionError: The argument is a name, and the option ``announce_unknown_devices`` is not set.
            ValueError: The platform can never have a device of this name.
        """
        if not isinstance(device, str):
            return device
        self._engine.guard.require_started()
        if not self.accepts_names:
            raise NoDeviceSessionError(
                f"device_session must be a DeviceSession, as connect_device returns, not {device!r}; "
                "with the option announce_unknown_devices it may be a name"
            )
        return self.manager.get_by_name(device) or self.connect_device(DeviceConnectMessage.build(device))[0]

    @property
    def accepts_names(self) -> bool:
        """Whether names are accepted in place of sessions. Any thread may ask."""
        return self._config.announce_unknown_devices

    def require_own(self, device_session: DeviceSession) -> None:
        """Raise an error unless a session is one of this gateway. Any thread may call this.

        Raises:
            NoDeviceSessionError: The argument is not a ``DeviceSession``.
            DeviceNotConnectedError: The session is not one of this gateway, or no longer.
        """
        if not isinstance(device_session, DeviceSession):
            raise NoDeviceSessionError(f"device_session must be a DeviceSession, as connect_device returns, not {device_session!r}")
        if device_session.manager is not self.manager:
            raise DeviceNotConnectedError(
                f"device_session: {device_session.device_info.device_name!r} is not (or no longer) a device of this gateway; "
                "connect_device announces it and returns its session"
            )

    def connect_device(self, message: DeviceConnectMessage) -> tuple[DeviceSession, DeliveryFuture]:
        """Register and announce a device. Return its session, and the future of the announcement's result."""
        known = self.manager.get_by_name(message.device_name)
        if known is not None:
            message = DeviceConnectMessage.build(known.device_info.device_name, message.device_profile)
        publish = self.format.build_connect(message)
        self._sends.check_sendable(publish)
        session = known or self.manager.register(message.device_name, message.device_profile)
        if known is None:
            session.state = DeviceSessionState.DISCONNECTED
        return session, self.announcer.announce(session, publish)

    def _identity_of_found(self, device: DeviceIdentity) -> DeviceIdentity:
        """Return the current name and profile of a device of which data was found in the store; announce it if it is not known."""
        session = self.manager.get_by_name(device.name)
        if session is None:
            message = self._message_of_found(device)
            if message is None:
                return device
            logger.info("Announcing device %r, of which data was found in the store", device.name)
            session = self.manager.register(device.name, message.device_profile)
            session.state = DeviceSessionState.DISCONNECTED
            # The result is for callers of `connect_device`; here it decides about the data.
            self.announcer.announce(session, self.format.build_connect(message))
        return session.identity

    def _message_of_found(self, device: DeviceIdentity) -> DeviceConnectMessage | None:
        """Return the announcement of a device of which data was found in the store; reject the data if there can be none.

        Earlier versions of this package have accepted names that the platform can never have.
        """
        try:
            return DeviceConnectMessage.build(device.name, device.profile)
        except ValueError:
            pass
        try:
            # Only the profile is wrong, which counts only if the device is new.
            return DeviceConnectMessage.build(device.name)
        except ValueError as error:
            if self._gate.refusal(device) is None:
                text = "The store has data of device %.60r, which the platform can never have. The data counts as rejected: %s"
                logger.error(text, device.name, error)  # noqa: TRY400  # the reason is in the text
                self.traffic.refuse(device, PublishResult(GATEWAY_CONNECT_TOPIC, 1, -1, -1, ReasonCode.PAYLOAD_FORMAT_INVALID))
            return None

    def disconnect_device(self, device_session: DeviceSession) -> DeliveryFuture:
        """Announce to the platform that a device is gone, and forget its session. Return the future of the result."""
        message = DeviceDisconnectMessage.build(device_session.device_info.device_name)
        delivery = self._sends.send_message(self.format.build_disconnect(message))
        self.manager.unregister(device_session.device_info.device_id)
        self.requests.forget(device_session)
        self.announcer.forget(device_session)
        self.announcer.change_state(device_session, DeviceSessionState.DISCONNECTED)
        return delivery

    def encode_timeseries(self, device_session: DeviceSession, data: Any, metadata: TelemetryMetadata | None) -> EncodedUplink:
        """Encode timeseries of a device, in any thread."""
        self.require_own(device_session)
        if metadata is not None and not isinstance(metadata, TelemetryMetadata):
            raise TypeError(f"metadata must be a TelemetryMetadata, not {metadata!r}")
        now, given = self._sends.stamp(), None if metadata is None else (metadata.connector, metadata.received_ts)
        encoded = EncodedUplink.timeseries(data, now, device_session.identity, self._config.round_floats, given)
        if now is None:
            encoded = self._sends.unstamped(encoded)
            now = now_ms()
        device_session.last_seen_at = now
        return encoded

    def encode_attributes(self, device_session: DeviceSession, data: Any) -> EncodedUplink:
        """Encode client attributes of a device, in any thread."""
        self.require_own(device_session)
        encoded = EncodedUplink.attributes(data, device_session.identity, self._config.round_floats)
        device_session.last_seen_at = now_ms()
        return encoded

    def gather_for(self, plain: PlainSends, device: DeviceSession | str, data: Any) -> DeliveryFuture | None:
        """Encode timeseries of a device straight into the gateway uplink queue if nothing has to be decided about the send.

        Returns:
            The future of the result; None as for ``PlainSends.gather``, or if something has to be decided.
        """
        now = time.time_ns() // 1_000_000
        identity = self._free_device(device, now)
        return None if identity is None else plain.gather(data, now, identity)

    def gather_delivery_for(self, plain: PlainSends, device: DeviceSession | str, data: Any) -> Delivery | DeliveryFuture | None:
        """Do what ``gather_for`` does, for a function that does not wait; None if the send has to pass ``Sends.enqueue``."""
        now = time.time_ns() // 1_000_000
        identity = self._free_device(device, now)
        if identity is None:
            return None
        delivery = plain.gather_delivery(data, now, identity)
        if delivery is None and self._sends.begin_gathering_now(plain):
            delivery = plain.gather_delivery(data, now, identity)
        return delivery

    def _free_device(self, device: DeviceSession | str, now: int) -> DeviceIdentity | None:
        """Note that data is sent for a device; return the device if nothing has to be decided about it, and None otherwise."""
        session: DeviceSession | str | None = device
        if not isinstance(session, DeviceSession):
            session = self.manager.get_by_name(session) if isinstance(session, str) and self.accepts_names else None
        if session is None or session.manager is not self.manager:
            return None
        identity = session.identity
        if not self._gate.is_free(identity):
            return None
        session.last_seen_at = now
        return identity

    def encode_timeseries_for(self, device: DeviceSession | str, data: Any, metadata: TelemetryMetadata | None) -> EncodedUplink:
        """Encode timeseries of a device, in the event loop; a name that is not known is announced if that is allowed."""
        self._engine.guard.require_started()
        return self.encode_timeseries(self.session_of(device), data, metadata)

    async def send_table(
        self, open_reader: Callable[[], TableReader], wait_for_publish: bool, priority: Priority | str, expires_after: float | None
    ) -> PublishResult | list[DeliveryFuture]:
        """Send a table with timeseries of devices, and return its result, or a list with one future of it."""
        sends = self._sends
        terms = sends.terms(priority, expires_after)
        self._engine.guard.require_started()

        async def accept(rows: Rows) -> tuple[EncodedUplink, DeliveryFuture]:
            name, profile, encoded = rows
            session = self._session_of_row(name or "", profile)
            session.last_seen_at = now_ms()
            return await sends.accept_part(encoded.with_device(session.identity), terms)

        return await send_parts(open_reader, accept, TableSum(GATEWAY_TELEMETRY_TOPIC, 1), wait_for_publish)

    def _session_of_row(self, name: str, profile: str | None) -> DeviceSession:
        """Return the session of a device in a table, and announce the device if there is none."""
        session = self.manager.get_by_name(name)
        if session is None:
            message = DeviceConnectMessage.build(name, profile) if profile else DeviceConnectMessage.build(name)
            session, _ = self.connect_device(message)
        return session

    def encode_attributes_for(self, device: DeviceSession | str, data: Any) -> EncodedUplink:
        """Encode client attributes of a device, as ``encode_timeseries_for`` does."""
        self._engine.guard.require_started()
        return self.encode_attributes(self.session_of(device), data)

    def encode_timeseries_of(self, data: Mapping[DeviceSession | str, Any]) -> list[EncodedUplink]:
        """Encode timeseries of several devices, in the event loop; names are announced as by ``encode_timeseries_for``."""
        self._engine.guard.require_started()
        if not isinstance(data, Mapping) or not data:
            raise ValueError(f"data must be a dict of at least one device and its data, not {data!r}")
        return self.encode_timeseries_of_sessions([(self.session_of(device), values) for device, values in data.items()])

    def encode_timeseries_of_sessions(self, data: Sequence[tuple[DeviceSession, Any]]) -> list[EncodedUplink]:
        """Encode timeseries of several devices; any thread may call this."""
        for session, _ in data:
            self.require_own(session)
        now = self._sends.stamp()
        calls = [(session.identity, values) for session, values in data]
        encoded = EncodedUplink.timeseries_of_devices(calls, now, self._config.round_floats)
        if now is None:
            encoded = [self._sends.unstamped(one) for one in encoded]
            now = now_ms()
        for session, _ in data:
            session.last_seen_at = now
        return encoded

    def send_claim_request(self, device_session: DeviceSession, claim_request: GatewayClaimRequest) -> DeliveryFuture:
        """Queue a claim request once the session's device is announced. Return the future of the result."""
        message = self.format.build_claim_request(claim_request)
        message.device = device_session.identity
        delivery = self._sends.send_message(message)
        device_session.update_last_seen()
        return delivery

    def _warn_of_weak_acknowledgements(self) -> None:
        """Log once that MQTT 3.1.1 hides refusals of sub-devices' data (docs/platform_contract.md, fact 2)."""
        if self._has_warned_of_version or self._engine.mqtt_manager.mqtt_version == MQTT_5:
            return
        self._has_warned_of_version = True
        logger.warning(
            "This gateway is connected with MQTT 3.1.1, where an acknowledgement has no reason code: data of its devices that the "
            "platform drops, for example because of a rate limit, counts as acknowledged. Use MQTT 5 (mqtt_version=5, the default) "
            "and a server that supports it"
        )

    def _stop_combining(self) -> None:
        """Send one device a message from now on, since the server does not acknowledge a combined message as a whole."""
        if not self._combines_devices:
            return
        self._combines_devices = False
        self._engine.admission.set_most_devices(1)
        logger.warning(
            "The server acknowledges each device of a message on its own, as ThingsBoard before 4.2.1 does. The client now sends "
            "one device per message. Set combine_devices to false to do so from the first message on"
        )
