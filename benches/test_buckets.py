"""Taking tokens of a rate limit."""

from tb_mqtt_client import _native

CALLS = 1000


def test_take(measure, benchmark):
    """Two windows; the time includes the loop around the take."""
    take = _native.TokenBuckets([(10**12, 1.0), (10**14, 60.0)], 0).take

    def work():
        for _ in range(CALLS):
            refusal = take(1, 1)
        return refusal

    measure("taking tokens from a limit with two windows, one call", "native", work, lambda refusal: refusal is None)
    benchmark.extra_info["value"] = benchmark.stats.stats.median / CALLS * 1e9
