"""Every device example prints the documented output, and its data arrives at the platform."""

import signal

from programs import EXAMPLES
from tb_mqtt_client.emulator import ClientRpcError, OtaPackage


def telemetry(emulator, name="device"):
    return [(point.key, point.value) for point in emulator.device(name).telemetry]


async def test_send_timeseries(emulator, example):
    async with example("device/send_timeseries.py") as program:
        output = await program.end()
    assert output.splitlines() == [
        "now: 3 datapoints, Success",
        "an hour ago: 2 datapoints, Success",
        "the hour since: 60 datapoints, Success",
        "not waiting: 100 datapoints",
    ]
    sent = telemetry(emulator)
    assert sent[:3] == [("temperature", 21.5), ("humidity", 48), ("window", "closed")]
    assert ("battery", 3.91) in sent
    assert [value for key, value in sent if key == "count"] == list(range(100))


async def test_send_attributes(emulator, example):
    async with example("device/send_attributes.py") as program:
        await program.end()
    attributes = emulator.device("device").attributes
    assert {"python", "system"} <= attributes.keys()
    assert attributes["serial"] == "TH-0042"
    assert attributes["place"] == {"x": 12.5, "y": 3.0}


async def test_request_attributes(emulator, example):
    async with example("device/request_attributes.py") as program:
        await emulator.set_shared_attributes("device", {"target_temperature": 22.5})
        output = await program.end()
    assert output.splitlines() == [
        "target temperature: 22.5",
        "period: not set",
        "serial: TH-0042",
        "shared: ['target_temperature'] client: ['serial']",
    ]


async def test_handle_attribute_updates(emulator, example):
    async with example("device/handle_attribute_updates.py") as program:
        await program.printed("Waiting for attribute updates")
        assert await emulator.set_shared_attributes("device", {"target_temperature": 22.5, "mode": "eco"})
        assert await emulator.delete_shared_attributes("device", ["mode"])
        await program.printed("deleted: mode")
        output = await program.interrupt()
    assert "set: target_temperature = 22.5" in output


async def test_handle_rpc_requests(emulator, example):
    async with example("device/handle_rpc_requests.py") as program:
        await program.printed("Waiting for RPC requests")
        assert await emulator.call_rpc("device", "set_switch", {"name": "light", "on": True}) == {"result": {"light": True}}
        assert await emulator.call_rpc("device", "get_switches") == {"result": {"light": True}}
        assert (await emulator.call_rpc("device", "set_switch", {}))["error"]["type"] == "KeyError"
        assert await emulator.call_rpc("device", "fly") == {"error": "There is no method 'fly'"}
        await program.interrupt()


async def test_handlers_by_name(emulator, example):
    async with example("device/handlers_by_name.py") as program:
        await program.printed("Waiting for requests and attributes")
        assert await emulator.call_rpc("device", "setTarget", 22) == {"result": 22.0}
        assert await emulator.call_rpc("device", "setTarget", 40) == {"error": "40.0 degrees are out of range (5 to 30)"}
        assert await emulator.call_rpc("device", "addSlot", {"start": "06:00", "degrees": 21}) == {"result": 1}
        assert "slot has no 'degrees'" in (await emulator.call_rpc("device", "addSlot", {"start": "06:00"}))["error"]
        assert await emulator.call_rpc("device", "status") == {"result": {"target": 22.0, "slots": ["06:00"]}}
        assert (await emulator.call_rpc("device", "fly"))["error"].endswith("the methods are addSlot, setTarget, status")
        assert await emulator.set_shared_attributes("device", {"mode": "eco"})
        await program.printed("mode: ECO interval: 10")
        await program.interrupt()


async def test_send_client_side_rpc(emulator, example):
    def respond(_device, method, params):
        if method != "getCurrentTime":
            raise ClientRpcError("unknown method")
        return {"time": 1_700_000_000_000, "zone": params["zone"]}

    emulator.on_client_rpc = respond
    async with example("device/send_client_side_rpc.py") as program:
        output = await program.end()
    assert output.splitlines() == [
        "getCurrentTime: {'time': 1700000000000, 'zone': 'UTC'}",
        "noSuchMethod: ERROR, unknown method",
    ]


async def test_claim_device(emulator, example):
    async with example("device/claim_device.py") as program:
        assert await program.end() == "Claiming for 120 s: Success\n"
    [claim] = emulator.device("device").claims
    assert (claim.secret_key, claim.duration_ms) == ("printed on the device", 120_000)


async def test_client_provisioning(emulator, example):
    emulator.add_provision_profile("KEY", "SECRET", profile="thermometers")
    async with example("device/client_provisioning.py", PROVISION_KEY="KEY", PROVISION_SECRET="SECRET") as program:
        assert await program.end() == "The new device has sent its first telemetry: Success\n"
    assert emulator.device("thermometer 42").profile == "thermometers"
    assert telemetry(emulator, "thermometer 42") == [("temperature", 21.5)]


async def test_client_provisioning_reports_a_wrong_secret(emulator, example):
    async with example("device/client_provisioning.py", PROVISION_KEY="KEY", PROVISION_SECRET="SECRET") as program:
        assert "NOT_FOUND: Provision data was not found!" in await program.fail()


async def test_firmware_update(emulator, example, tmp_path):
    image = bytes(range(256)) * 400
    async with example("device/firmware_update.py") as program:
        await emulator.assign_package("device", OtaPackage("thermometer", "1.1", image))
        output = await program.end()
    assert "installing thermometer 1.1 from thermometer\n" in output
    assert "102,400 of 102,400 bytes\n" in output
    assert (tmp_path / "thermometer").read_bytes() == image
    states = [value for key, value in telemetry(emulator) if key == "fw_state"]
    assert states == ["IDLE", "DOWNLOADING", "DOWNLOADED", "VERIFIED", "UPDATING", "UPDATED"]


async def test_load(emulator, example):
    async with example("device/load.py", 20_000) as program:
        output = await program.end()
    assert "accepted 20,000 = acknowledged 20,000 + rejected 0 + dropped 0 + undelivered 0" in output
    assert emulator.device("device").counters.telemetry_datapoints == 20_000


async def test_send_table(emulator, example):
    async with example("device/send_table.py", 25_000) as program:
        output = await program.end()
    # Three columns with values, of which one is missing in every tenth row.
    assert "acknowledged: 72,500 datapoints in " in output
    assert emulator.device("device").counters.telemetry_datapoints == 72_500


async def test_operational_example(emulator, example):
    settings = {"period": 0.01, "target_temperature": 23, "unknown": 1}
    async with example("device/operational_example.py") as program:
        await program.printed("settings:")
        assert await emulator.set_shared_attributes("device", settings)
        await program.printed("'period': 0.01")
        response = await emulator.call_rpc("device", "set_target", 19)
        assert response == {"result": {"target_temperature": 19.0, "period": 0.01}}
        assert "There is no method" in (await emulator.call_rpc("device", "fly"))["error"]["message"]
        await program.interrupt()
    device = emulator.device("device")
    assert device.attributes == {"model": "thermostat", "version": "1.0"}
    assert ("target_temperature", 23) in telemetry(emulator)


async def test_tls_connect(tls_emulator, ca_file, example):
    address = {"TB_HOST": tls_emulator.host, "TB_PORT": tls_emulator.port}
    tls_emulator.add_device("TLS_TOKEN", "device")
    async with example("device/tls_connect.py", TB_CA_CERT=ca_file, TB_ACCESS_TOKEN="TLS_TOKEN", **address) as program:
        assert await program.end() == "Connected over TLS: Success\n"
    assert telemetry(tls_emulator) == [("encrypted", True)]


def test_every_example_has_a_test():
    names = {path.stem for path in (EXAMPLES / "device").glob("*.py")}
    tested = {name.removeprefix("test_") for name in globals()}
    assert names
    assert names <= tested


async def test_boots_offline(emulator, example):
    await emulator.stop()
    async with example("device/boots_offline.py", 5) as program:
        await program.printed("no connection: ")
        await emulator.start()
        await program.printed(f"connected to {emulator.host}:{emulator.port}")
        output = await program.end()
    assert output.endswith("all samples: 5\n")
    assert len(telemetry(emulator)) == 5
    # The first attempt failed at once, so that the first sample is older than the connection.
    assert output.index("no connection") < output.index("connected to")


async def test_send_from_callbacks(emulator, example):
    async with example("device/send_from_callbacks.py", 20) as program:
        output = await program.end()
    assert output == "delivered: 20 of 20\n"
    assert len(telemetry(emulator)) == 20


async def test_store_and_forward(emulator, example):
    """The program boots offline, is killed, boots offline again, and drains everything in a third run."""
    await emulator.stop()
    async with example("device/store_and_forward.py", 1000) as program:
        await program.printed("found 0 samples")
        last = await program.printed("sample 3 is safe")
        program.signal(signal.SIGKILL)
        assert await program.ended() == -signal.SIGKILL
        last = program.output.splitlines()[-1]
    safe = int(last.split()[1]) + 1
    async with example("device/store_and_forward.py", 2) as program:
        found = await program.printed("samples of earlier runs")
        # The sample whose line was not printed may be safe, too.
        recovered = int(found.split()[1])
        assert recovered in (safe, safe + 1)
        assert (await program.end()).endswith(f"arrived: 0, kept for the next start: {recovered + 2}\n")
    await emulator.start()
    async with example("device/store_and_forward.py", 5) as program:
        await program.printed(f"found {recovered + 2} samples of earlier runs")
        assert (await program.end()).endswith(f"arrived: {recovered + 7}, kept for the next start: 0\n")
    samples = [value for key, value in telemetry(emulator) if key == "sample"]
    assert sorted(samples) == sorted([*range(recovered), *range(2), *range(5)])
