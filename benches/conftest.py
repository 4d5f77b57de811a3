"""Rules of all benchmarks: a release build, the same garbage collector settings for all peers, and a checked result."""

import gc
import statistics
import time

import pytest

import in_turns
from tb_mqtt_client import _native

pytest_plugins = ["mosquitto_broker"]


def pytest_configure():
    if _native.build_profile != "release":
        pytest.exit("the extension is a debug build: benchmarks need `make bench`, which builds in release mode", returncode=2)


@pytest.fixture(autouse=True)
def _quiet_collector():
    """Freeze objects of earlier benchmarks, so that their collection does not count in this one."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def measure(benchmark):
    """Run one peer of one case; ``correct`` checks its result before anything is timed.

    ``in_turns_with`` is the name of the test module and the peer with which the row is measured in turns, see `in_turns`.
    """

    def run(case, peer, work, correct, in_turns_with=None, **facts):
        assert correct(work()), f"{peer} gave a wrong result for {case}"
        if in_turns_with is not None:
            module, other = in_turns_with
            facts["in_turns"] = {other: in_turns.ratios(module, case)}
        benchmark.group = case
        benchmark.extra_info.update(peer=peer, correct=True, **facts)
        measured = benchmark(work)
        benchmark.extra_info["cpu_seconds"] = cpu_seconds(work)
        return measured

    return run


def cpu_seconds(work, rounds=5, shortest=0.01):
    """Return the CPU time of one call of a function: the median of some rounds, which are not too short to measure."""
    found = []
    for _ in range(rounds):
        calls, began = 0, time.process_time()
        while time.process_time() - began < shortest:
            work()
            calls += 1
        found.append((time.process_time() - began) / calls)
    return statistics.median(found)


@pytest.fixture
def broker(mosquitto):
    """Mosquitto without a log and with settings of the platform: no limit of unacknowledged publishes, and TCP_NODELAY.

    Without that option its last PUBACKs may come 40 ms late if the peer does not force them.
    """
    mosquitto.stop()
    mosquitto.options, mosquitto.log_type = "max_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\n", "none"
    mosquitto.start()
    return mosquitto
