"""One TCP connection: splits received bytes into packets, writes packets and closes, without interpreting packets."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

from tb_mqtt_client.emulator import codec
from tb_mqtt_client.emulator.background import Timers
from tb_mqtt_client.emulator.codec import (
    IMPLEMENTATION_SPECIFIC,
    MQTT_5,
    SERVER_SHUTTING_DOWN,
    PacketReader,
    ProtocolViolationError,
)


class Connection(asyncio.Protocol, ABC):
    """Passes packets to `_handle` in order, and writes packets.

    `report` is called with each error inside the emulator; the client is then disconnected as the platform does after an
    unexpected exception. The connection closes after `inactivity_timeout` seconds without a byte from the client; the keep
    alive interval has no effect.
    """

    def __init__(self, max_remaining_length: int, inactivity_timeout: float | None, report: Callable[[Exception], None]) -> None:
        self._report = report
        self._inactivity_timeout = inactivity_timeout
        self._last_activity = 0.0
        self._reader = PacketReader(max_remaining_length)
        self._transport: asyncio.Transport | None = None
        self.closing: bool = False
        self.level = MQTT_5
        self._loop_time = asyncio.get_running_loop().time
        self.timers: Timers = Timers()
        self.ended: asyncio.Event = asyncio.Event()

    @abstractmethod
    def _handle(self, first_byte: int, body: bytes) -> None:
        """Process one packet."""

    def _received(self) -> None:
        """Finish the processing of packets that arrived together."""

    @property
    def peer_certificate(self) -> bytes | None:
        """Return the client's certificate (DER), or None if it did not present one."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return tls.getpeercert(binary_form=True) if isinstance(tls, (ssl.SSLObject, ssl.SSLSocket)) else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Transports of uvloop have the methods of asyncio.Transport but are not instances of it.
        self._transport = cast("asyncio.Transport", transport)
        if self.closing:
            # The emulator was stopped between the accept and this call.
            self._transport.abort()
            return
        if self._inactivity_timeout is not None:
            self._last_activity = self._loop_time()
            self.timers.after(self._inactivity_timeout, self._end_if_inactive, self._inactivity_timeout)

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        self._last_activity = self._loop_time()
        self._reader.feed(data)
        self._guarded(self._handle_packets)
        self._received()

    def _handle_packets(self) -> None:
        for first_byte, body in self._reader.packets():
            self._handle(first_byte, body)
            if self.closing:
                return

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run an action that may find a violation of MQTT or raise because of an error in the emulator or a hook."""
        try:
            action()
        except ProtocolViolationError as violation:
            self.close(violation.reason_code)
        except Exception as error:  # noqa: BLE001  # reported, and raised when the emulator exits
            self._report(error)
            self.close(SERVER_SHUTTING_DOWN)

    def pause_writing(self) -> None:
        """Stop reading while the client does not read, so that unsent packets do not accumulate."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again."""
        if self._transport is not None and not self.closing:
            self._transport.resume_reading()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.closing = True
        self.timers.cancel()
        self.ended.set()

    def close(self, reason_code: int | None = None) -> None:
        """Close the connection, after a DISCONNECT if there is a reason code and the client uses MQTT 5."""
        if self.closing or self._transport is None:
            return
        if reason_code is not None and self.level >= MQTT_5:
            self.write(codec.encode_disconnect(reason_code))
        self.closing = True
        self._transport.close()

    def abort(self) -> None:
        """Close the connection immediately and discard unsent bytes."""
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    def _end_if_inactive(self, timeout: float) -> None:
        idle = self._loop_time() - self._last_activity
        if idle >= timeout:
            self.close(IMPLEMENTATION_SPECIFIC)
        else:
            self.timers.after(timeout - idle, self._end_if_inactive, timeout)

    def write(self, packet: bytes) -> None:
        """Write bytes, unless the connection is closing."""
        if self._transport is not None and not self.closing:
            self._transport.write(packet)
