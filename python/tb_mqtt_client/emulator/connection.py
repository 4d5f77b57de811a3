"""One TCP connection: bytes to packets, and its end. Knows nothing of what the packets mean."""

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
    """Feeds packets to `_handle` in their order, and writes what it is given.

    `report` is called with an error inside the emulator; the client then gets what it gets when the platform meets an exception.
    Without a byte from the client for `inactivity_timeout` seconds the connection ends; keep alive is not looked at.
    """

    def __init__(self, max_remaining_length: int, inactivity_timeout: float | None, report: Callable[[Exception], None]) -> None:
        self._report = report
        self._inactivity_timeout = inactivity_timeout
        self._last_activity = 0.0
        self._reader = PacketReader(max_remaining_length)
        self._transport: asyncio.Transport | None = None
        self.closing = False
        self.level = MQTT_5
        self._loop_time = asyncio.get_running_loop().time
        self.timers = Timers()
        self.ended = asyncio.Event()

    @abstractmethod
    def _handle(self, first_byte: int, body: bytes) -> None:
        """Answer one packet."""

    def _received(self) -> None:
        """Called when all packets that arrived together are processed."""

    @property
    def peer_certificate(self) -> bytes | None:
        """The client's certificate (DER), if it presented one that the TLS context trusts."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return tls.getpeercert(binary_form=True) if isinstance(tls, (ssl.SSLObject, ssl.SSLSocket)) else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A transport of uvloop has the methods of an asyncio.Transport and not its type.
        self._transport = cast("asyncio.Transport", transport)
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
        """Run what may meet a violation of MQTT, or a mistake of the emulator or of a hook."""
        try:
            action()
        except ProtocolViolationError as violation:
            self.close(violation.reason_code)
        except Exception as error:  # noqa: BLE001  # reported to whoever runs the emulator, and raised at its end
            self._report(error)
            self.close(SERVER_SHUTTING_DOWN)

    def pause_writing(self) -> None:
        """The client does not read: neither does the emulator, so that answers do not pile up."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and not self.closing:
            self._transport.resume_reading()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.closing = True
        self.timers.cancel()
        self.ended.set()

    def close(self, reason_code: int | None = None) -> None:
        """Close, after a DISCONNECT when a reason is given and the client speaks MQTT 5."""
        if self.closing or self._transport is None:
            return
        if reason_code is not None and self.level >= MQTT_5:
            self.write(codec.encode_disconnect(reason_code))
        self.closing = True
        self._transport.close()

    def abort(self) -> None:
        """End at once, whatever is unsent."""
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
        if self._transport is not None and not self.closing:
            self._transport.write(packet)
