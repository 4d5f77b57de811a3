"""Prometheus metrics have every number of ``Statistics``, conventional names, and labels for several clients."""

import re
from dataclasses import fields

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tb_mqtt_client.exported_metrics import METRICS
from tb_mqtt_client.metrics import ClientMetrics
from tb_mqtt_client.service.delivery.delays import Delays
from tb_mqtt_client.service.delivery.statistics import DELIVERY_STATES, DeliveryCounter, Statistics


class FakeClient:
    def __init__(self, client_id, statistics=None, **others):
        self.statistics = statistics or Statistics()
        self.others = {"client_id": client_id, "host": "h", "port": 1883, "connected": True, "ready": True, "limited": False}
        self.others |= {"since": 1_700_000_000_500, "oldest_seconds": None, "delays": Delays().as_dict()} | others

    def health(self):
        return self.others | self.statistics.as_dict()


@pytest.fixture
def registry():
    return CollectorRegistry()


def samples(registry):
    """Return values by the name of the sample, the client id and, if there is one, the reason code."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            own = [sample.labels[name] for name in ("reason_code", "limit", "le") if name in sample.labels]
            key = (sample.name, sample.labels["client_id"], *own)
            assert key not in found
            found[key] = sample.value
    return found


def test_every_number_of_the_statistics_is_a_metric():
    shown = {metric.field for metric in METRICS}
    numbers = {one.name for one in fields(Statistics)} - {"last_disconnect"}
    assert numbers <= shown


def test_names_follow_the_conventions_of_prometheus(registry):
    ClientMetrics(FakeClient("a", devices=3), registry=registry)
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        assert re.fullmatch(r"tb_mqtt_client_[a-z_]+", family.name)
        assert family.documentation
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert sample.name.endswith(("_bucket", "_count", "_sum")) == (family.type == "histogram")
        if "seconds" in family.name or "bytes" in family.name:
            assert family.name.endswith(("_seconds", "_bytes"))


def test_several_clients_share_one_registry(registry):
    first = FakeClient("a", Statistics(accepted=5, acknowledged=3, queued=2, seconds_limited=1.5, rejected_by_reason={}))
    second = FakeClient("b", Statistics(accepted=7, rejected=7, rejected_by_reason={0x97: 4, 0x99: 3}), connected=False, since=None)
    metrics = ClientMetrics(first, registry=registry)
    metrics.add(second)
    found = samples(registry)
    assert found["tb_mqtt_client_accepted_datapoints_total", "a"] == 5
    assert found["tb_mqtt_client_accepted_datapoints_total", "b"] == 7
    assert found["tb_mqtt_client_queued_datapoints", "a"] == 2
    assert found["tb_mqtt_client_limited_seconds_total", "a"] == 1.5
    assert found["tb_mqtt_client_rejected_datapoints_by_reason_total", "b", "151"] == 4
    assert found["tb_mqtt_client_rejected_datapoints_by_reason_total", "b", "153"] == 3
    assert (found["tb_mqtt_client_connected", "a"], found["tb_mqtt_client_connected", "b"]) == (1, 0)
    assert found["tb_mqtt_client_connection_changed_timestamp_seconds", "a"] == 1_700_000_000.5
    assert ("tb_mqtt_client_connection_changed_timestamp_seconds", "b") not in found
    assert ("tb_mqtt_client_sub_devices", "a") not in found


def test_numbers_are_read_at_each_scrape(registry):
    counter = DeliveryCounter()
    client = FakeClient("a")
    ClientMetrics(client, registry=registry)
    assert samples(registry)["tb_mqtt_client_accepted_datapoints_total", "a"] == 0
    counter.accept(4)
    client.statistics = counter.snapshot()
    assert samples(registry)["tb_mqtt_client_accepted_datapoints_total", "a"] == 4


def test_a_removed_client_is_not_shown(registry):
    first, second = FakeClient("a"), FakeClient("b")
    metrics = ClientMetrics(first, second, registry=registry)
    metrics.remove(first)
    assert {client for _, client, *_ in samples(registry)} == {"b"}
    with pytest.raises(ValueError, match="client was not added"):
        metrics.remove(first)
    metrics.add(first)
    metrics.close()
    assert samples(registry) == {}
    ClientMetrics(first, registry=registry)


def test_two_clients_with_the_same_labels_are_refused(registry):
    client = FakeClient("a")
    metrics = ClientMetrics(client, registry=registry)
    metrics.add(client)
    with pytest.raises(ValueError, match=r"client: another client with .* is already exported"):
        metrics.add(FakeClient("a"))
    metrics.add(FakeClient("a", port=1884))


def test_a_registry_has_one_collector(registry):
    ClientMetrics(registry=registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        ClientMetrics(registry=registry)
    assert ClientMetrics(registry=None)


def test_the_shown_end_states_add_up_to_the_accepted_datapoints(registry):
    counter = DeliveryCounter()
    counter.accept(100)
    counter.publish(60, 0, 1000, 2000)
    counter.acknowledge(30)
    counter.refuse(10, 0, 0x99)
    counter.drop(5)
    counter.leave_undelivered(5)
    statistics = counter.snapshot()
    ClientMetrics(FakeClient("a", statistics), registry=registry)
    found = samples(registry)
    names = {state: f"tb_mqtt_client_{state}_datapoints" for state in DELIVERY_STATES}
    values = [found.get((f"{name}_total", "a"), found.get((name, "a"))) for name in names.values()]
    assert sum(values) == found["tb_mqtt_client_accepted_datapoints_total", "a"] == 100
    assert str(statistics) == "accepted=100 acknowledged=30 rejected=10 dropped=5 undelivered=5 queued=30 in_flight=20"


def test_learned_limits_the_age_and_the_delays_are_shown(registry):
    delays = Delays()
    delays.queue.observe(0.2)
    delays.queue.observe(4000.0)
    learned = {"limit": "device telemetry datapoints", "per_second": 98.0, "estimate": 100.0, "source": "PUBACK", "refusals": 3}
    limits = {"max_payload_size": 65_507, "learned": [learned, learned | {"limit": "device messages", "per_second": None}]}
    store = {"bytes": 7, "unwritten_sends": 1, "backlog_sends": 2, "commits": 5, "error": "the disk is full"}
    client = FakeClient("a", limits=limits, oldest_seconds=12.5, delays=delays.as_dict(), store=store)
    ClientMetrics(client, FakeClient("b", store=None), registry=registry)
    found = samples(registry)
    prefix = "tb_mqtt_client_"
    assert found[f"{prefix}learned_limit_per_second", "a", "device telemetry datapoints"] == 98
    assert (f"{prefix}learned_limit_per_second", "a", "device messages") not in found
    assert found[f"{prefix}learned_limit_refusals_total", "a", "device messages"] == 3
    assert (found[f"{prefix}oldest_datapoint_seconds", "a"], found[f"{prefix}oldest_datapoint_seconds", "b"]) == (12.5, 0)
    assert found[f"{prefix}queue_delay_seconds_bucket", "a", "0.25"] == 1
    assert found[f"{prefix}queue_delay_seconds_bucket", "a", "3600"] == 1
    assert found[f"{prefix}queue_delay_seconds_bucket", "a", "+Inf"] == found[f"{prefix}queue_delay_seconds_count", "a"] == 2
    assert found[f"{prefix}queue_delay_seconds_sum", "a"] == 4000.2
    assert (found[f"{prefix}store_bytes", "a"], found[f"{prefix}store_failing", "a"]) == (7, 1)
    assert (f"{prefix}store_bytes", "b") not in found
