"""What goes wrong during a soak: one fault after the other, drawn from a seed."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from faulty_link import FaultyLink
from tb_mqtt_client.emulator import Emulator, Publish, Verdict

TELEMETRY, CONNECT = "v1/gateway/telemetry", "v1/gateway/connect"
DISCONNECTS = (None, 0x00, 0x83, 0x8B, 0x8E, 0x97)
QUOTA_EXCEEDED = 0x97
PAYLOAD_FORMAT_INVALID = 0x99
NONSENSE = (
    b"\xff\xff\xff\xff\xff\xff",  # a packet without an end
    b"\x20\x03\x00\x00\x00",  # a second CONNACK
    b"\x30\x02\x00\x09",  # a PUBLISH that ends too early
    b"\x36\x06\x00\x01a\x00\x01\x00",  # a PUBLISH of QoS 3
    b"\x40\x00",  # a PUBACK without an id
    b"\x40\x06\xff\xff\x00\x02\x7f\x00",  # with an unknown property
    b"\x90\x03\xff\xff\x00",  # a SUBACK without codes
    b"\x50\x02\xff\xff",  # a PUBREC nobody asked for
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
)
"""What a server never says; none of it acknowledges anything."""


class Faults:
    """Breaks the link, the emulator, or what the emulator answers. ``done`` counts what was done."""

    def __init__(self, seed: int, link: FaultyLink, emulator: Emulator, gateway: str, ack_timeout: float) -> None:
        """``gateway`` is the name of the client's device."""
        self._random = random.Random(seed)
        self._link = link
        self._emulator = emulator
        self._gateway = gateway
        self._ack_timeout = ack_timeout
        self._topics = (TELEMETRY, CONNECT)
        self._verdict: Callable[[], Verdict] | None = None
        self.done: Counter[str] = Counter()

    async def run(self) -> None:
        """Until cancelled."""
        faults: list[Callable[[], Awaitable[None]]] = [
            self._cut, self._freeze, self._half_open, self._restart, self._delay_pubacks,
            self._swallow_puback, self._refuse_for_now, self._refuse_for_good, self._disconnect, self._talk_nonsense,
        ]  # fmt: skip
        self._emulator.on_publish = self._judge
        while True:
            await asyncio.sleep(self._random.expovariate(1.0))
            fault = self._random.choice(faults)
            await fault()
            self.done[fault.__name__.removeprefix("_")] += 1

    def end(self) -> None:
        """Nothing goes wrong any more."""
        self._emulator.on_publish = None
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
        """Only the missing acknowledgements tell."""
        self._link.silence()
        try:
            await asyncio.sleep(2 * self._ack_timeout)
        finally:
            # New connections are silent too until then.
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

    async def _refuse_for_now(self) -> None:
        self._once(lambda: Verdict.refuse(QUOTA_EXCEEDED))

    async def _refuse_for_good(self) -> None:
        # A device whose connect is refused for good is refused for the rest of its session: too much for a soak.
        self._topics = (TELEMETRY,)
        self._once(lambda: Verdict.refuse(PAYLOAD_FORMAT_INVALID))

    async def _disconnect(self) -> None:
        self._once(lambda: Verdict.close(self._random.choice(DISCONNECTS), store=self._random.random() < 0.5))

    async def _talk_nonsense(self) -> None:
        session = self._emulator.device(self._gateway).session
        if session is not None:
            session.write(self._random.choice(NONSENSE))
