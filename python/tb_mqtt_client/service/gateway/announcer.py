"""Tells the platform which sub-devices there are, and the sessions whether it knows.

The rule: a session is CONNECTED from the acknowledgement of its announcement until its platform session ends, and its traffic
waits for that acknowledgement (platform_contract.md, section 4).
"""

from __future__ import annotations

from collections import Counter
from functools import partial

from tb_mqtt_client._native import DeviceIdentity
from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.clock import now_ms
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState
from tb_mqtt_client.service.callbacks import ENDS_THE_PROGRAM
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.gateway.message_adapter import GatewayMessageAdapter
from tb_mqtt_client.service.inbound_report import InboundReport
from tb_mqtt_client.service.message_service import MessageService

SETTLED = frozenset({DeviceSessionState.DISCONNECTED, DeviceSessionState.CONNECTION_FAILED})
"""States that the end of the gateway's connection does not change."""


class Announcer:
    """The announcements of one gateway, and the states of its sessions."""

    def __init__(
        self, adapter: GatewayMessageAdapter, message_service: MessageService, device_manager: DeviceManager, report: InboundReport
    ) -> None:
        self._adapter = adapter
        self._message_service = message_service
        self._device_manager = device_manager
        self._report = report
        self._open: Counter[DeviceIdentity] = Counter()
        self._state_after_end = DeviceSessionState.CONNECTION_LOST

    def publish_of(self, session: DeviceSession) -> MqttPublishMessage:
        """The announcement of a device, as it is called now."""
        message = DeviceConnectMessage.build(session.device_info.device_name, session.device_info.device_profile)
        return self._adapter.build_device_connect_message_payload(message, 1)

    def announce(self, session: DeviceSession, publish: MqttPublishMessage) -> Delivery:
        """Queue an announcement and keep the device's traffic back until it is acknowledged.

        The future is the caller's own; cancelling it changes nothing here.
        """
        identity = session.identity
        self._message_service.sub_devices.hold(identity)
        self._open[identity] += 1
        delivery: Delivery = publish.delivery_futures[0].get_loop().create_future()
        publish.delivery_futures[0].add_done_callback(partial(self._answered, session, identity))
        publish.delivery_futures.append(delivery)
        self._message_service.submit(publish)
        return delivery

    def announce_again(self, session: DeviceSession) -> None:
        """The platform may have forgotten a device, or knows it by another name. An announcement that is queued goes by itself."""
        if session.identity not in self._open:
            self.announce(session, self.publish_of(session))
        self.change_state(session, DeviceSessionState.RECONNECTING)

    def announce_all(self) -> None:
        """A new connection: sub-sessions ended with the one before."""
        sessions = list(self._device_manager.all())
        self._message_service.hold_all(session.identity for session in sessions)
        for session in sessions:
            self.announce_again(session)

    def connection_ended(self) -> None:
        """The gateway's connection ended, and with it the sub-sessions."""
        self._change_all(self._state_after_end)

    def set_closing(self, closing: bool) -> None:
        """Whether the gateway wants no connection, so that its end is no loss."""
        self._state_after_end = DeviceSessionState.DISCONNECTED if closing else DeviceSessionState.CONNECTION_LOST
        if closing:
            self._change_all(DeviceSessionState.DISCONNECTED)

    def _change_all(self, state: DeviceSessionState) -> None:
        for session in self._device_manager.all():
            if session.state not in SETTLED:
                self.change_state(session, state)

    def change_state(self, session: DeviceSession, state: DeviceSessionState) -> None:
        """Change a state, if it is another one. What the callback raises is reported."""
        if session.state is state:
            return
        try:
            session.update_state(state)
        except ENDS_THE_PROGRAM:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever the user's code raises
            self._report.callback_failed(f"the state of {session.device_info.device_name}", error)

    def _answered(self, session: DeviceSession, identity: DeviceIdentity, announcement: Delivery) -> None:
        self._open[identity] -= 1
        if not self._open[identity]:
            del self._open[identity]
        result = announcement.result()
        is_current = session.manager is not None and session.identity == identity
        if result.is_successful():
            self._message_service.sub_devices.release(identity)
            if is_current:
                session.connected_at = now_ms()
                session.update_last_seen()
                self.change_state(session, DeviceSessionState.CONNECTED)
        elif result.reason_code != LocalReasonCode.NOT_DELIVERED:
            self._message_service.reject_held(identity, result)
            if is_current:
                self.change_state(session, DeviceSessionState.CONNECTION_FAILED)
