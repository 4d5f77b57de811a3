"""Registers the sub-devices of one gateway."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.entities.gateway.device_connect_message import checked_device_name
from tb_mqtt_client.entities.gateway.device_info import DeviceInfo
from tb_mqtt_client.service.gateway.device_session import (
    AttributeResponseCallback,
    AttributeUpdateCallback,
    DeviceSession,
    RPCRequestCallback,
    StateChangeCallback,
    sub_device_handlers,
)
from tb_mqtt_client.service.gateway.handlers import SubDeviceHandlers

logger: ExtendedLogger = get_logger(__name__)


class DeviceManager:
    """Finds sessions by id, by name, and by the original name of a renamed device."""

    def __init__(self) -> None:
        self.make_session: Callable[[DeviceInfo], DeviceSession] = DeviceSession
        """Makes the session of a new device. A program may set a subclass of ``DeviceSession`` before the first device."""
        self.handlers: SubDeviceHandlers = SubDeviceHandlers(sub_device_handlers)
        """The handlers of the gateway for RPC requests to sub-devices and for their attributes."""
        # By `DeviceInfo.id_number`.
        self._sessions: dict[int, DeviceSession] = {}
        self._by_name: dict[str, DeviceSession] = {}
        self._by_original_name: dict[str, DeviceSession] = {}
        """The sessions of renamed devices."""
        self._by_former_name: dict[str, DeviceSession] = {}

    def register(self, device_name: str, device_profile: str = "default") -> DeviceSession:
        """Return the session of a current or original name, and create it if there is none.

        Raises:
            ValueError: The name is empty or not a ``str``.
        """
        known = self.get_by_name(checked_device_name(device_name))
        if known is not None:
            return known
        session = self.make_session(DeviceInfo(device_name, device_profile))
        session.manager = self
        session.shared_handlers = self.handlers
        self._sessions[session.device_info.id_number] = session
        self._by_name[device_name] = session
        return session

    def unregister(self, device_id: UUID) -> None:
        """Remove a session, if the id is known."""
        session = self._sessions.pop(device_id.int, None)
        if session is None:
            return
        session.manager = None
        del self._by_name[session.device_info.device_name]
        self._by_original_name.pop(session.device_info.original_name, None)
        self._by_former_name = {name: other for name, other in self._by_former_name.items() if other is not session}

    def get_by_id(self, device_id: UUID) -> DeviceSession | None:
        """Return the session of an id, or ``None``."""
        return self._sessions.get(device_id.int)

    def get_by_name(self, device_name: str) -> DeviceSession | None:
        """Return the session of a current or else an original name, or ``None``."""
        return self._by_name.get(device_name) or self._by_original_name.get(device_name)

    def resolve(self, device_name: str) -> DeviceSession | None:
        """Return the session of a name as ``get_by_name`` does, or of the device that had the name before a rename.

        A message may have been sent before the rename.
        """
        return self.get_by_name(device_name) or self._by_former_name.get(device_name)

    def is_connected(self, device_id: UUID) -> bool:
        """Return True if there is a session with this id."""
        return device_id.int in self._sessions

    def all(self) -> list[DeviceSession]:
        """Return all sessions."""
        return list(self._sessions.values())

    @property
    def all_devices(self) -> dict[UUID, DeviceSession]:
        """All sessions by id."""
        return {session.device_info.device_id: session for session in self._sessions.values()}

    @property
    def connected_devices(self) -> set[DeviceSession]:
        """Sessions whose state is connected."""
        return {session for session in self._sessions.values() if session.state.is_connected()}

    def rename_device(self, old_name: str, new_name: str) -> None:
        """Give a device another name in this registry only. The client calls this when the platform renames a device.

        Raises:
            ValueError: Another device has the new name.
        """
        session = self.get_by_name(old_name)
        if session is None:
            logger.warning("There is no device %r to rename", old_name)
            return
        if self._by_name.get(checked_device_name(new_name), session) is not session:
            raise ValueError(f"new_name: there is a device {new_name!r} already")
        former_name = session.device_info.device_name
        del self._by_name[former_name]
        self._by_former_name[former_name] = session
        session.device_info.rename(new_name)
        self._by_name[new_name] = session
        self._by_original_name[session.device_info.original_name] = session

    def set_attribute_update_callback(self, device_id: UUID, cb: AttributeUpdateCallback | None) -> None:
        """Call ``DeviceSession.set_attribute_update_callback`` for an id, if it is known."""
        session = self.get_by_id(device_id)
        if session is not None:
            session.set_attribute_update_callback(cb)

    def set_attribute_response_callback(self, device_id: UUID, cb: AttributeResponseCallback | None) -> None:
        """Call ``DeviceSession.set_attribute_response_callback`` for an id, if it is known."""
        session = self.get_by_id(device_id)
        if session is not None:
            session.set_attribute_response_callback(cb)

    def set_rpc_request_callback(self, device_id: UUID, cb: RPCRequestCallback | None) -> None:
        """Call ``DeviceSession.set_rpc_request_callback`` for an id, if it is known."""
        session = self.get_by_id(device_id)
        if session is not None:
            session.set_rpc_request_callback(cb)

    def set_state_change_callback(self, device_id: UUID, cb: StateChangeCallback | None) -> None:
        """Call ``DeviceSession.set_state_change_callback`` for an id, if it is known."""
        session = self.get_by_id(device_id)
        if session is not None:
            session.set_state_change_callback(cb)

    def __repr__(self) -> str:
        return f"DeviceManager({list(self._by_name)})"
