"""A real Prometheus scrapes running clients: every query of the dashboard returns data, and every alert rule is evaluated.

Runs where Prometheus is installed (Debian's package prometheus, 19 MB).
"""

import asyncio
import json
import math
import re
import shutil
from contextlib import asynccontextmanager
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from monitored_clients import ALERTS, DASHBOARD, busy_clients, dashboard_expressions
from prometheus_client import CollectorRegistry, start_http_server

from network_peers import free_ports
from tb_mqtt_client.metrics import ClientMetrics

PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed: apt-get install prometheus")


class Prometheus:
    """A Prometheus that scrapes one port every second."""

    def __init__(self, port):
        self._address = f"http://127.0.0.1:{port}/api/v1/"

    async def get(self, path, **parameters):
        """Return the data of a response."""

        def fetch():
            with urlopen(f"{self._address}{path}?{urlencode(parameters)}", timeout=30) as response:
                return json.load(response)["data"]

        return await asyncio.to_thread(fetch)

    async def numbers(self, expression):
        """Return the values that a query selects now."""
        result = (await self.get("query", query=expression))["result"]
        return [value for one in result if not math.isnan(value := float(one["value"][1]))]


@asynccontextmanager
async def prometheus(folder, port, scraped):
    jobs = [{"job_name": "devices", "static_configs": [{"targets": [f"127.0.0.1:{scraped}"]}]}]
    times = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.dump({"global": times, "rule_files": [str(ALERTS)], "scrape_configs": jobs}))
    options = (f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn")
    log = folder / "prometheus.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            PROMETHEUS, f"--config.file={folder}/prometheus.yml", *options, stdout=file, stderr=file
        )
    server = Prometheus(port)
    try:
        async with asyncio.timeout(60):
            while not await _is_up(server):
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.1)
        yield server
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _is_up(server):
    try:
        return bool(await server.numbers("up"))
    except OSError:
        return False


@pytest.fixture
async def server(tmp_path):
    closed, own = free_ports(2)
    registry = CollectorRegistry()
    async with busy_clients(closed, tmp_path / "store") as clients:
        metrics = ClientMetrics(*clients, registry=registry)
        http, thread = start_http_server(0, "127.0.0.1", registry)
        try:
            async with prometheus(tmp_path, own, http.server_port) as server:
                yield server
        finally:
            http.shutdown()
            http.server_close()
            thread.join()
            metrics.close()


async def evaluated_rules(server):
    """Return the alert rules; none until one of them fires."""
    [group] = (await server.get("rules"))["groups"]
    return group["rules"] if any(rule["state"] == "firing" for rule in group["rules"]) else []


async def test_dashboard_and_alerts_have_data(server):
    left = dashboard_expressions(rate_interval="10s")
    async with asyncio.timeout(120):
        while left:
            left = [expression for expression in left if not await server.numbers(expression)]
            await asyncio.sleep(0.5)
    variables = [variable["query"]["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    assert len(variables) == 3
    for query in variables:
        selected, label = re.fullmatch(r"label_values\((.*), (\w+)\)", re.sub(r"\$\w+", ".+", query)).groups()
        values = await server.get(f"label/{label}/values", **{"match[]": selected})
        assert values, query
    async with asyncio.timeout(60):
        while not (rules := await evaluated_rules(server)):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    assert len(rules) == len(yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"])
    assert [(rule["name"], rule["health"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    # Only the values that are too long were refused.
    firing = {rule["name"] for rule in rules if rule["state"] == "firing"}
    assert firing == {"TbMqttClientDataRejected"}
