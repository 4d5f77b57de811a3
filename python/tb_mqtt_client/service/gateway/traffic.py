"""What is queued for a gateway's sub-devices, and follows them when they are announced, refused, renamed or deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tb_mqtt_client._native import DeviceIdentity, dumps
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.queue import AsyncDeque
from tb_mqtt_client.service.delivery.packing import Queued, QueuedUplink
from tb_mqtt_client.service.gateway.gate import DeviceGate, Held


class SubDeviceTraffic:
    """The way of calls to the gateway's queue, and of messages without datapoints to the service queue."""

    def __init__(
        self,
        queue: AsyncDeque[QueuedUplink],
        queue_message: Callable[[MqttPublishMessage], None],
        answer_undelivered: Callable[[Queued], None],
        reject: Callable[[Queued, PublishResult], None],
        send_in_parts: Callable[[MqttPublishMessage], bool],
        publish_again: Callable[[MqttPublishMessage], None],
        gate: DeviceGate | None = None,
    ) -> None:
        """``answer_undelivered`` and ``reject`` (with a refused announcement) answer what will not be sent.

        ``send_in_parts`` replaces a message of several devices by one for each, and is false when there is only one.
        """
        self.gate = gate or DeviceGate()
        self.on_acknowledged: Callable[[MqttPublishMessage], None] = lambda _: None
        """Called with messages of sub-devices that the platform has acknowledged."""
        self._queue = queue
        self._queue_message = queue_message
        self._answer_undelivered = answer_undelivered
        self._reject = reject
        self._send_in_parts = send_in_parts
        self._publish_again = publish_again

    def put_uplinks(self, uplinks: list[QueuedUplink]) -> None:
        """Queue calls."""
        if self.gate.watches:
            uplinks = [passed for uplink in uplinks if (passed := self._passed(uplink)) is not None]
        self._queue.append_all(uplinks)

    def put_message(self, message: MqttPublishMessage) -> None:
        """Queue a message without datapoints that has to wait until its device is announced."""
        device = message.device
        held = self.gate.held(device) if device is not None else None
        refusal = self.gate.refusal(device) if device is not None else None
        if device is not None and self.gate.current(device) is None:
            self._answer_undelivered(message)
        elif held is not None:
            held.messages.append(message)
        elif refusal is not None:
            self._reject(message, refusal)
        else:
            self._queue_message(message)

    def hold(self, device: DeviceIdentity) -> None:
        """A device is announced: keep back what is of it, until ``release`` or ``refuse``."""
        self.gate.hold(device)

    def hold_all(self, devices: Iterable[DeviceIdentity]) -> None:
        """All devices have to be announced again: keep back what is queued, too."""
        for device in devices:
            self.hold(device)
        self.put_uplinks(self._queue.pop_now(len(self._queue)))

    def release(self, device: DeviceIdentity) -> None:
        """The announcement was acknowledged: queue what was kept back."""
        self._put(self.gate.release(device))

    def refuse(self, device: DeviceIdentity, announcement: PublishResult) -> None:
        """The announcement was refused: answer what was kept back, and what comes, with the same reason."""
        held = self.gate.refuse(device, announcement)
        waiting: list[Queued] = [*held.packed, *held.uplinks, *held.messages]
        for item in waiting:
            self._reject(item, announcement)

    def abandon(self, device: DeviceIdentity, announcement: PublishResult) -> None:
        """Reject held data of a refused device that the program has disconnected; later data is answered as not delivered."""
        if self.gate.current(device) != device:
            # It was renamed or deleted, and its data has gone with that.
            return
        self.refuse(device, announcement)
        self.gate.move(device, None)

    def move(self, device: DeviceIdentity, to: DeviceIdentity | None) -> None:
        """A device was renamed, or deleted (``None``): what waits goes under the new name, or is answered as not delivered."""
        held = self.gate.move(device, to)
        # What was queued for the old name is older than what is queued for the new one.
        queued = self._queue.pop_now(len(self._queue))
        self._put(held)
        self.put_uplinks(queued)

    def follow(self, message: MqttPublishMessage) -> bool:
        """Deal with a message that is about to be published and has a device in it that was renamed or deleted since.

        False when there is none. What asks under an old name may go: the platform knows it until the connection ends.
        """
        if not self.gate.moved:
            return False
        devices = devices_of(message)
        current = [self.gate.current(device) for device in devices]
        if current == devices or (message.is_service_message and None not in current):
            return False
        if message.is_service_message or not self._send_in_parts(message):
            [device], [name_of_now] = devices, current
            if name_of_now is None:
                self._answer_undelivered(message)
            else:
                rename(message, device, name_of_now)
                self._publish_again(message)
        return True

    def keep_back(self, message: MqttPublishMessage) -> bool:
        """Deal with a message that is about to be published and has a device in it that is being announced, or was refused.

        False when there is none. A message of several devices is replaced by one for each, so that the others' data goes on.
        """
        if not self.gate.watches:
            return False
        devices = devices_of(message)
        if all(map(self.gate.lets_pass, devices)):
            return False
        if message.is_service_message:
            self.put_message(message)
        elif not self._send_in_parts(message):
            [device] = devices
            held, refusal = self.gate.held(device), self.gate.refusal(device)
            if held is not None:
                held.packed.append(message)
            else:
                assert refusal is not None
                self._reject(message, refusal)
        return True

    async def wait_announced(self, message: MqttPublishMessage) -> None:
        """Wait until all devices that a message is of have been announced in this session."""
        await self.gate.wait_announced(devices_of(message))

    def _passed(self, uplink: QueuedUplink) -> QueuedUplink | None:
        """The call, under its device's name of now, if it may be packed; when not, it is kept back or answered."""
        encoded, delivery, number = uplink
        device = encoded.device
        if device is None:
            return uplink
        current = self.gate.current(device)
        if current is None:
            self._answer_undelivered(uplink)
            return None
        if current != device:
            uplink = encoded.with_device(current), delivery, number
        if self.gate.keep(current, uplink):
            return None
        refusal = self.gate.refusal(current)
        if refusal is None:
            return uplink
        self._reject(uplink, refusal)
        return None

    def _put(self, held: Held) -> None:
        # Each goes before all others, so the last one first.
        for message in reversed(held.packed):
            self._publish_again(message)
        self.put_uplinks(list(held.uplinks))
        for message in held.messages:
            self.put_message(message)


def devices_of(message: MqttPublishMessage) -> list[DeviceIdentity]:
    """The sub-devices that a message is of."""
    if message.device is not None:
        return [message.device]
    return message.packed.device_identities() if message.packed is not None else []


def rename(message: MqttPublishMessage, device: DeviceIdentity, to: DeviceIdentity) -> None:
    """Rewrite a single-device payload under the new device name. It begins with ``{"name":``.

    What is packed keeps the old name: parts of the message are renamed when it is cut.
    """
    assert isinstance(message.payload, bytes)
    message.payload = b"{" + dumps(to.name) + message.payload[1 + len(dumps(device.name)) :]
    message.payload_size = len(message.payload)
    message.device = to
