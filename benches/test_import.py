"""Time to import the package and everything that it imports, in a fresh process."""

import os
import subprocess
import sys
from statistics import median

PROGRAM = """
from time import perf_counter
begin = perf_counter()
import tb_mqtt_client
took = perf_counter() - begin
print(took * 1000, tb_mqtt_client.DeviceClient.__name__, tb_mqtt_client.GatewayClient.__name__)
"""


def import_times(cache, count):
    """Return milliseconds with byte code in place, as after an installation. The first import writes it and does not count."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(cache)
    found = []
    for _ in range(count + 1):
        # -P: do not import from the folder in which the benchmarks run.
        command = [sys.executable, "-P", "-c", PROGRAM]
        printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        took, *clients = printed.split()
        assert clients == ["DeviceClient", "GatewayClient"]
        found.append(float(took))
    return found[1:]


def test_import(benchmark, tmp_path):
    benchmark.group = "import of the package, with both clients"
    found = benchmark.pedantic(import_times, (tmp_path, 20), rounds=1)
    benchmark.extra_info.update(peer="native", correct=True, value=median(found))
