"""Where calls with datapoints come in: at once while there is room, and by the user's policy when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.exceptions import BackpressureException, NotConnectedError
from tb_mqtt_client.common.queue import AsyncDeque, QueueRoom
from tb_mqtt_client.constants.option_values import QueuePolicy
from tb_mqtt_client.service.delivery.packing import QueuedUplink
from tb_mqtt_client.service.delivery.receipts import Receipts
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.sub_devices import SubDevices


class Entrance:
    """Puts calls into the initial queue. Each gets a future for its ``PublishResult``."""

    def __init__(
        self,
        initial_queue: AsyncDeque[Any],
        room: QueueRoom,
        counter: DeliveryCounter,
        receipts: Receipts,
        policy: QueuePolicy,
        calls_a_turn: int,
        take_oldest: Callable[[], QueuedUplink | None],
    ) -> None:
        """``take_oldest`` takes the oldest call of which nothing is packed so far out of its queue.

        After ``calls_a_turn`` calls the other tasks of the loop get their turn.
        """
        self._initial_queue = initial_queue
        self._room = room
        self._counter = counter
        self._receipts = receipts
        self._policy = policy
        self._calls_a_turn = self._calls_until_accept = calls_a_turn
        self._sub_devices: SubDevices | None = None
        self._closed = False
        self._take_oldest = take_oldest
        self._accepted = 0
        self._create_future: Callable[[], Delivery] = _no_loop
        self._failure = ""

    def plug_in(self, sub_devices: SubDevices) -> None:
        """Let data of refused devices take its share of the queue only."""
        self._sub_devices = sub_devices
        self._room.set_aside = lambda: sub_devices.held_for_refused
        sub_devices.watch_share(self._share_changed)

    def open(self) -> None:
        """Accept calls of the running loop."""
        self._failure = ""
        self._create_future = asyncio.get_running_loop().create_future
        self._closed = False
        self._room.open()

    def close(self) -> None:
        """Those who wait for room get a ``NotConnectedError``."""
        self._closed = True
        self._room.close()
        if self._sub_devices is not None:
            self._sub_devices.wake()

    def fail(self, failure: str) -> None:
        """Accept nothing until ``open``: sends get a ``NotConnectedError`` that says why."""
        self._failure = failure
        # Asked here, and not at each send, so that a healthy client pays nothing for it.
        self._create_future = self._refuse
        self.close()

    @property
    def has_failed(self) -> bool:
        """Whether ``fail`` was called since the last ``open``."""
        return bool(self._failure)

    def require_open(self) -> None:
        """Raise ``NotConnectedError`` after ``fail``."""
        if self._failure:
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotConnectedError(self._failure)

    def try_accept(self, encoded: EncodedUplink) -> Delivery | None:
        """Accept a call's datapoints if nothing has to be waited for.

        No coroutine: most calls come this way, and what they cost is what a program that does not wait pays.
        """
        # Now and then the caller has to let the loops run: a producer that awaits nothing cannot starve them.
        if self._accepted % self._calls_until_accept == 0 or not self._room.try_take(encoded.nbytes):
            return None
        return self._accept(encoded)

    async def accept(self, encoded: EncodedUplink) -> Delivery:
        """The same for a call that may have to wait. What happens when there is no room is the user's choice: ``QueuePolicy``.

        Raises ``BackpressureException`` when that is the choice, ``NotConnectedError`` when the client is stopped meanwhile.
        """
        if self._accepted % self._calls_until_accept == 0:
            await asyncio.sleep(0)
        sub_devices = self._sub_devices
        if sub_devices is not None and sub_devices.is_share_used_up and not await self._has_share(encoded, sub_devices):
            return self._dropped(encoded)
        if self._room.try_take(encoded.nbytes) or await self._make_room(encoded.nbytes):
            return self._accept(encoded)
        return self._dropped(encoded)

    def _share_changed(self, looks: bool) -> None:
        """Let every send come through ``accept``, which recognizes sends of refused devices, or only some again."""
        self._calls_until_accept = 1 if looks else self._calls_a_turn
        # All that is queued may be data of refused devices by now.
        self._room.wake_first()

    async def _has_share(self, encoded: EncodedUplink, sub_devices: SubDevices) -> bool:
        """Whether a send may take room, as far as its device is concerned. A refused one has to wait, by the policy."""
        device = encoded.device
        while device is not None and sub_devices.is_share_used_up and sub_devices.is_refused(device):
            if self._policy is QueuePolicy.RAISE:
                text = f"The platform refuses device {device.name!r}, and data of refused devices takes half of the queue already"
                raise BackpressureException(text)
            if self._policy is QueuePolicy.DROP_NEWEST:
                return False
            if self._policy is QueuePolicy.DROP_OLDEST and (oldest := sub_devices.oldest_of_refused()) is not None:
                self._drop(oldest[1]())
                continue
            await sub_devices.wait_changed()
            if self._closed:
                raise NotConnectedError("the client was stopped while this call waited for room in its queue")
        return True

    def _dropped(self, encoded: EncodedUplink) -> Delivery:
        delivery = self._create_future()
        self._counter.accept(encoded.datapoints)
        self._receipts.dropped(encoded, delivery)
        return delivery

    def _drop(self, uplink: QueuedUplink) -> None:
        encoded, delivery, _ = uplink
        self._room.give_back(1, encoded.nbytes)
        self._receipts.dropped(encoded, delivery)

    def _accept(self, encoded: EncodedUplink) -> Delivery:
        try:
            delivery = self._create_future()
        except NotConnectedError:
            self._room.give_back(1, encoded.nbytes)
            raise
        self._counter.accept(encoded.datapoints)
        self._accepted += 1
        # A number costs memory, and only this policy has to know who came first.
        number = self._accepted if self._policy is QueuePolicy.DROP_OLDEST else 0
        self._initial_queue.append((encoded, delivery, number))
        return delivery

    async def _make_room(self, nbytes: int) -> bool:
        """Whether there is room now, and was taken."""
        if self._policy is QueuePolicy.RAISE:
            raise BackpressureException
        if self._policy is QueuePolicy.DROP_NEWEST:
            return False
        if self._policy is QueuePolicy.DROP_OLDEST:
            while (oldest := self._take_oldest()) is not None:
                self._drop(oldest)
                if self._room.try_take(nbytes):
                    return True
        await self._room.take(nbytes)
        return True


def _no_loop() -> Delivery:
    raise RuntimeError("the service was not started")
