"""Route data of sub-devices: the component that a gateway plugs into delivery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tb_mqtt_client._native import DeviceIdentity
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.service.delivery.lanes import Oldest
from tb_mqtt_client.service.delivery.sub_devices import Pipeline
from tb_mqtt_client.service.delivery.terms import Lane
from tb_mqtt_client.service.delivery.work_item import ENCODED, Queued, QueuedUplink, WorkItem
from tb_mqtt_client.service.formats.protocol import GatewayFormat
from tb_mqtt_client.service.gateway.gate import DeviceGate, Held


class SubDeviceTraffic:
    """Routes sends of sub-devices to the gateway uplink queue and their other messages to the service queue, or holds them back."""

    def __init__(
        self, pipeline: Pipeline, gate: DeviceGate, payload_format: GatewayFormat, on_acknowledged: Callable[[WorkItem], None]
    ) -> None:
        """Create the component.

        Args:
            pipeline: The delivery pipeline that the component is plugged into.
            gate: Knows whose data may be published, and keeps the data of the other devices.
            payload_format: Renames devices in payloads.
            on_acknowledged: Called with messages of sub-devices that the platform has acknowledged.
        """
        self._pipeline = pipeline
        self._format = payload_format
        self.gate = gate
        self._on_acknowledged = on_acknowledged
        self.identity_of_found: Callable[[DeviceIdentity], DeviceIdentity] = lambda device: device
        """Returns the current name and profile of a device of which data was found in the store, and announces a new one."""

    @property
    def is_share_used_up(self) -> bool:
        """Whether data of refused devices takes all of the queue that it may take."""
        return self.gate.share.is_used_up

    @property
    def held_for_refused(self) -> int:
        """The number of sends that stay in the queue for as long as the platform refuses their devices."""
        return self.gate.share.messages

    @property
    def bytes_for_refused(self) -> int:
        """The encoded bytes of these sends."""
        return self.gate.share.bytes

    @property
    def has_moved(self) -> bool:
        """Whether a device was renamed or deleted while data of it was queued."""
        return self.gate.moved

    @property
    def holds_data(self) -> bool:
        """Whether anything is held back."""
        return any(self.gate.all_held())

    def watch_share(self, on_change: Callable[[bool], None]) -> None:
        """Call `on_change` whenever the share changes, with whether each send has to be checked against it."""
        self.gate.share.on_change = on_change

    @property
    def are_all_free(self) -> bool:
        """Whether nothing has to be decided about the data of any device."""
        return not self.gate.watches

    def is_free(self, device: DeviceIdentity) -> bool:
        """Return whether nothing has to be decided about the data of a device."""
        return self.gate.is_free(device)

    def is_refused(self, device: DeviceIdentity) -> bool:
        """Return whether a device was refused and is to be announced again."""
        return self.gate.fails(device)

    def oldest(self, lanes: Sequence[Lane]) -> Oldest | None:
        """Return the send that is held back in these lanes and that a full queue drops first."""
        return self.gate.oldest(lanes)

    def oldest_of_refused(self) -> Oldest | None:
        """Return the send that is held back for a refused device and that a full queue drops first."""
        return self.gate.oldest(of_refused=True)

    def put_found(self, uplinks: list[QueuedUplink]) -> None:
        """Queue sends that were read from the store, or hold them back. Devices that are not known are registered and announced."""
        devices = {device for encoded, _, _, _ in uplinks if (device := encoded.device) is not None}
        # A deleted device is not registered again: its data is undelivered.
        renamed = {
            device: now
            for device in devices
            if self.gate.current(device) is not None and (now := self.identity_of_found(device)) != device
        }
        if renamed:
            uplinks = [_of_current_device(uplink, renamed) for uplink in uplinks]
        self.put_uplinks(uplinks)

    def take_uplinks(self, matches: Callable[[QueuedUplink], bool]) -> list[QueuedUplink]:
        """Remove and return the sends that are held back and match."""
        return self.gate.take_uplinks(matches)

    def put_uplinks(self, uplinks: list[QueuedUplink]) -> None:
        """Queue sends, or hold them back."""
        if self.gate.watches:
            uplinks = [passed for uplink in uplinks if (passed := self._passed(uplink)) is not None]
        self._pipeline.queue_uplinks(uplinks)

    def put_message(self, item: WorkItem) -> None:
        """Queue a message without datapoints, or hold it back until its device is announced."""
        device = item.device
        held = self.gate.held(device) if device is not None else None
        refusal = self.gate.refusal(device) if device is not None else None
        if device is not None and self.gate.current(device) is None:
            self._pipeline.undelivered(item)
        elif held is not None:
            held.messages.append(item)
        elif refusal is not None:
            self._pipeline.rejected(item, refusal)
        else:
            self._pipeline.queue_message(item)

    def hold(self, device: DeviceIdentity) -> None:
        """Hold back data of a device that is being announced, until `release`, `fail` or `refuse`."""
        self.gate.hold(device)

    def hold_all(self, devices: Iterable[DeviceIdentity]) -> None:
        """Hold back data of all devices, queued data included: all of them have to be announced again."""
        for device in devices:
            self.hold(device)
        self._queue_again(self._pipeline.take_queued_uplinks())
        for message in self._pipeline.take_queued_messages():
            self.put_message(message)
        self._pipeline.note_removed()

    def release(self, device: DeviceIdentity) -> None:
        """Queue the data of a device whose announcement was acknowledged."""
        self._put(self.gate.release(device))

    def fail(self, device: DeviceIdentity) -> None:
        """Hold back data of a device that was refused temporarily, packed data included."""
        self.gate.fail(device)
        self._pipeline.check_packed_again()

    def refuse(self, device: DeviceIdentity, announcement: PublishResult) -> None:
        """Reject data of a device whose announcement was refused, with the same reason: held data, and data that comes later."""
        self._reject_held(device, announcement)
        self._pipeline.check_packed_again()
        self._pipeline.note_removed()

    def abandon(self, device: DeviceIdentity, announcement: PublishResult) -> None:
        """Reject held data of a refused device that the program has disconnected; later data is undelivered."""
        # Data of a renamed or deleted device was moved or resolved before.
        if self.gate.current(device) == device:
            self._reject_held(device, announcement)
            self.gate.move(device, None)
        self._pipeline.check_packed_again()
        self._pipeline.note_removed()

    def move(self, device: DeviceIdentity, to: DeviceIdentity | None) -> None:
        """Queue data of a renamed device under its new name, or resolve it as undelivered if the device was deleted.

        Args:
            device: The old name.
            to: The new name; ``None`` for a deleted device.
        """
        held = self.gate.move(device, to)
        queued = self._pipeline.take_queued_uplinks()
        # Data that was queued under the old name is older than held data, and that is older than data under the new name.
        for uplink in reversed([uplink for uplink in queued if uplink[ENCODED].device == device]):
            held.uplinks.prepend(uplink)
        self._put(held)
        self._queue_again([uplink for uplink in queued if uplink[ENCODED].device != device])
        self._pipeline.note_removed()

    def follow(self, item: WorkItem) -> bool:
        """Take a message that is about to be published if a device in it was renamed or deleted; return whether it was taken.

        A request under an old name may be published: the platform knows the name until the connection ends.
        """
        if not self.gate.moved:
            return False
        devices = item.identities
        current = [self.gate.current(device) for device in devices]
        if current == devices or (not item.has_datapoints and None not in current):
            return False
        if not item.has_datapoints or not self._pipeline.send_in_parts(item):
            [device], [new] = devices, current
            if new is None:
                self._pipeline.undelivered(item)
            else:
                self.rename(item, device, new)
                self._pipeline.publish_again(item)
        return True

    def keep_back(self, item: WorkItem) -> bool:
        """Take a message that is about to be published if a device in it is not announced; return whether it was taken.

        A message of several devices is replaced by one for each, so that the data of the others is published.
        """
        if not self.gate.watches:
            return False
        devices = item.identities
        if all(map(self.gate.lets_pass, devices)):
            return False
        if not item.has_datapoints:
            self.put_message(item)
        elif not self._pipeline.send_in_parts(item):
            [device] = devices
            held, refusal = self.gate.held(device), self.gate.refusal(device)
            if held is not None:
                held.packed.append(item)
            else:
                assert refusal is not None
                self._pipeline.rejected(item, refusal)
        return True

    def rename(self, item: WorkItem, old: DeviceIdentity, new: DeviceIdentity) -> None:
        """Rewrite the payload of a message of one device under another name."""
        assert isinstance(item.message.payload, bytes)
        item.rewrite(self._format.rename(item.message.payload, old.name, new.name), new)

    def acknowledged(self, item: WorkItem) -> None:
        """Note that the platform has acknowledged a message."""
        if item.packed is not None or item.device is not None:
            self._on_acknowledged(item)

    def remove_first(self, matches: Callable[[WorkItem], bool]) -> WorkItem | None:
        """Remove and return a message without datapoints that is held back and matches; ``None`` if none does."""
        return self.gate.remove_first(matches)

    def remove_uplink(self, matches: Callable[[QueuedUplink], bool]) -> QueuedUplink | None:
        """Remove and return a send that is held back and matches; ``None`` if none does."""
        return self.gate.remove_uplink(matches)

    def held(self) -> list[Queued]:
        """Return everything that is held back."""
        return [item for held in self.gate.all_held() for item in held.items()]

    def take_held(self) -> list[Queued]:
        """Remove and return everything that is held back."""
        return [item for held in self.gate.take_all() for item in held.items()]

    def forget_decided(self) -> None:
        """Remove held sends whose outcome is decided."""
        self.gate.forget_decided()

    def forget_moved(self) -> None:
        """Forget old names: no data of them is left in the queues."""
        self.gate.forget_moved()

    def wake(self) -> None:
        """Wake everything that waits for a change; it checks again."""
        self.gate.wake()

    async def wait_changed(self) -> None:
        """Wait until a device is accepted or refused, or until `wake` is called."""
        await self.gate.wait_changed()

    async def wait_announced(self, item: WorkItem) -> None:
        """Wait until all devices of a message have been announced in this session."""
        await self.gate.wait_announced(item.identities)

    def _queue_again(self, uplinks: list[QueuedUplink]) -> None:
        """Queue sends that were queued before, or hold them back: they are older than those that are held back."""
        checked = [self._passed(uplink, is_older=True) for uplink in reversed(uplinks)]
        self._pipeline.queue_uplinks([uplink for uplink in reversed(checked) if uplink is not None])

    def _passed(self, uplink: QueuedUplink, *, is_older: bool = False) -> QueuedUplink | None:
        """Return a send under its device's current name if it may be packed; otherwise hold it back or resolve it."""
        encoded, delivery, number, terms = uplink
        device = encoded.device
        if device is None:
            return uplink
        current = self.gate.current(device)
        if current is None:
            self._pipeline.undelivered(uplink)
            return None
        if current != device:
            uplink = encoded.with_device(current), delivery, number, terms
        if self.gate.keep(current, uplink, is_older=is_older):
            return None
        refusal = self.gate.refusal(current)
        if refusal is None:
            return uplink
        self._pipeline.rejected(uplink, refusal)
        return None

    def _reject_held(self, device: DeviceIdentity, announcement: PublishResult) -> None:
        for item in self.gate.refuse(device, announcement).items():
            self._pipeline.rejected(item, announcement)

    def _put(self, held: Held) -> None:
        # Each is queued before all others, so the last one comes first.
        for message in reversed(held.packed):
            self._pipeline.publish_again(message)
        self.put_uplinks(list(held.uplinks))
        for message in held.messages:
            self.put_message(message)


def _of_current_device(uplink: QueuedUplink, renamed: dict[DeviceIdentity, DeviceIdentity]) -> QueuedUplink:
    encoded, receipt, number, terms = uplink
    device = encoded.device
    return uplink if device not in renamed else (encoded.with_device(renamed[device]), receipt, number, terms)
