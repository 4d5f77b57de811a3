"""Faults injected during a soak, one after the other, in an order that depends on a seed."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from two_addresses import TwoAddresses

from faulty_link import FaultyLink
from tb_mqtt_client.emulator import Emulator, Publish, RateLimits, SessionLimits, Verdict

TELEMETRY, CONNECT = "v1/gateway/telemetry", "v1/gateway/connect"
DISCONNECTS = (None, 0x00, 0x83, 0x8B, 0x8E, 0x97)
UNSPECIFIED_ERROR = 0x80
QUOTA_EXCEEDED = 0x97
PAYLOAD_FORMAT_INVALID = 0x99
"""The only allowed reason for rejected data; network and server faults must not reject data."""
NONSENSE = (
    b"\xff\xff\xff\xff\xff\xff",  # a packet without an end
    b"\x20\x03\x00\x00\x00",  # a second CONNACK
    b"\x30\x02\x00\x09",  # a PUBLISH that ends too early
    b"\x36\x06\x00\x01a\x00\x01\x00",  # a PUBLISH of QoS 3
    b"\x40\x00",  # a PUBACK without an id
    b"\x40\x06\xff\xff\x00\x02\x7f\x00",  # with an unknown property
    b"\x90\x03\xff\xff\x00",  # a SUBACK without codes
    b"\x50\x02\xff\xff",  # a PUBREC for no publish
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
)
"""Bytes that a server never sends; none of them acknowledges a message."""


LIMITS_REPLIES = (
    None, True, 7, [], "x", {},
    {"maxPayloadSize": 2**70}, {"maxPayloadSize": -1}, {"maxPayloadSize": "large"}, {"maxInflightMessages": 0},
    {"rateLimits": None}, {"rateLimits": {"messages": 200}}, {"rateLimits": {"telemetryMessages": "10"}},
    {"rateLimits": {"telemetryDataPoints": "99999999999999999999999:1"}}, {"rateLimits": {"messages": "5:0"}},
    {"gatewayRateLimits": {"telemetryMessages": [1]}}, {"gatewayRateLimits": {"telemetryDataPoints": "1000000:1,,"}},
)  # fmt: skip
"""Invalid and partially invalid replies to getSessionLimits."""
UNANNOUNCED_LIMITS = (
    {"telemetry_datapoints": "20000:1"},
    {"telemetry_datapoints": "50000:1,300000:10"},
    {"telemetry_messages": "20:1"},
    {"messages": "100:1", "telemetry_datapoints": "30000:1"},
)
OVER_LIMIT = ("platform", "refuse", "close")


class Faults:
    """Injects faults into the link, the emulator and its replies. ``done`` counts the faults by name."""

    def __init__(
        self, seed: int, link: FaultyLink, addresses: TwoAddresses, emulator: Emulator, gateway: str, ack_timeout: float
    ) -> None:
        """Prepare the faults; ``gateway`` is the device name of the client."""
        self._random = random.Random(seed)
        self._link = link
        self._addresses = addresses
        self._emulator = emulator
        self._gateway = gateway
        self._ack_timeout = ack_timeout
        self._topics = (TELEMETRY, CONNECT)
        self._verdict: Callable[[], Verdict] | None = None
        self.done: Counter[str] = Counter()

    async def run(self) -> None:
        """Inject faults until cancelled."""
        faults: list[Callable[[], Awaitable[None]]] = [
            self._cut, self._freeze, self._half_open, self._restart, self._delay_pubacks,
            self._swallow_puback, self._refuse_temporarily, self._refuse_permanently, self._disconnect, self._send_nonsense,
            self._close_all_connections, self._limit_without_notice, self._misreport_limits, self._slow_down, self._lose_an_address,
            self._block_the_loop, self._fail_to_take,
        ]  # fmt: skip
        self._emulator.on_publish = self._judge
        while True:
            # Each round injects all faults in a random order, so that a soak of one minute covers most of them.
            for fault in self._random.sample(faults, len(faults)):
                await asyncio.sleep(self._random.expovariate(1.0))
                await fault()
                self.done[fault.__name__.removeprefix("_")] += 1

    def end(self) -> None:
        """Remove all faults."""
        self._emulator.on_publish = self._emulator.on_client_rpc = None
        self._emulator.limits = SessionLimits()
        self._emulator.over_limit = "platform"
        self._link.rate = None
        self._addresses.dead_first = False
        self._link.thaw()
        self._link.cut()

    def _judge(self, publish: Publish) -> Verdict | None:
        if self._verdict is None or publish.topic not in self._topics:
            return None
        return self._verdict()

    async def _cut(self) -> None:
        self._link.cut()

    async def _freeze(self) -> None:
        self._link.freeze()
        await asyncio.sleep(self._random.uniform(0, self._ack_timeout / 2))
        self._link.thaw()

    async def _half_open(self) -> None:
        """Drop packets silently; only missing acknowledgements show it."""
        self._link.silence()
        try:
            await asyncio.sleep(2 * self._ack_timeout)
        finally:
            # Until then new connections do not respond either.
            self._link.cut()

    async def _restart(self) -> None:
        await self._emulator.stop()
        try:
            await asyncio.sleep(self._random.uniform(0, 0.3))
        finally:
            await self._emulator.start()

    async def _delay_pubacks(self) -> None:
        self._verdict = lambda: Verdict.delay(self._random.uniform(0, self._ack_timeout / 4))
        await asyncio.sleep(1)
        self._verdict = None

    def _once(self, make: Callable[[], Verdict]) -> None:
        def judge() -> Verdict:
            self._verdict, self._topics = None, (TELEMETRY, CONNECT)
            return make()

        self._verdict = judge

    async def _swallow_puback(self) -> None:
        self._once(lambda: Verdict.ignore(store=self._random.random() < 0.5))
        await asyncio.sleep(2 * self._ack_timeout)

    async def _refuse_temporarily(self) -> None:
        self._once(lambda: Verdict.refuse(QUOTA_EXCEEDED))

    async def _refuse_permanently(self) -> None:
        # The client does not retry a device whose connect message is refused permanently, so these are not refused.
        self._topics = (TELEMETRY,)
        self._once(lambda: Verdict.refuse(PAYLOAD_FORMAT_INVALID))

    async def _fail_to_take(self) -> None:
        """Take no data for a while, as without the platform's message queue."""
        self._topics = (TELEMETRY,)
        self._verdict = lambda: Verdict.refuse(UNSPECIFIED_ERROR, closes=True)
        await asyncio.sleep(self._random.uniform(0, 2))
        self._verdict, self._topics = None, (TELEMETRY, CONNECT)

    async def _disconnect(self) -> None:
        self._once(lambda: Verdict.close(self._random.choice(DISCONNECTS), store=self._random.random() < 0.5))

    async def _close_all_connections(self) -> None:
        """Close each connection at its first data, without a reason; no message causes it."""
        self._verdict = lambda: Verdict.close(None, store=self._random.random() < 0.5)
        await asyncio.sleep(self._random.uniform(0, 2))
        self._verdict = None

    async def _limit_without_notice(self) -> None:
        """Enforce a limit of the tenant, which is not announced."""
        self._emulator.over_limit = self._random.choice(OVER_LIMIT)
        self._emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(**self._random.choice(UNANNOUNCED_LIMITS)))
        await asyncio.sleep(self._random.uniform(0, 6))
        self._emulator.limits = SessionLimits()

    async def _misreport_limits(self) -> None:
        """Send an invalid reply to getSessionLimits on each connection."""
        self._emulator.on_client_rpc = lambda *_: self._random.choice(LIMITS_REPLIES)
        self._emulator.limits = None
        self._link.cut()
        await asyncio.sleep(self._random.uniform(0, 2))
        self._emulator.limits = SessionLimits()
        self._link.cut()

    async def _slow_down(self) -> None:
        """Slow the link down to a modem's rate, so that buffers fill."""
        self._link.rate = self._random.choice((5_000, 50_000, 500_000))
        await asyncio.sleep(self._random.uniform(0, 4))
        self._link.rate = None

    async def _lose_an_address(self) -> None:
        """Make the first of the server's two addresses unresponsive."""
        self._addresses.dead_first = True
        self._link.cut()
        await asyncio.sleep(self._random.uniform(0, 2))
        self._addresses.dead_first = False

    async def _block_the_loop(self) -> None:
        """Block the event loop for longer than the acknowledgement timeout, as computation or a suspended machine does."""
        time.sleep(self._random.uniform(0, 2 * self._ack_timeout))  # noqa: ASYNC251  # this is the fault

    async def _send_nonsense(self) -> None:
        session = self._emulator.device(self._gateway).session
        if session is not None:
            session.write(self._random.choice(NONSENSE))
