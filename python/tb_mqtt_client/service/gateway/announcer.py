"""Announces sub-devices to the platform, and sets the states of their sessions.

The rule: a session is CONNECTED from the acknowledgement of its announcement until the platform's session of the device ends, and
its data waits for that acknowledgement (docs/platform_contract.md, section 4).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import partial

from tb_mqtt_client._native import DeviceIdentity
from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.config_loader import GatewayConfig
from tb_mqtt_client.common.logging_utils import ExtendedLogger, OccasionalLog, get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.mqtt_topics import GATEWAY_CONNECT_TOPIC
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState
from tb_mqtt_client.service.delivery.outcomes import ANNOUNCEMENT_LOSSES, ends_connections
from tb_mqtt_client.service.delivery.work_item import WorkItem
from tb_mqtt_client.service.formats.protocol import GatewayFormat
from tb_mqtt_client.service.gateway.announcement_retries import FINAL_REFUSALS, AnnouncementRetries
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.gateway.keep_alive import SubDeviceKeepAlive
from tb_mqtt_client.service.gateway.traffic import SubDeviceTraffic
from tb_mqtt_client.service.message_service import MessageService
from tb_mqtt_client.service.requests.callbacks import ENDS_THE_PROGRAM
from tb_mqtt_client.service.requests.dispatch import InboundReport

logger: ExtendedLogger = get_logger(__name__)

SETTLED = frozenset({DeviceSessionState.DISCONNECTED, DeviceSessionState.CONNECTION_FAILED})
"""States that do not change when the gateway's connection ends."""

NAMED_IN_LOG = 20
"""The number of refused devices of which each is logged at WARNING. Of further devices, one a minute and reason is logged."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """An announcement in the queue or in flight."""

    session: DeviceSession
    """The device."""
    identity: DeviceIdentity
    """The name and profile of the device when it was announced."""
    item: WorkItem
    """The message."""
    callers: list[DeliveryFuture]
    """The futures that are resolved with the result."""


class Announcer:
    """Publishes the announcements of one gateway, and sets the states of its sessions."""

    def __init__(
        self,
        config: GatewayConfig,
        payload_format: GatewayFormat,
        message_service: MessageService,
        sub_devices: SubDeviceTraffic,
        device_manager: DeviceManager,
        report: InboundReport,
        keep_alive: SubDeviceKeepAlive,
    ) -> None:
        """Create the announcer of one gateway.

        Args:
            config: The delays between announcements of a refused device.
            payload_format: Writes the announcements.
            message_service: Publishes them.
            sub_devices: Holds data of devices back until they are announced.
            device_manager: Has the sessions of all devices.
            report: Logs exceptions of callbacks for state changes.
            keep_alive: Keeps announced devices reachable.
        """
        self._format = payload_format
        self._message_service = message_service
        self._sub_devices = sub_devices
        self._device_manager = device_manager
        self._report = report
        self._keep_alive = keep_alive
        keep_alive.on_refused = self._announce_devices
        self.retries: AnnouncementRetries = AnnouncementRetries(config, self._announce_due, lambda: bool(self._open))
        """The refused devices that are announced again."""
        self._log = OccasionalLog(logger)
        self._open: Counter[DeviceIdentity] = Counter()
        """How many announcements of each device are queued or in flight."""
        self.callers: dict[DeviceSession, list[DeliveryFuture]] = {}
        """The futures that are resolved when the announcement of a refused device is accepted or given up."""
        self._online = False
        self._state_after_end = DeviceSessionState.CONNECTION_LOST

    def publish_of(self, session: DeviceSession) -> MqttPublishMessage:
        """Return the announcement of a device under its current name."""
        message = DeviceConnectMessage.build(session.device_info.device_name, session.device_info.device_profile)
        return self._format.build_connect(message)

    def announce(self, session: DeviceSession, publish: MqttPublishMessage) -> DeliveryFuture:
        """Queue an announcement, and hold back the device's data until it is acknowledged.

        A temporary refusal is not the end: the device is announced again.

        Args:
            session: The device.
            publish: The announcement.

        Returns:
            A future of the last result. Cancelling it does not end the announcements.
        """
        future: DeliveryFuture = asyncio.get_running_loop().create_future()
        self._submit(session, publish, [future])
        return future

    def announce_again(self, session: DeviceSession) -> None:
        """Queue an announcement under the current name of a device, unless one is queued or in flight."""
        if session.identity not in self._open:
            self._submit(session, self.publish_of(session), [])
        self.change_state(session, DeviceSessionState.RECONNECTING)

    def announce_all(self) -> None:
        """Queue an announcement of each device on a new connection: the platform ended all sessions with the previous connection.

        Devices that may have ended the previous connection are announced later and one at a time.
        """
        self._online = True
        sessions = list(self._device_manager.all())
        self._sub_devices.hold_all(session.identity for session in sessions)
        for session in sessions:
            if self.retries.postpone(session):
                # The server may end this connection because of the device, so the others are announced first.
                self._sub_devices.fail(session.identity)
                self.change_state(session, DeviceSessionState.RECONNECTING)
            else:
                self.announce_again(session)

    def _announce_devices(self, devices: list[DeviceIdentity]) -> None:
        for device in devices:
            session = self._device_manager.get_by_name(device.name)
            if session is not None and session.identity == device:
                self.announce_again(session)

    def refusal(self, session: DeviceSession) -> PublishResult | None:
        """Return the platform's last refusal of a device that is to be announced again."""
        refused = self.retries.get(session)
        return refused.result if refused is not None else None

    def connection_ended(self) -> None:
        """Note that the sessions of all devices ended with the gateway's connection."""
        self._online = False
        self.retries.pause()
        self._keep_alive.connection_ended()
        self._change_all(self._state_after_end)

    def set_closing(self, closing: bool) -> None:
        """Set which state sessions have after the end of the connection.

        Args:
            closing: True if the client closes the connection on purpose: sessions become DISCONNECTED, now and when it has ended.
                With False they become CONNECTION_LOST when it ends.
        """
        self._state_after_end = DeviceSessionState.DISCONNECTED if closing else DeviceSessionState.CONNECTION_LOST
        if closing:
            self._change_all(DeviceSessionState.DISCONNECTED)

    def forget(self, session: DeviceSession) -> None:
        """End the announcements and keep-alives of a session that was removed from the device manager, and resolve its callers.

        If the device was refused, its held data is rejected. If an announcement is in flight, its result decides about the data.
        """
        self._keep_alive.forget(session.identity)
        refused = self.retries.forget(session)
        result = refused.result if refused is not None else self._sub_devices.gate.refusal(session.identity)
        if result is not None and session.identity not in self._open:
            self._sub_devices.abandon(session.identity, result)
        self._resolve_callers(session, result or _undelivered())

    def renamed(self, session: DeviceSession, old: DeviceIdentity) -> None:
        """Announce a device under its new name."""
        # A keep-alive would make the platform create a device of the old name.
        self._keep_alive.forget(old)
        self.announce_again(session)

    def stop(self) -> None:
        """End all repeated announcements and resolve their futures as undelivered, because the client is stopped."""
        for session in self._device_manager.all():
            self.retries.forget(session)
        for session in list(self.callers):
            self._resolve_callers(session, _undelivered())

    def _change_all(self, state: DeviceSessionState) -> None:
        for session in self._device_manager.all():
            if session.state not in SETTLED:
                self.change_state(session, state)

    def change_state(self, session: DeviceSession, state: DeviceSessionState) -> None:
        """Change the state of a session if it differs. An exception of the callback is reported."""
        if session.state is state:
            return
        try:
            session.update_state(state)
        except ENDS_THE_PROGRAM:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever the user's code raises
            self._report.callback_failed(f"the state of {session.device_info.device_name}", error)

    def _submit(self, session: DeviceSession, publish: MqttPublishMessage, callers: list[DeliveryFuture]) -> None:
        identity = session.identity
        # First, because this raises if the queues have failed.
        item = self._message_service.submit(publish)
        announcement = Announcement(session, identity, item, callers)
        publish.delivery_futures[0].add_done_callback(partial(self._announcement_done, announcement))
        self._sub_devices.hold(identity)
        self._open[identity] += 1
        self.retries.announced(session)
        refused = self.retries.get(session)
        if refused is not None and refused.ends_connections:
            # The device ended connections before, so one more suffices to count as a refusal.
            item.losses = ANNOUNCEMENT_LOSSES

    def _announce_due(self, session: DeviceSession) -> None:
        logger.debug("Announcing %r again", session.device_info.device_name)
        self.announce_again(session)

    def _announcement_done(self, announcement: Announcement, future: DeliveryFuture) -> None:
        self._open[announcement.identity] -= 1
        if not self._open[announcement.identity]:
            del self._open[announcement.identity]
        self._handle_result(announcement, future.result())
        self.retries.announcement_done()

    def _handle_result(self, announcement: Announcement, result: PublishResult) -> None:
        session, identity, callers = announcement.session, announcement.identity, announcement.callers
        if result.is_successful():
            self._accepted(session, identity, result)
            _resolve(callers, result)
        elif session.manager is None:
            _resolve(callers, result)
            if identity not in self._open:
                self._sub_devices.abandon(identity, result)
        elif result.reason_code == LocalReasonCode.NOT_DELIVERED and (result.message_id < 0 or not self._announces):
            _resolve(callers, result)
            if self._announces:
                # The queues were cleared before it was published.
                self.announce_again(session)
        else:
            self.callers.setdefault(session, []).extend(callers)
            if session.identity == identity and ends_connections(announcement.item) and not self._online:
                self._refused(session, result, ends_connections=True)
            elif not self._is_decided_elsewhere(session, identity, result):
                self._refused(session, result)

    @property
    def _announces(self) -> bool:
        """Whether announcements are published."""
        return self._online and not self._message_service.has_failed

    def _is_decided_elsewhere(self, session: DeviceSession, identity: DeviceIdentity, result: PublishResult) -> bool:
        """Return whether another announcement of the device decides: of its new name, in flight, or on the next connection."""
        if session.identity != identity:
            return True
        return result.reason_code not in FINAL_REFUSALS and (identity in self._open or not self._online)

    def _accepted(self, session: DeviceSession, identity: DeviceIdentity, result: PublishResult) -> None:
        is_current = session.manager is not None and session.identity == identity
        if is_current and not self._online:
            # The connection ended right after the acknowledgement, and the platform's session with it: the next connection
            # announces the device again.
            return
        self._sub_devices.release(identity)
        if not is_current:
            return
        refused = self.retries.forget(session)
        if refused is not None:
            name, attempts = session.device_info.device_name, refused.attempts
            logger.info("The platform accepted device %r after %d refusals in %.0f s", name, attempts, refused.seconds())
        self._keep_alive.announced(identity)
        session.connected_at = now_ms()
        session.update_last_seen()
        self.change_state(session, DeviceSessionState.CONNECTED)
        self._resolve_callers(session, result)

    def _refused(self, session: DeviceSession, result: PublishResult, *, ends_connections: bool = False) -> None:
        self._keep_alive.forget(session.identity)
        is_final = result.reason_code in FINAL_REFUSALS
        delay = None if is_final else self.retries.refused(session, result, ends_connections=ends_connections)
        refused = self.retries.get(session)
        name = session.device_info.device_name
        if ends_connections:
            reason = "the connection ended each time before the acknowledgement"
        elif result.reason_code == LocalReasonCode.NOT_DELIVERED:
            reason = "no acknowledgement"
        else:
            reason = f"{result.reason} ({result.reason_code:#04x})"
        if delay is None:
            text = "The platform refused device %r: %s. Its data is rejected until the next connection (refusals: %d)"
            self._log.warn_of(("final", result.reason_code), text, name, reason, refused.attempts if refused is not None else 1)
            if not ends_connections:
                self.retries.forget(session)
            self._sub_devices.refuse(session.identity, result)
            self.change_state(session, DeviceSessionState.CONNECTION_FAILED)
            self._resolve_callers(session, result)
            return
        if refused is not None and refused.attempts > 1:
            logger.debug("The platform refused device %r again: %s. Announcing it again in %.1f s", name, reason, delay)
        else:
            text = "The platform refused device %r: %s. Announcing it again in %.1f s; its data stays in the queue until then"
            if len(self.retries) <= NAMED_IN_LOG:
                logger.warning(text, name, reason, delay)
            else:
                self._log.warn_of(("again", result.reason_code), text, name, reason, delay)
        self._sub_devices.fail(session.identity)
        if self._online:
            self.change_state(session, DeviceSessionState.RECONNECTING)

    def _resolve_callers(self, session: DeviceSession, result: PublishResult) -> None:
        _resolve(self.callers.pop(session, []), result)


def _resolve(callers: list[DeliveryFuture], result: PublishResult) -> None:
    for future in callers:
        # The future of a cancelled caller is done.
        if not future.done():
            future.set_result(result)


def _undelivered() -> PublishResult:
    return PublishResult(GATEWAY_CONNECT_TOPIC, 1, -1, -1, LocalReasonCode.NOT_DELIVERED)
