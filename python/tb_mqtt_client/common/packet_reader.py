"""Cuts the bytes of a connection into MQTT packets.

The rule: the work for a packet grows with its size, in however many pieces it arrives, and a packet over the limit is refused when
its length is known, before its bytes are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tb_mqtt_client.common.mqtt_packets import NotMqttError
from tb_mqtt_client.constants.reason_codes import ReasonCode

SMALLEST_PACKET: Final = 2
LONGEST_HEADER: Final = 5
"""The first byte and a remaining length of four bytes (MQTT 5, section 1.5.5)."""
CONTINUED: Final = 0x80
"""Set in each byte of a length but the last."""


class PacketReader:
    """Keeps the packet that has not arrived whole."""

    def __init__(self, max_packet_size: int) -> None:
        self._max_packet_size = max_packet_size
        self._unread = bytearray()
        self._wanted = 0

    def read(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the first byte and the body of each packet that is complete with ``data``.

        Raises:
            NotMqttError: A length is malformed, or a packet is larger than the limit.
        """
        if self._unread:
            self._unread += data
            if len(self._unread) < self._wanted:
                return
            data = bytes(self._unread)
            self._unread.clear()
        position, end = 0, len(data)
        while end - position >= SMALLEST_PACKET:
            body, size = position + 2, data[position + 1]
            if size & CONTINUED:
                body, size = self._long_length(data, position)
            stop = body + size
            if stop - position > self._max_packet_size:
                raise NotMqttError(
                    f"a packet of {stop - position:,} bytes is larger than the {self._max_packet_size:,} that this client accepts",
                    ReasonCode.PACKET_TOO_LARGE,
                )
            if stop > end:
                break
            yield data[position], data[body:stop]
            position = stop
        if position < end:
            self._keep(data, position)

    def _keep(self, data: bytes, position: int) -> None:
        """Keep the beginning of a packet, and how many bytes make it worth another look."""
        self._unread += data[position:]
        self._wanted = len(self._unread) + 1
        if len(self._unread) >= SMALLEST_PACKET:
            body, size = self._long_length(self._unread, 0)
            self._wanted = max(self._wanted, body + size)

    @staticmethod
    def _long_length(data: bytes | bytearray, position: int) -> tuple[int, int]:
        """Return where the body of a packet begins, and its size; for a length that has not arrived whole, more than is there."""
        size = 0
        for index in range(1, LONGEST_HEADER):
            if position + index >= len(data):
                return position + index + 1, 0
            byte = data[position + index]
            size |= (byte & ~CONTINUED) << (7 * (index - 1))
            if not byte & CONTINUED:
                return position + index + 1, size
        raise NotMqttError("the length of a packet has more than four bytes")
