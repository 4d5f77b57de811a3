"""Processes the platform's notices about sub-devices that were disconnected, renamed or deleted.

The rule: if no session has the name in a notice, the device no longer belongs to this gateway, and the notice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.constants.mqtt_topics import GATEWAY_DISCONNECT_TOPIC
from tb_mqtt_client.constants.reason_codes import QUOTA_REFUSALS, reason_name
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState
from tb_mqtt_client.entities.gateway_event import GatewayEvent, GatewayEventType
from tb_mqtt_client.service.formats.protocol import GatewayFormat
from tb_mqtt_client.service.gateway.announcer import Announcer
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.gateway.direct_event_dispatcher import DirectEventDispatcher
from tb_mqtt_client.service.gateway.traffic import SubDeviceTraffic
from tb_mqtt_client.service.message_service import MessageService
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.requests.incoming import RPCRequestsHandler
from tb_mqtt_client.service.session.protocol import Session

logger: ExtendedLogger = get_logger(__name__)

RENAMED, DELETED = "gateway_device_renamed", "gateway_device_deleted"
"""Methods of one-way RPC requests to the gateway's own device (docs/platform_contract.md, section 2)."""


class GatewayNotices:
    """Updates the sessions of the devices, and dispatches an event for each changed one.

    The event is ``DEVICE_UPDATE`` for a renamed device, and ``DEVICE_DISCONNECT`` for a deleted one and for a notice of a
    disconnect.
    """

    def __init__(
        self,
        device_manager: DeviceManager,
        announcer: Announcer,
        message_service: MessageService,
        sub_devices: SubDeviceTraffic,
        dispatcher: DirectEventDispatcher,
        report: InboundReport,
        forget_requests: Callable[[DeviceSession], None],
        payload_format: GatewayFormat,
    ) -> None:
        self._format = payload_format
        self._device_manager = device_manager
        self._announcer = announcer
        self._message_service = message_service
        self._sub_devices = sub_devices
        self._dispatcher = dispatcher
        self._report = report
        self._forget_requests = forget_requests

    def register_at(self, manager: Session, rpc_requests: RPCRequestsHandler) -> None:
        """Register the handlers of the notices, which are messages on a topic or RPC requests."""
        manager.register_handler(GATEWAY_DISCONNECT_TOPIC, self.disconnected)
        rpc_requests.register_notice(RENAMED, self.renamed)
        rpc_requests.register_notice(DELETED, self.deleted)

    async def disconnected(self, topic: str, payload: bytes) -> None:
        """Process ``{"device": name, "reason": n}``. Raises nothing.

        The platform reports that it could not process data of the device, whose session may have ended. The device is announced
        again, which changes nothing if its session still exists.
        """
        try:
            name, reason = self._format.parse_disconnect_notice(payload)
            session = self._session(name)
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            return
        if session is None:
            self._report.message_unexpected(topic, f"there is no device {name!r}")
            return
        self._report.device_disconnected(session.device_info.device_name, reason_name(reason))
        if reason in QUOTA_REFUSALS:
            self._message_service.quota_exceeded()
        self._announcer.change_state(session, DeviceSessionState.CONNECTION_LOST)
        self._announcer.announce_again(session)
        await self._dispatch(GatewayEventType.DEVICE_DISCONNECT, session)

    async def renamed(self, request: RPCRequest) -> None:
        """Process ``{"old name": "new name"}``. Queued data is sent under the new name, which is announced.

        Raises:
            ValueError: The parameters are not such an object.
        """
        if not isinstance(request.params, dict):
            raise ValueError(f"renamed devices must be an object, not {request.params!r}")  # noqa: TRY004  # data, not an argument
        for old_name, new_name in request.params.items():
            session = self._session(old_name)
            if not isinstance(new_name, str) or not new_name:
                raise ValueError(f"the new name of a device cannot be {new_name!r}")
            if session is None:
                logger.info("The platform renamed %r to %r; it is not a device of this gateway", old_name, new_name)
            elif old_name != new_name:
                await self._rename(session, new_name)

    async def deleted(self, request: RPCRequest) -> None:
        """Process the name of a deleted device. Its queued data is undelivered: sent, it would make the platform create the device.

        Raises:
            ValueError: The parameter is not a name.
        """
        session = self._session(request.params)
        if session is None:
            logger.info("The platform deleted %r; it is not a device of this gateway", request.params)
            return
        logger.warning("The platform deleted %r; its queued data is undelivered", session.device_info.device_name)
        self._sub_devices.move(session.identity, None)
        await self._drop(session)

    def _session(self, name: object) -> DeviceSession | None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"the name of a device cannot be {name!r}")
        session = self._device_manager.get_by_name(name)
        return session if session is not None and session.device_info.device_name == name else None

    async def _rename(self, session: DeviceSession, new_name: str) -> None:
        old_name, old_identity = session.device_info.device_name, session.identity
        logger.info("The platform renamed %r to %r", old_name, new_name)
        namesake = self._session(new_name)
        if namesake is not None:
            # The program connected a device with the new name before the notice arrived.
            self._sub_devices.move(old_identity, namesake.identity)
            await self._drop(session)
            return
        self._device_manager.rename_device(old_name, new_name)
        # Before data is moved to the new name: it waits for the announcement, too.
        self._sub_devices.hold(session.identity)
        self._sub_devices.move(old_identity, session.identity)
        self._announcer.renamed(session, old_identity)
        await self._dispatch(GatewayEventType.DEVICE_UPDATE, session)

    async def _drop(self, session: DeviceSession) -> None:
        self._device_manager.unregister(session.device_info.device_id)
        self._forget_requests(session)
        self._announcer.forget(session)
        self._announcer.change_state(session, DeviceSessionState.DISCONNECTED)
        await self._dispatch(GatewayEventType.DEVICE_DISCONNECT, session)

    async def _dispatch(self, event_type: GatewayEventType, session: DeviceSession) -> None:
        event = GatewayEvent(event_type)
        event.set_device_session(session)
        await self._dispatcher.dispatch(event)
