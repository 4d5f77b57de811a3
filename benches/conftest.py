"""What every benchmark holds to: a release build, the same collector settings for all peers, and a result that is right."""

import gc

import pytest

from tb_mqtt_client import _native

pytest_plugins = ["mosquitto_broker"]


def pytest_configure():
    if _native.build_profile != "release":
        pytest.exit("the extension is a debug build: benchmarks need `make bench`, which builds in release mode", returncode=2)


@pytest.fixture(autouse=True)
def _quiet_collector():
    """What earlier benchmarks left must not be collected on the time of this one."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def measure(benchmark):
    """Run one peer of one case; ``correct`` is judged on its result before anything is timed."""

    def run(case, peer, work, correct, **facts):
        assert correct(work()), f"{peer} gave a wrong result for {case}"
        benchmark.group = case
        benchmark.extra_info.update(peer=peer, correct=True, **facts)
        return benchmark(work)

    return run


@pytest.fixture
def broker(mosquitto):
    """Mosquitto as a server that keeps no log, and is otherwise as the platform: it takes as many unacknowledged publishes as come,
    and its sockets have TCP_NODELAY. Without that option its last PUBACKs may come 40 ms late, to a peer that does not force them.
    """
    mosquitto.stop()
    mosquitto.options, mosquitto.log_type = "max_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\n", "none"
    mosquitto.start()
    return mosquitto
