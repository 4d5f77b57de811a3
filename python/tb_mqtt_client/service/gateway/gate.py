"""Decides which sub-devices' data may be published.

The rule: data of a device is held back until the platform has acknowledged the announcement of the device, and rejected if the
announcement was refused permanently. Otherwise the platform would create the device with the wrong profile, or a second time
(docs/platform_contract.md, section 4).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from tb_mqtt_client._native import DeviceIdentity
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.service.delivery.lanes import DROPPED_FIRST, HeldSends, Oldest, is_undecided
from tb_mqtt_client.service.delivery.terms import Lane
from tb_mqtt_client.service.delivery.work_item import ENCODED, Queued, QueuedUplink, WorkItem

LARGE_SEND_BYTES = 65_536
"""The encoded bytes that a send is assumed to have when the share is checked in advance."""


class RefusedShare:
    """Counts the data that is held back for devices that were refused and are to be announced again."""

    def __init__(self, max_messages: int = sys.maxsize, max_bytes: int = sys.maxsize, at_once: int = 0) -> None:
        """Create the share: half of the queue.

        Args:
            max_messages: Sends that the queue holds.
            max_bytes: Encoded bytes that the queue holds.
            at_once: Sends that may be accepted before they count.
        """
        self._max_messages = max(1, max_messages // 2)
        self._max_bytes = max_bytes // 2
        self._at_once = at_once
        self.messages: int = 0
        self.bytes: int = 0
        self.on_change: Callable[[bool], None] = lambda _: None
        """Called after a change, with whether each send has to be checked because the share may soon be used up."""

    @property
    def is_used_up(self) -> bool:
        """Whether the share is used up, so that further data of refused devices has to wait or is dropped."""
        return self.messages >= self._max_messages or self.bytes >= self._max_bytes

    def update(self, refused_devices: int, messages: int, nbytes: int) -> None:
        """Count sends that are held back.

        Args:
            refused_devices: The number of devices that are refused.
            messages: The number of sends; negative if they are no longer held back.
            nbytes: Their encoded bytes, with the same sign.
        """
        self.messages += messages
        self.bytes += nbytes
        is_near = (
            self.messages + self._at_once >= self._max_messages or self.bytes + self._at_once * LARGE_SEND_BYTES >= self._max_bytes
        )
        self.on_change(refused_devices > 0 and is_near)


@dataclass(slots=True)
class Held:
    """Data that is held back for one device."""

    uplinks: HeldSends = field(default_factory=HeldSends)
    messages: list[WorkItem] = field(default_factory=list)
    """Messages without datapoints."""
    packed: list[WorkItem] = field(default_factory=list)
    """Messages with datapoints of this device only. They are packed already, and older than the sends in ``uplinks``."""

    def __bool__(self) -> bool:
        return bool(self.uplinks or self.messages or self.packed)

    def items(self) -> list[Queued]:
        """Return all held data, the oldest first."""
        return [*self.packed, *self.uplinks, *self.messages]

    @property
    def nbytes(self) -> int:
        """The encoded bytes of the held sends."""
        return sum(uplink[ENCODED].nbytes for uplink in self.uplinks)


class DeviceGate:
    """Keeps the devices that are being announced, refused, renamed or deleted. Data of all other devices may be published.

    A device that was refused temporarily is both held (its data waits) and blocked (nothing waits for its announcement) until it is
    accepted or given up.
    """

    def __init__(self, share: RefusedShare) -> None:
        """Create a gate that lets all data pass.

        Args:
            share: Counts the data of devices that are refused temporarily.
        """
        self.share = share
        self._held: dict[DeviceIdentity, Held] = {}
        self._refused: dict[DeviceIdentity, PublishResult] = {}
        self._failed: set[DeviceIdentity] = set()
        self._moved: dict[DeviceIdentity, DeviceIdentity | None] = {}
        self._changed = asyncio.Event()

    @property
    def watches(self) -> bool:
        """Whether there is a device whose data may not be published, or not under the name under which it was sent."""
        return bool(self._held or self._refused or self._moved)

    @property
    def moved(self) -> bool:
        """Whether a device was renamed or deleted."""
        return bool(self._moved)

    def hold(self, device: DeviceIdentity) -> None:
        """Hold back data of a device that is being announced."""
        self._refused.pop(device, None)
        self._moved.pop(device, None)
        self._held.setdefault(device, Held())

    def release(self, device: DeviceIdentity) -> Held:
        """End holding data of a device whose announcement was acknowledged; return the held data."""
        self._refused.pop(device, None)
        return self._let_go(device)

    def fail(self, device: DeviceIdentity) -> None:
        """Hold back data of a device that was refused temporarily, and wake tasks that wait for its announcement."""
        self.hold(device)
        if device not in self._failed:
            held = self._held[device]
            self._failed.add(device)
            self._count(len(held.uplinks), held.nbytes)
        self._changed.set()

    def refuse(self, device: DeviceIdentity, result: PublishResult) -> Held:
        """Block a device whose announcement was refused permanently; return its held data. Later data gets the same result."""
        self._refused[device] = result
        return self._let_go(device)

    def move(self, device: DeviceIdentity, to: DeviceIdentity | None) -> Held:
        """Note that a device was renamed or deleted, and return its held data.

        Args:
            device: The old name.
            to: The new name; ``None`` if the device was deleted.
        """
        if to is not None:
            # The new name is current now, even if it was an old name before: names must not form a circle.
            self._moved.pop(to, None)
        if to != device:
            self._moved[device] = to
        self._refused.pop(device, None)
        return self._let_go(device)

    def forget_moved(self) -> None:
        """Forget old names: nothing is left that was queued under them."""
        self._moved.clear()

    def blocks(self, device: DeviceIdentity) -> bool:
        """Return True if a device was refused, permanently or temporarily."""
        return device in self._failed or device in self._refused

    def lets_pass(self, device: DeviceIdentity) -> bool:
        """Return True if data of a device may be published: the device is neither being announced nor refused."""
        return device not in self._held and device not in self._refused

    def is_free(self, device: DeviceIdentity) -> bool:
        """Return True if data of a device may be queued for packing as it is: nothing is to be decided about the device."""
        # In place of `watches`, since every send of a sub-device passes here.
        if not (self._held or self._refused or self._moved):
            return True
        return self.lets_pass(device) and device not in self._moved

    def fails(self, device: DeviceIdentity) -> bool:
        """Return True if a device was refused temporarily, and is to be announced again."""
        return self.current(device) in self._failed

    def keep(self, device: DeviceIdentity, uplink: QueuedUplink, *, is_older: bool = False) -> bool:
        """Hold a send back if its device is being announced; return whether it is.

        Args:
            device: The device.
            uplink: The send.
            is_older: Whether the send is older than those of the device that are held back.
        """
        held = self._held.get(device)
        if held is None:
            return False
        if is_older:
            held.uplinks.prepend(uplink)
        else:
            held.uplinks.append(uplink)
        if device in self._failed:
            self._count(1, uplink[ENCODED].nbytes)
        return True

    def oldest(self, lanes: Sequence[Lane] = DROPPED_FIRST, *, of_refused: bool = False) -> Oldest | None:
        """Return the send that is held back in these lanes and that a full queue drops first; ``None`` if there is none."""
        devices: Iterable[DeviceIdentity] = self._failed if of_refused else self._held
        firsts = [(oldest, device) for device in devices if (oldest := self._held[device].uplinks.oldest(lanes)) is not None]
        if not firsts:
            return None
        (place, take), device = min(firsts, key=lambda first: first[0][0])
        return place, partial(self._take_oldest, device, take)

    def forget_decided(self) -> None:
        """Remove held sends whose outcome is decided."""
        self.take_uplinks(lambda uplink: not is_undecided(uplink))

    def _take_oldest(self, device: DeviceIdentity, take: Callable[[], QueuedUplink]) -> QueuedUplink:
        uplink = take()
        if device in self._failed:
            self._count(-1, -uplink[ENCODED].nbytes)
        return uplink

    def _count(self, messages: int, nbytes: int) -> None:
        self.share.update(len(self._failed), messages, nbytes)

    def current(self, device: DeviceIdentity) -> DeviceIdentity | None:
        """Return the current name of a device; ``None`` if it was deleted."""
        found: DeviceIdentity | None = device
        while found in self._moved:
            found = self._moved[found]
        return found

    def held(self, device: DeviceIdentity) -> Held | None:
        """Return the held data of a device that is being announced; ``None`` for other devices."""
        return self._held.get(device)

    def refusal(self, device: DeviceIdentity) -> PublishResult | None:
        """Return the result with which a device was refused permanently; ``None`` for other devices."""
        return self._refused.get(device)

    def all_held(self) -> list[Held]:
        """Return the held data of all devices."""
        return list(self._held.values())

    def remove_first(self, matches: Callable[[WorkItem], bool]) -> WorkItem | None:
        """Remove and return a message without datapoints that matches; ``None`` if none does."""
        for held in self._held.values():
            for item in held.messages:
                if matches(item):
                    held.messages.remove(item)
                    return item
        return None

    def take_uplinks(self, matches: Callable[[QueuedUplink], bool]) -> list[QueuedUplink]:
        """Remove and return the held sends that match, in the order of each device."""
        taken: list[QueuedUplink] = []
        for device, held in self._held.items():
            found = held.uplinks.remove_all(matches)
            if found:
                if device in self._failed:
                    self._count(-len(found), -sum([uplink[ENCODED].nbytes for uplink in found]))
                taken += found
        return taken

    def remove_uplink(self, matches: Callable[[QueuedUplink], bool]) -> QueuedUplink | None:
        """Remove and return a send that is held back and matches; ``None`` if none does."""
        for device, held in self._held.items():
            found = next((uplink for uplink in held.uplinks if matches(uplink)), None)
            if found is not None:
                held.uplinks.remove(found)
                if device in self._failed:
                    self._count(-1, -found[ENCODED].nbytes)
                return found
        return None

    def take_all(self) -> list[Held]:
        """Remove and return the held data of all devices. The devices stay held or blocked."""
        taken = self.all_held()
        self._held = {device: Held() for device in self._held}
        self._count(-self.share.messages, -self.share.bytes)
        self._changed.set()
        return taken

    async def wait_changed(self) -> None:
        """Wait until a device is accepted or refused, or until ``wake`` is called."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        """Wake all waiters, which check again."""
        self._changed.set()

    async def wait_announced(self, devices: Iterable[DeviceIdentity]) -> None:
        """Wait until all of these devices are announced, or one of them is refused, without a time limit."""
        names = list(devices)
        while any(device in self._held for device in names) and not any(map(self.blocks, names)):
            self._changed.clear()
            await self._changed.wait()

    def _let_go(self, device: DeviceIdentity) -> Held:
        held = self._held.pop(device, None) or Held()
        if device in self._failed:
            self._failed.remove(device)
            self._count(-len(held.uplinks), -held.nbytes)
        self._changed.set()
        return held
