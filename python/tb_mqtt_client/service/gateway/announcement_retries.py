"""Decides when a sub-device is announced again that the platform refused temporarily."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from tb_mqtt_client.common.config_loader import GatewayConfig
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.timing import Timetable
from tb_mqtt_client.constants.reason_codes import ReasonCode
from tb_mqtt_client.service.gateway.device_session import DeviceSession

FINAL_REFUSALS = frozenset(
    {
        ReasonCode.MALFORMED_PACKET,
        ReasonCode.PROTOCOL_ERROR,
        ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR,
        ReasonCode.NOT_AUTHORIZED,
        ReasonCode.TOPIC_NAME_INVALID,
        ReasonCode.PACKET_TOO_LARGE,
        ReasonCode.PAYLOAD_FORMAT_INVALID,
    }
)
"""Reason codes of permanent refusals. All others may be temporary: the platform sends 0x80 when its database is not available
(and for names that it never accepts), and 0x97 when the tenant has reached its limit of devices (docs/platform_contract.md,
section 4)."""


@dataclass(slots=True)
class Refused:
    """The refusals of one device whose announcement is repeated."""

    since: float
    """When the device was refused first, by the clock of the event loop."""
    result: PublishResult
    """The last refusal."""
    attempts: int = 0
    """The number of refusals."""
    ends_connections: bool = False
    """Whether the server may have ended connections for its announcement."""
    next_attempt: float = 0.0
    """When the device is to be announced again, by the clock of the event loop."""

    def seconds(self) -> float:
        """Return for how many seconds the device has been refused."""
        return asyncio.get_running_loop().time() - self.since


class AnnouncementRetries:
    """Counts the refusals of each device, and calls a function when the device is to be announced again."""

    def __init__(self, config: GatewayConfig, on_due: Callable[[DeviceSession], None], is_announcing: Callable[[], bool]) -> None:
        """Create an empty collection.

        Args:
            config: The delays between announcements, and the bounds of their number and time.
            on_due: Announces a device.
            is_announcing: Returns whether an announcement is in flight. A device that may end connections is not announced then.
        """
        self._config = config
        self._refused: dict[DeviceSession, Refused] = {}
        self._on_due = on_due
        self.due: Timetable[DeviceSession] = Timetable(self._is_due)
        """When each device is to be announced again."""
        self._is_announcing = is_announcing
        # Devices that may end connections are announced one at a time and after all others, so that it shows which of them does.
        self.waiting: dict[DeviceSession, None] = {}

    def get(self, session: DeviceSession) -> Refused | None:
        """Return the refusals of a device; ``None`` if it was not refused, or accepted or given up since."""
        return self._refused.get(session)

    def __len__(self) -> int:
        return len(self._refused)

    def refused(self, session: DeviceSession, result: PublishResult, *, ends_connections: bool = False) -> float | None:
        """Count a refusal.

        Args:
            session: The device.
            result: The result of its announcement.
            ends_connections: Whether the server may have ended connections because of it. Such a device is announced again on the
                next connection, see ``postpone``.

        Returns:
            The seconds until the next attempt; ``None`` if the device is given up.
        """
        now = asyncio.get_running_loop().time()
        refused = self._refused.setdefault(session, Refused(now, result))
        refused.result = result
        if not ends_connections or refused.ends_connections:
            # The first time, other announcements were in flight too, which are as likely to be why the connection ended.
            refused.attempts += 1
        refused.ends_connections = refused.ends_connections or ends_connections
        delay = self._delay(refused)
        refused.next_attempt = now + delay
        if self.is_hopeless(refused):
            return None
        if not ends_connections:
            self.due.set(session, delay)
        return delay

    def postpone(self, session: DeviceSession) -> bool:
        """Announce a device later, after the devices that are announced on a new connection, if it may end connections.

        Returns:
            Whether the device may end connections.
        """
        refused = self._refused.get(session)
        if refused is None or not refused.ends_connections:
            return False
        # The devices keep their order, so that none of them prevents another from being announced.
        left = max(0.0, refused.next_attempt - asyncio.get_running_loop().time())
        self.due.set(session, self._config.announce_delay_min + left)
        return True

    def announcement_done(self) -> None:
        """Announce the next device that waited until no other announcement was in flight."""
        while self.waiting and not self._is_announcing():
            session = next(iter(self.waiting))
            del self.waiting[session]
            self._on_due(session)

    def _is_due(self, session: DeviceSession) -> None:
        refused = self._refused.get(session)
        if refused is not None and refused.ends_connections and self._is_announcing():
            self.waiting[session] = None
        else:
            self._on_due(session)

    def is_hopeless(self, refused: Refused) -> bool:
        """Return True if the user's bound of attempts or time is reached."""
        attempts, timeout = self._config.announce_attempts, self._config.announce_timeout
        return (attempts is not None and refused.attempts >= attempts) or (timeout is not None and refused.seconds() >= timeout)

    def _delay(self, refused: Refused) -> float:
        longest = max(self._config.announce_delay_min, self._config.announce_delay_max)
        # The exponent is bounded: a device may be refused for years.
        bound = min(longest, self._config.announce_delay_min * 2.0 ** min(max(0, refused.attempts - 1), 64))
        # At least half of the bound, so that no delay is shorter than the one before.
        delay = random.uniform(bound / 2, bound)  # spreads the announcements of many devices
        timeout = self._config.announce_timeout
        return delay if timeout is None else min(delay, timeout - refused.seconds())

    def announced(self, session: DeviceSession) -> None:
        """Forget the time of a device's next attempt, because it is being announced now."""
        self.due.remove(session)
        self.waiting.pop(session, None)

    def forget(self, session: DeviceSession) -> Refused | None:
        """Forget a device that was accepted, given up or removed; return its refusals, or ``None``."""
        self.announced(session)
        return self._refused.pop(session, None)

    def pause(self) -> None:
        """Forget the times of the next attempts, because the connection ended: all devices are announced on the next one."""
        self.due.clear()
        self.waiting.clear()
