"""The packet identifiers of one connection.

The rule: an identifier is free again when the acknowledgement of its own kind has come, and by nothing else.
"""

from __future__ import annotations

from typing import Final

from tb_mqtt_client.common.exceptions import BackpressureException
from tb_mqtt_client.common.mqtt_packets import PacketType

LARGEST_ID: Final = 0xFFFF


class PacketIds:
    """Takes the place of gmqtt's generator, which frees whatever identifier any acknowledgement names."""

    def __init__(self) -> None:
        self._last = 0
        self._awaited: dict[int, int] = {}

    def next_id(self) -> int:
        """Take the next free identifier, for a PUBLISH. All others come before one is used again.

        Raises:
            BackpressureException: All 65,535 are in flight.
        """
        awaited = self._awaited
        if len(awaited) >= LARGEST_ID:
            raise BackpressureException(f"all {LARGEST_ID:,} packet ids are in flight; publish again when some are acknowledged")
        packet_id = self._last % LARGEST_ID + 1
        while packet_id in awaited:
            packet_id = packet_id % LARGEST_ID + 1
        self._last = packet_id
        awaited[packet_id] = PacketType.PUBACK
        return packet_id

    def await_answer(self, packet_id: int, kind: PacketType) -> None:
        """Say that an identifier was used for another packet than a PUBLISH, and which acknowledgement that gets."""
        self._awaited[packet_id] = kind

    def acknowledge(self, packet_id: int, kind: PacketType) -> bool:
        """Free an identifier. Return False, and change nothing, unless this kind of acknowledgement is awaited for it."""
        if self._awaited.get(packet_id) != kind:
            return False
        del self._awaited[packet_id]
        return True
