"""Keeps quiet sub-devices reachable.

The platform silently ends the session of a sub-device some time after its last uplink (600 s by default); the device receives no
RPC and no attribute update then (docs/platform_contract.md, section 4). The rule: for every device that was announced on this
connection, an uplink is published every ``sub_device_keepalive`` seconds, and under load after one and a half of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice

from tb_mqtt_client._native import DeviceIdentity
from tb_mqtt_client.common.async_utils import DeliveryFuture, wait_for_set
from tb_mqtt_client.common.config_loader import GatewayConfig
from tb_mqtt_client.common.logging_utils import ExtendedLogger, OccasionalLog, get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.constants.mqtt_topics import GATEWAY_ATTRIBUTES_TOPIC, MessageKind, Route
from tb_mqtt_client.service.delivery.admission import FIRST_CONTACT_COST, Admission
from tb_mqtt_client.service.delivery.work_item import WorkItem
from tb_mqtt_client.service.formats.protocol import GatewayFormat
from tb_mqtt_client.service.mqtt_manager import MQTTManager


def keep_alive_message(payload: bytes, devices: int) -> WorkItem:
    """Return a message with empty attributes of several sub-devices, which the platform treats as an uplink of each.

    The message is not published again if its connection ends. The server counts each device in it as one of ``messages``
    (docs/platform_contract.md, section 5: data without datapoints).
    """
    route = Route(MessageKind.KEEP_ALIVE, of_sub_devices=True)
    item = WorkItem.of(MqttPublishMessage(GATEWAY_ATTRIBUTES_TOPIC, payload, route=route), resend=False)
    item.devices = devices
    return item


logger: ExtendedLogger = get_logger(__name__)

FEWEST_DEVICES = 100
"""A message has this many devices, if that many are quiet."""
MESSAGES_A_ROUND = 32
"""The number of messages for all devices, unless a message would have fewer devices than ``FEWEST_DEVICES``."""
SPREAD = 64
"""The interval between two messages is the keep-alive time divided by this: all devices take half of that time."""
EARLY = 8
"""A device is added to a message if it would be due within the keep-alive time divided by this."""
PART_OF_WINDOW = 4
"""A message takes at most this part (one in so many) of the tokens of the smallest limit window."""

LOOKED_AT_A_SECOND = 20_000
LOOKED_AT_AT_ONCE = 50_000
"""The number of devices of acknowledged messages whose last uplink is noted. At a higher rate some uplinks are not noted, so that
their devices get keep-alives that they do not need. Noting one takes 0.3 us."""


class SubDeviceKeepAlive:
    """Keeps the time of each device's last acknowledged uplink, and publishes empty attributes for quiet devices."""

    def __init__(
        self,
        config: GatewayConfig,
        payload_format: GatewayFormat,
        manager: MQTTManager,
        admission: Admission,
        tasks: Tasks,
        others_wait: Callable[[], bool],
    ) -> None:
        """Keep no device alive yet.

        Args:
            config: Has the interval.
            payload_format: Writes the empty attributes.
            manager: Publishes the messages.
            admission: Admits them.
            tasks: Owns the task that publishes them.
            others_wait: Returns whether announcements, requests or responses are queued, which are published first.
        """
        self._format = payload_format
        self._config = config
        self._manager = manager
        self._admission = admission
        self._tasks = tasks
        self._others_wait = others_wait
        self.on_refused: Callable[[list[DeviceIdentity]], None] = lambda _: None
        """Called with the devices of a refused keep-alive, whose sessions the platform may have ended."""
        # When each device's last uplink was acknowledged, by the clock of the event loop; the longest quiet device first.
        self._last_uplinks: dict[DeviceIdentity, float] = {}
        self._looks = float(LOOKED_AT_AT_ONCE)
        self._looked_at = 0.0
        self._seconds_limited = 0.0
        self._filled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._log = OccasionalLog(logger)

    def __len__(self) -> int:
        return len(self._last_uplinks)

    def announced(self, device: DeviceIdentity) -> None:
        """Note that an announcement was acknowledged. A repeated one does not extend the platform's session of the device."""
        interval = self._config.sub_device_keepalive
        if not interval or device in self._last_uplinks:
            return
        self._last_uplinks[device] = asyncio.get_running_loop().time()
        self._filled.set()
        if self._task is None:
            self._task = self._tasks.keep(self._run(interval), "sub-device keep-alive")

    def acknowledged(self, item: WorkItem) -> None:
        """Note that the platform has acknowledged a message of sub-devices."""
        if not self._last_uplinks:
            return
        now = asyncio.get_running_loop().time()
        self._looks = min(LOOKED_AT_AT_ONCE, self._looks + (now - self._looked_at) * LOOKED_AT_A_SECOND)
        self._looked_at = now
        if item.devices <= self._looks:
            self._looks -= item.devices
            self._renew(item.identities, now)

    def forget(self, device: DeviceIdentity) -> None:
        """Stop keeping a device alive that is disconnected, renamed, deleted or refused."""
        self._last_uplinks.pop(device, None)
        if not self._last_uplinks:
            self._filled.clear()

    def connection_ended(self) -> None:
        """Stop keeping devices alive, because their sessions ended with the connection."""
        self._last_uplinks.clear()
        self._filled.clear()
        if self._task is not None:
            self._tasks.cancel(self._task)
            self._task = None

    def _renew(self, devices: Iterable[DeviceIdentity], now: float) -> None:
        last_uplinks = self._last_uplinks
        for device in devices:
            if last_uplinks.pop(device, None) is not None:
                last_uplinks[device] = now

    async def _run(self, interval: float) -> None:
        while True:
            try:
                await self._keep_alive(interval)
            except Exception as error:  # noqa: BLE001  # reported with its cause: the other devices must stay reachable
                text = "Unexpected error while keeping quiet sub-devices reachable (it is tried again): %r"
                self._log.warn_of(type(error).__name__, text, error, level=logging.ERROR, error=error)
                await asyncio.sleep(interval / SPREAD)

    async def _keep_alive(self, interval: float) -> None:
        """Wait until a device is due, and publish one message."""
        await wait_for_set(self._filled)
        loop = asyncio.get_running_loop()
        due = next(iter(self._last_uplinks.values())) + interval
        if (seconds := due - loop.time()) > 0:
            await asyncio.sleep(seconds)
            return
        await self._manager.wait_writable_for_service()
        late = loop.time() - due
        if late < interval / 2 and self._others_wait():
            await asyncio.sleep(interval / SPREAD)
            return
        devices = self._quiet(loop.time() - interval + interval / EARLY)
        if not devices:
            return
        max_size = self._admission.payload_limits(of_sub_devices=True).max_payload_size
        item = keep_alive_message(*self._format.empty_attributes((device.name for device in devices), max_size))
        if seconds := self._admission.try_take(item):
            self._warn_if_late(late, interval)
            self._seconds_limited += seconds
            await self._admission.wait(seconds)
            return
        devices = devices[: item.devices]
        item.futures[0].add_done_callback(partial(self._check_result, devices))
        self._manager.publish_now(item)
        logger.debug("%d quiet sub-devices are kept reachable", len(devices))
        # If the message is refused, they are announced again.
        self._renew(devices, loop.time())
        # Keep-alives use half of a limit at most, so that other messages get the rest.
        pause, self._seconds_limited = max(interval / SPREAD, self._seconds_limited), 0.0
        await asyncio.sleep(pause)

    def _quiet(self, since: float) -> list[DeviceIdentity]:
        """Return the devices of the next message: those without an uplink since then, the longest quiet first."""
        at_most = max(FEWEST_DEVICES, -(-len(self._last_uplinks) // MESSAGES_A_ROUND))
        if largest := self._admission.largest_service_message(of_sub_devices=True):
            # Only a part of a window, so that tokens are left for announcements and responses. But more than an announcement
            # takes: otherwise the announcements, which need fewer tokens, would always be published first.
            part = max(-(-largest // PART_OF_WINDOW), FIRST_CONTACT_COST + 1)
            at_most = min(at_most, part, largest)
        first = islice(self._last_uplinks.items(), at_most)
        return [device for device, last_uplink in first if last_uplink <= since]

    def _warn_if_late(self, seconds: float, interval: float) -> None:
        if seconds > interval:
            text = "The limits admit too few messages to keep %d sub-devices reachable: one is %.0f s late"
            self._log.warn_of("late", text, len(self), seconds)

    def _check_result(self, devices: list[DeviceIdentity], future: DeliveryFuture) -> None:
        """Have devices announced again whose keep-alive was refused."""
        result = future.result()
        if result.is_successful():
            return
        logger.info("A keep-alive of %d sub-devices was refused (%s): they are announced again", len(devices), result.reason)
        known = [device for device in devices if device in self._last_uplinks]
        for device in known:
            self.forget(device)
        self.on_refused(known)
