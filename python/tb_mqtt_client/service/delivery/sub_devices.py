"""The seam between delivery and a gateway's sub-devices: the protocols of both sides. A plain device has no filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tb_mqtt_client._native import DeviceIdentity
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.service.delivery.lanes import Oldest
from tb_mqtt_client.service.delivery.terms import Lane
from tb_mqtt_client.service.delivery.work_item import Queued, QueuedUplink, WorkItem


class SubDeviceFilter(Protocol):
    """Holds back data of sub-devices that are not announced, and applies renames and deletions of devices to queued data."""

    @property
    def is_share_used_up(self) -> bool:
        """Whether data of refused devices takes all of the queue that it may take."""

    @property
    def held_for_refused(self) -> int:
        """The number of sends that stay in the queue for as long as the platform refuses their devices."""

    @property
    def bytes_for_refused(self) -> int:
        """The encoded bytes of these sends."""

    @property
    def has_moved(self) -> bool:
        """Whether a device was renamed or deleted while data of it was queued."""

    @property
    def holds_data(self) -> bool:
        """Whether anything is held back."""

    def watch_share(self, on_change: Callable[[bool], None]) -> None:
        """Call `on_change` whenever the share changes, with whether each send has to be checked against it."""

    @property
    def are_all_free(self) -> bool:
        """Whether nothing has to be decided about the data of any device."""

    def is_free(self, device: DeviceIdentity) -> bool:
        """Return whether nothing has to be decided about the data of a device, which may be queued for packing as it is."""

    def is_refused(self, device: DeviceIdentity) -> bool:
        """Return whether a device was refused and is to be announced again."""

    def oldest(self, lanes: Sequence[Lane]) -> Oldest | None:
        """Return the send that is held back in these lanes and that a full queue drops first."""

    def oldest_of_refused(self) -> Oldest | None:
        """Return the send that is held back for a refused device and that a full queue drops first."""

    def put_found(self, uplinks: list[QueuedUplink]) -> None:
        """Queue sends that were read from the store, or hold them back. Devices that are not known are registered and announced."""

    def take_uplinks(self, matches: Callable[[QueuedUplink], bool]) -> list[QueuedUplink]:
        """Remove and return the sends that are held back and match."""

    def put_uplinks(self, uplinks: list[QueuedUplink]) -> None:
        """Queue sends, or hold them back."""

    def put_message(self, item: WorkItem) -> None:
        """Queue a message without datapoints, or hold it back."""

    def keep_back(self, item: WorkItem) -> bool:
        """Take a message that is about to be published if its devices are not announced; return whether it was taken."""

    def follow(self, item: WorkItem) -> bool:
        """Take a message that is about to be published if a device in it was renamed or deleted; return whether it was taken."""

    def rename(self, item: WorkItem, old: DeviceIdentity, new: DeviceIdentity) -> None:
        """Rewrite the payload of a message of one device under another name."""

    def acknowledged(self, item: WorkItem) -> None:
        """Note that the platform has acknowledged a message."""

    def remove_first(self, matches: Callable[[WorkItem], bool]) -> WorkItem | None:
        """Remove and return a message without datapoints that is held back and matches; ``None`` if none does."""

    def remove_uplink(self, matches: Callable[[QueuedUplink], bool]) -> QueuedUplink | None:
        """Remove and return a send that is held back and matches; ``None`` if none does."""

    def held(self) -> list[Queued]:
        """Return everything that is held back."""

    def take_held(self) -> list[Queued]:
        """Remove and return everything that is held back."""

    def forget_decided(self) -> None:
        """Remove held sends whose outcome is decided."""

    def forget_moved(self) -> None:
        """Forget old names: no data of them is left in the queues."""

    def wake(self) -> None:
        """Wake everything that waits for a change; it checks again."""

    async def wait_changed(self) -> None:
        """Wait until a device is accepted or refused, or until `wake` is called."""

    async def wait_announced(self, item: WorkItem) -> None:
        """Wait until all devices of a message have been announced in this session."""


class Pipeline(Protocol):
    """The part of the delivery pipeline that the component for sub-devices uses."""

    def queue_uplinks(self, uplinks: list[QueuedUplink]) -> None:
        """Queue sends of sub-devices for publishing."""

    def take_queued_uplinks(self) -> list[QueuedUplink]:
        """Remove and return the queued sends of sub-devices."""

    def queue_message(self, item: WorkItem) -> None:
        """Queue a message without datapoints for publishing."""

    def take_queued_messages(self) -> list[WorkItem]:
        """Remove and return the queued messages without datapoints, announcements excepted."""

    def publish_again(self, item: WorkItem) -> None:
        """Queue a message with datapoints before all others."""

    def check_packed_again(self) -> None:
        """Have packed data checked for devices that are not announced, which uplink workers do not check."""

    def send_in_parts(self, item: WorkItem) -> bool:
        """Replace a message of several devices by one for each; return False for a message of one device."""

    def undelivered(self, item: Queued) -> None:
        """Resolve a send or message as not delivered."""

    def rejected(self, item: Queued, announcement: PublishResult) -> None:
        """Resolve a send or message with the refusal of its device's announcement."""

    def note_removed(self) -> None:
        """Check whether the queues are empty now."""
