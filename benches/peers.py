"""The peers that have an environment of their own: SDK 1.13, SDK 2.0, and the MQTT libraries paho-mqtt and aiomqtt.

``make bench`` installs them below ``.venv/peers``. They are measured as ``tb-mqtt bench`` measures: in a process that checks one
round and measures the others.
"""

import asyncio
import os
import statistics
import tempfile
from pathlib import Path

import pytest

from end_to_end import Listener
from tb_mqtt_client.bench.corpus import corpus_of
from tb_mqtt_client.bench.peers import Peer, sdk_at
from tb_mqtt_client.bench.running import Bench, Limits, Servers

ENVIRONMENTS = Path(os.environ.get("PEERS") or Path(__file__).parents[1] / ".venv" / "peers")
BY_HAND = Path(__file__).with_name("by_hand.py")
SDKS = {"SDK 1.13": "sdk1", "SDK 2.0": "sdk2"}
LIBRARIES = {"paho-mqtt": "paho", "aiomqtt": "aiomqtt"}
TIMEOUT = 300.0


def installed(name):
    """Return a peer. The test fails if it is not installed, or is skipped if it is SDK 2.0, whose sources the user has to give."""
    folder = ENVIRONMENTS / SDKS.get(name, "mqtt")
    interpreter = folder / "bin" / "python"
    if not interpreter.exists():
        if name == "SDK 2.0":
            pytest.skip("SDK 2.0 is not on the package index: make bench SDK2=/path/to/its/sources")
        pytest.fail(f"peer not installed: {name}; make bench installs it into {folder} from the package index", pytrace=False)
    if name in SDKS:
        return sdk_at(str(folder))
    return Peer(LIBRARIES[name], name, str(interpreter), worker=BY_HAND)


def measure_peer(benchmark, case, name, work, sends, *, rounds, limits=None, broker=None, program=None):
    """Measure a peer, and record the medians of the wall time and of the CPU time of its rounds.

    Args:
        benchmark: The fixture.
        case: The case that the peer has in common with this package.
        name: The peer.
        work: ``split`` or ``send``.
        sends: The data, as ``(name of the device or None, records)``.
        rounds: Measured rounds.
        limits: The limits of payloads.
        broker: Where ``send`` sends to.
        program: The program of the peer; ``None`` for one that ``installed`` finds.
    """
    peer = program or installed(name)
    corpus = corpus_of((device, data if isinstance(data, list) else [data]) for device, data in sends)

    async def measured():
        with tempfile.TemporaryDirectory() as folder:
            one = Bench(work, corpus, limits or Limits(65_000, 0), rounds, Path(folder), TIMEOUT, lambda: None)
            if broker is None:
                return await one.measure(peer)
            server = {"host": broker.host, "port": broker.port, "access_token": "t"}
            async with Listener(broker) as listener:
                checked = Bench(work, corpus, one.limits, 1, Path(folder), TIMEOUT, lambda: None)

                async def received():
                    await listener.until(len(corpus.points))
                    return [(device, ts, [(key, value)]) for (device, ts, key), value in listener.received.items()]

                first = await checked.measure(peer, Servers(server, server, received))
            if first.problem or first.unavailable:
                return first
            return await one.measure(peer, Servers(server, server, None))

    found = []
    benchmark.group = case
    benchmark.pedantic(lambda: found.append(asyncio.run(measured())), rounds=1)
    [one] = found
    if one.unavailable or one.problem:
        pytest.fail(f"{one.name}: {one.unavailable or one.problem}", pytrace=False)
    benchmark.extra_info.update(
        peer=name,
        correct=True,
        program=one.name,
        value=statistics.median(one.seconds),
        cpu_seconds=statistics.median(one.cpu_seconds),
        datapoints=corpus.datapoints,
        calls=len(corpus.sends),
    )
