"""Prometheus metrics have every number of ``Statistics``, conventional names, and labels for several clients."""

import re
from dataclasses import fields

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tb_mqtt_client.metrics import _BY_REASON, _METRICS, ClientMetrics
from tb_mqtt_client.service.delivery.statistics import DELIVERY_STATES, DeliveryCounter, Statistics


class FakeClient:
    def __init__(self, client_id, statistics=None, **others):
        self.statistics = statistics or Statistics()
        self.others = {"client_id": client_id, "host": "h", "port": 1883, "connected": True, "ready": True, "limited": False}
        self.others |= {"since": 1_700_000_000_500} | others

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
            key = (sample.name, sample.labels["client_id"], *([code] if (code := sample.labels.get("reason_code")) else []))
            assert key not in found
            found[key] = sample.value
    return found


def test_every_number_of_the_statistics_is_a_metric():
    shown = {described.field for described in _METRICS} | {_BY_REASON.field}
    numbers = {one.name for one in fields(Statistics)} - {"last_disconnect"}
    assert numbers <= shown


def test_names_follow_the_conventions_of_prometheus(registry):
    ClientMetrics(FakeClient("a", devices=3), registry=registry)
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        assert re.fullmatch(r"tb_mqtt_client_[a-z_]+", family.name)
        assert family.documentation
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
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
