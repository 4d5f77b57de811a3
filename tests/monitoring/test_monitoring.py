"""The alert rules and the dashboard use metrics that exist, and expressions that Prometheus accepts.

The checks with promtool, the program of Prometheus itself, run where it is installed (Debian's package prometheus, 19 MB).
"""

import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml
from monitored_clients import ALERTS, DASHBOARD, PANELS, dashboard_expressions
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from tb_mqtt_client import DeviceClient, GatewayClient, otel_metrics
from tb_mqtt_client.emulator import Emulator
from tb_mqtt_client.exported_metrics import HISTOGRAMS, METRICS, Kind
from tb_mqtt_client.metrics import PREFIX, ClientMetrics
from tb_mqtt_client.otel_metrics import OpenTelemetryMetrics

RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
PROMTOOL = shutil.which("promtool")
SERIES = {f"{PREFIX}{metric.name}{'_total' if metric.kind is Kind.COUNTER else ''}" for metric in METRICS} | {
    f"{PREFIX}{histogram.name}_{part}" for histogram in HISTOGRAMS for part in ("bucket", "count", "sum")
}
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")


def promtool(*arguments, **options):
    return subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, check=False, **options)


def series_in(expression):
    """Return the names of the series that an expression selects, after a check that it is valid."""
    promql_parser.parse(expression)
    return set(re.findall(rf"\b{PREFIX}\w+", expression))


def test_the_parser_refuses_what_prometheus_refuses():
    for wrong in ("rate(tb_mqtt_client_connections_total)", "sum(tb_mqtt_client_connected", "a{b=c}", "a >"):
        with pytest.raises(ValueError, match=r".+"):
            promql_parser.parse(wrong)


def test_every_series_in_the_alert_rules_exists():
    assert len(RULES) == len({rule["alert"] for rule in RULES}) >= 10
    for rule in RULES:
        named = series_in(rule["expr"])
        assert set() < named <= SERIES, rule["alert"]
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}


def test_every_series_in_the_dashboard_exists():
    expressions = dashboard_expressions()
    assert len(expressions) > 20
    for expression in expressions:
        named = series_in(expression)
        assert set() < named <= SERIES, expression
    queries = [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    assert set(re.findall(rf"\b{PREFIX}\w+", " ".join(queries))) <= SERIES


def test_the_panels_of_the_dashboard_have_places_of_their_own_and_texts():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert all(0 <= x < 24 for x, _ in cells)
        taken |= cells
        assert panel["title"]
        assert panel["description"].endswith(".")
        for target in panel["targets"]:
            # Each query follows the choices above the panels.
            assert target["datasource"]["uid"] == "${datasource}"
            assert '{job=~"$job",instance=~"$instance",client_id=~"$client_id"}' in target["expr"]


async def clients_under_way(emulator, tmp_path):
    """Return a device with a store and a gateway, with data acknowledged, rejected and rounded."""
    emulator.add_device("TOKEN", name="thermometer")
    emulator.add_gateway("GATEWAY", name="gateway")
    at = {"host": emulator.host, "port": emulator.port}
    device = DeviceClient(at | {"access_token": "TOKEN", "client_id": "d", "store": str(tmp_path / "store")})
    gateway = GatewayClient(at | {"access_token": "GATEWAY", "client_id": "g"})
    await device.connect()
    await gateway.connect()
    await device.send_timeseries({"temperature": 21.5, "humidity": 48})
    await device.send_timeseries({"long": "x" * 70_000})
    session, _ = await gateway.connect_device("boiler")
    await gateway.send_device_timeseries(session, {"pressure": 2.1})
    return device, gateway


@pytest.fixture
async def exposition(tmp_path):
    """Return what a scrape of the metrics of running clients gets."""
    async with Emulator(port=0) as emulator:
        device, gateway = await clients_under_way(emulator, tmp_path)
        registry = CollectorRegistry()
        metrics = ClientMetrics(device, gateway, registry=registry)
        text = generate_latest(registry).decode()
        metrics.close()
        await device.stop()
        await gateway.stop()
    return text


def test_running_clients_have_all_metrics(exposition):
    served = set(re.findall(rf"^({PREFIX}\w+)", exposition, re.MULTILINE))
    # The others have no value while nothing was learned and no backlog is left.
    assert {name for name in SERIES - served if "learned" not in name and "backlog" not in name} == set()
    assert f'{PREFIX}puback_delay_seconds_count{{client_id="d"' in exposition


@needs_promtool
def test_the_metrics_follow_the_conventions(exposition):
    checked = promtool("check", "metrics", input=exposition)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@needs_promtool
def test_promtool_accepts_the_alert_rules():
    checked = promtool("check", "rules", ALERTS)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(RULES)} rules found" in checked.stdout


@needs_promtool
def test_each_alert_fires_when_it_should(tmp_path):
    played = (Path(__file__).with_name("alerts.test.yml")).read_text()
    assert {rule["alert"] for rule in RULES} == set(re.findall(r'alertname="(\w+)"', played))
    (tests := tmp_path / "alerts.test.yml").write_text(played.replace("rule_files: [ALERTS]", f"rule_files: [{ALERTS}]"))
    tested = promtool("test", "rules", tests)
    assert tested.returncode == 0, tested.stdout + tested.stderr


async def test_opentelemetry_has_the_same_numbers(tmp_path):
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    async with Emulator(port=0) as emulator:
        device, gateway = await clients_under_way(emulator, tmp_path)
        metrics = OpenTelemetryMetrics(device, meter_provider=provider)
        metrics.add(gateway)
        found = collected(reader)
        of_device = {"client_id": "d", "host": emulator.host, "port": str(emulator.port)}
        assert value(found, "accepted_datapoints", of_device) == 3
        assert value(found, "acknowledged_datapoints", of_device) == 2
        assert value(found, "rejected_datapoints_by_reason", of_device | {"reason_code": "149", "reason": "Packet too large"}) == 1
        assert value(found, "connected", of_device) == 1
        assert value(found, "sub_devices", of_device | {"client_id": "g"}) == 1
        assert value(found, "puback_delay_seconds_bucket", of_device | {"le": "+Inf"}) == 1
        assert value(found, "puback_delay_seconds_count", of_device) == 1
        assert value(found, "store_bytes", of_device) >= 0
        assert found["limited_seconds"][0] == "s"
        assert found["store_bytes"][0] == "By"
        with pytest.raises(ValueError, match="is already exported"):
            metrics.add(DeviceClient({"host": emulator.host, "port": emulator.port, "client_id": "d", "access_token": "T"}))
        metrics.remove(gateway)
        assert not [labels for _, points in collected(reader).values() for labels, _ in points if labels["client_id"] == "g"]
        await device.stop()
        await gateway.stop()
    provider.shutdown()


class CountedHealth:
    """A client whose numbers change with each call of ``health()``."""

    def __init__(self):
        self.calls = 0
        self._health = DeviceClient({"host": "localhost", "access_token": "T", "client_id": "c"}).health()

    def health(self):
        self.calls += 1
        return self._health | {"accepted": self.calls, "acknowledged": self.calls}


def sums(reader):
    found = collected(reader)
    return [found[name][1][0][1] for name in ("accepted_datapoints", "acknowledged_datapoints")]


def test_a_collection_of_opentelemetry_reads_one_snapshot():
    first, second = InMemoryMetricReader(), InMemoryMetricReader()
    provider = MeterProvider([first, second])
    client = CountedHealth()
    OpenTelemetryMetrics(client, meter_provider=provider)
    before = client.calls
    for number, reader in enumerate((first, first, second, first, second, second), before + 1):
        assert sums(reader) == [number, number]
    assert client.calls == before + 6
    provider.shutdown()


def test_an_instrument_that_is_collected_again_later_has_current_numbers(monkeypatch):
    callbacks = {}
    monkeypatch.setattr(
        otel_metrics, "_instrument", lambda _meter, _kind, name, _text, callback: callbacks.update({name: callback})
    )
    now = [0.0]
    monkeypatch.setattr(otel_metrics.time, "monotonic", lambda: now[0])
    client = CountedHealth()
    OpenTelemetryMetrics(client)

    def read(name):
        return callbacks[name](None)[0].value

    first = read("accepted_datapoints")
    # The other instrument was not part of the collection that took the snapshot.
    now[0] = otel_metrics.MAX_AGE
    assert read("acknowledged_datapoints") == first + 1
    assert read("accepted_datapoints") == first + 1


def collected(reader):
    """Return the unit and the points (labels and value) of each metric by its name without prefix."""
    data = reader.get_metrics_data()
    return {
        metric.name.removeprefix("tb_mqtt_client."): (
            metric.unit,
            [(dict(point.attributes), point.value) for point in metric.data.data_points],
        )
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def value(found, name, labels):
    [one] = [number for of, number in found[name][1] if of == labels]
    return one
