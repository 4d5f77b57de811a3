"""Sub-device sessions of one gateway: opening, keeping alive and ending (docs/platform_contract.md, section 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tb_mqtt_client.emulator.devices import DEFAULT_PROFILE, Device
from tb_mqtt_client.emulator.platform import SessionView
from tb_mqtt_client.emulator.values import name_is_valid


class SubSessionRefusedError(Exception):
    """A sub-device session would exceed a limit."""


class CoreRefusedError(Exception):
    """The platform's core did not find or create a sub-device; the gateway is notified after the core timeout."""


class SubSessions:
    """The sub-device sessions of one gateway connection, by the names under which the devices were announced.

    A session ends without a notice after `Platform.sub_device_inactivity` seconds without an uplink of its device.
    """

    def __init__(self, session: SessionView) -> None:
        self._session = session
        self._platform = session.platform
        self._devices: dict[str, Device] = {}
        self._names: dict[Device, str] = {}
        # The time of the last uplink of each device, oldest first.
        self._last_uplinks: dict[Device, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def names(self) -> Mapping[Device, str]:
        """The names under which the devices were announced."""
        return self._names

    def get(self, name: str, gateway: Device, profile: str = DEFAULT_PROFILE) -> Device:
        """Return the device with this name, and open a session if it has none.

        Raises:
            SubSessionRefusedError: A session would exceed a limit.
            CoreRefusedError: The platform's core does not find or create the device.
            DeviceLimitError: The tenant has reached its maximum number of devices.
        """
        device = self._devices.get(name)
        return self._open(name, gateway, profile) if device is None else device

    def keep_alive(self, device: Device) -> None:
        """Record the time of an uplink."""
        if device in self._names:
            self._last_uplinks.pop(device, None)
            self._last_uplinks[device] = self._platform.monotonic()

    def check_inactivity(self) -> None:
        """End the inactive sessions and start the timer for the next one."""
        self._cancel_timer()
        timeout = self._platform.sub_device_inactivity
        if timeout is None:
            return
        now = self._platform.monotonic()
        for device, last_uplink in list(self._last_uplinks.items()):
            if now - last_uplink < timeout:
                self._timer = asyncio.get_running_loop().call_later(last_uplink + timeout - now, self.check_inactivity)
                return
            if device.gateway is not None:
                self.end(self._names[device], device.gateway)

    def end(self, name: str, gateway: Device) -> None:
        """End the session of a device, if it has one."""
        device = self._devices.get(name)
        if device is not None:
            # Closing a session takes a message token, but the platform does not check the limit.
            self._platform.meter.take(device, gateway)
            self.forget(device)

    def end_all(self, gateway: Device) -> None:
        """End all sessions."""
        self._cancel_timer()
        for name in list(self._devices):
            self.end(name, gateway)

    def forget(self, device: Device) -> None:
        """End the session of a device that is deleted or has a session in another connection, without counting a message."""
        name = self._names.pop(device, None)
        if name is not None:
            del self._devices[name]
            self._last_uplinks.pop(device, None)
            device.session = None
            if self._session.hooks.on_event is not None:
                self._session.hooks.on_event(f"{name} disconnected")

    def _open(self, name: str, gateway: Device, profile: str) -> Device:
        platform = self._platform
        if not platform.meter.take_sub_session(gateway):
            raise SubSessionRefusedError(name)
        if platform.core_away or name in platform.refused_names or not (name_is_valid(name) and name_is_valid(profile)):
            raise CoreRefusedError(name)
        device = platform.registry.sub_device(name, profile, gateway)
        if device.session is not None:
            # The newest session wins over one in another connection, or in this one under an earlier name.
            device.session.taken_over(device)
        self._devices[name] = device
        self._names[device] = name
        device.session = self._session
        device.counters.connections += 1
        if self._session.hooks.on_event is not None:
            self._session.hooks.on_event(f"{name} connected through {gateway.name}")
        self.keep_alive(device)
        if self._timer is None:
            self.check_inactivity()
        platform.rpc.subscribed(device)
        return device

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
