"""Try an installed wheel in an interpreter without other packages, so without any test library.

python -I -W error smoke.py
"""

import asyncio
import importlib.metadata
import importlib.resources
import platform
import sys
import sysconfig
from pathlib import Path

import tb_mqtt_client
from tb_mqtt_client import DeviceClient, GatewayClient, TimeseriesEntry, _native
from tb_mqtt_client.emulator import Emulator

TS = 1_700_000_000_000


def check(what: str, *, right: bool) -> None:
    if not right:
        sys.exit(f"wrong: {what}")


def the_installation() -> None:
    installed = importlib.metadata.version("tb-mqtt-client")
    # Cargo writes a pre-release with a hyphen.
    check(
        f"version {tb_mqtt_client.__version__}, installed {installed}",
        right=tb_mqtt_client.__version__.replace("-", "") == installed,
    )
    check(f"{tb_mqtt_client.__file__} is not in {sys.prefix}", right=Path(tb_mqtt_client.__file__).is_relative_to(sys.prefix))
    check("a release build", right=_native.build_profile == "release")
    files = importlib.resources.files(tb_mqtt_client)
    check("type information", right=all(files.joinpath(name).is_file() for name in ("py.typed", "_native.pyi")))
    # An extension that does not support free threading would have enabled the global interpreter lock again.
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    check("the global interpreter lock stays disabled", right=not (locked and sysconfig.get_config_var("Py_GIL_DISABLED")))


async def a_device(emulator: Emulator) -> None:
    device = emulator.add_device("DEVICE TOKEN", "thermometer")
    client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "DEVICE TOKEN"})
    await client.connect()
    sent = await client.send_timeseries([TimeseriesEntry("temperature", 21.5, TS), TimeseriesEntry("digits", 10**30, TS)])
    described = await client.send_attributes({"serial": "é-7"})
    await client.stop()
    check(f"acknowledged: {sent}, {described}", right=sent.is_successful() and described.is_successful())
    check("telemetry", right=[(point.ts, point.key) for point in device.telemetry] == [(TS, "temperature"), (TS, "digits")])
    check("attributes", right=device.attributes == {"serial": "é-7"})


async def a_gateway(emulator: Emulator) -> None:
    emulator.add_gateway("GATEWAY TOKEN", "gateway")
    client = GatewayClient({"host": emulator.host, "port": emulator.port, "access_token": "GATEWAY TOKEN"})
    await client.connect()
    meter, _ = await client.connect_device("meter 7", "meter", wait_for_publish=True)
    sent = await client.send_device_timeseries(meter, {"kwh": 1204.7}, wait_for_publish=True)
    await client.stop()
    check(f"acknowledged: {sent}", right=sent.is_successful())
    device = emulator.device("meter 7")
    check("profile", right=device.profile == "meter")
    check("telemetry", right=[(point.key, point.value) for point in device.telemetry] == [("kwh", 1204.7)])


async def the_clients() -> None:
    async with Emulator() as emulator:
        await a_device(emulator)
        await a_gateway(emulator)


the_installation()
asyncio.run(the_clients())
print(f"tb-mqtt-client {tb_mqtt_client.__version__} works with {platform.python_implementation()} {platform.python_version()}")
