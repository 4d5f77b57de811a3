"""Every gateway example prints the documented output, and its data arrives at the platform."""

from programs import EXAMPLES


def telemetry(emulator, name):
    return [(point.key, point.value) for point in emulator.device(name).telemetry]


async def test_connect_and_disconnect_device(emulator, example):
    async with example("gateway/connect_and_disconnect_device.py") as program:
        output = await program.end()
    assert output.splitlines() == ["connected: Success CONNECTED", "the same session: True", "disconnected: Success DISCONNECTED"]
    assert emulator.device("meter 7").profile == "meter"
    assert not emulator.device("meter 7").connected


async def test_send_timeseries(emulator, example):
    async with example("gateway/send_timeseries.py") as program:
        output = await program.end()
    assert output.splitlines() == [
        "one device: 2 datapoints, Success",
        "five devices: 120 datapoints",
        "a list: 2 datapoints, Success",
        "the gateway itself: 1 datapoint, Success",
    ]
    assert {emulator.device(f"meter {number}").profile for number in range(1, 6)} == {"meter"}
    assert len(telemetry(emulator, "meter 5")) == 24
    assert ("kwh", 980.25) in telemetry(emulator, "meter 2")
    assert telemetry(emulator, "gateway") == [("devices", 5)]


async def test_send_attributes(emulator, example):
    async with example("gateway/send_attributes.py") as program:
        await program.end()
    assert emulator.device("meter 7").attributes == {"serial": "M-0007", "phases": 3, "firmware": "1.4", "wired": True}
    assert emulator.device("gateway").attributes == {"building": "north"}


async def test_request_attributes(emulator, example):
    emulator.add_device("METER_TOKEN", "meter 7")
    await emulator.set_shared_attributes("meter 7", {"tariff": "night"})
    async with example("gateway/request_attributes.py") as program:
        output = await program.end()
    assert output.splitlines() == ["tariff: night", "period: not set", "serial: M-0007"]


async def test_handle_attribute_updates(emulator, example):
    async with example("gateway/handle_attribute_updates.py") as program:
        await program.printed("Waiting for attribute updates")
        assert await emulator.set_shared_attributes("meter 2", {"tariff": "night"})
        await program.printed("meter 2: set tariff = night")
        assert await emulator.delete_shared_attributes("meter 2", ["tariff"])
        await program.printed("meter 2: deleted tariff")
        await program.interrupt()


async def test_handle_rpc_requests(emulator, example):
    async with example("gateway/handle_rpc_requests.py") as program:
        await program.printed("Waiting for RPC requests")
        assert await emulator.call_rpc("relay 3", "set_relay", 1) == {"result": True}
        assert await emulator.call_rpc("relay 3", "get_relay") == {"result": True}
        assert await emulator.call_rpc("relay 1", "get_relay") == {"result": False}
        assert await emulator.call_rpc("relay 1", "fly") == {"error": "There is no method 'fly'"}
        await program.interrupt()


async def test_handlers_by_name(emulator, example):
    async with example("gateway/handlers_by_name.py") as program:
        await program.printed("Waiting for requests and attributes")
        assert await emulator.call_rpc("boiler 2", "heat", {"to": 60}) == {"result": 60.0}
        assert await emulator.call_rpc("boiler 2", "heat", 95) == {"error": "too hot"}
        assert await emulator.call_rpc("boiler 2", "status") == {"result": {"degrees": 60.0}}
        assert await emulator.call_rpc("pump", "heat", 60) == {"error": "There is no method 'heat'; the methods are status"}
        assert await emulator.set_shared_attributes("pump", {"interval": 5})
        await program.printed("pump every 5 s")
        await program.interrupt()


async def test_claim_device(emulator, example):
    async with example("gateway/claim_device.py") as program:
        assert await program.end() == "Claiming of two devices for 120 s: Success\n"
    claims = [emulator.device(name).claims[0] for name in ("meter 7", "meter 8")]
    assert [claim.secret_key for claim in claims] == ["printed on meter 7", "printed on meter 8"]
    assert {claim.duration_ms for claim in claims} == {120_000}


async def test_load(emulator, example):
    async with example("gateway/load.py", 20_000, 7) as program:
        output = await program.end()
    assert "accepted 20,000 = acknowledged 20,000 + rejected 0 + dropped 0 + undelivered 0" in output
    assert sum(emulator.device(f"load {number}").counters.telemetry_datapoints for number in range(7)) == 20_000


async def test_operational_example(emulator, example):
    async with example("gateway/operational_example.py") as program:
        await program.printed("3 rooms report")
        assert await emulator.set_shared_attributes("office", {"period": 0.01})
        await program.printed("office reports every 0.01 s")
        assert (await emulator.call_rpc("office", "get_status"))["result"]["period"] == 0.01
        assert "There is no method" in (await emulator.call_rpc("kitchen", "fly"))["error"]["message"]
        await program.interrupt()
    assert emulator.device("gateway").attributes == {"rooms": ["kitchen", "office", "workshop"]}
    for name in ("kitchen", "office", "workshop"):
        assert emulator.device(name).profile == "room"
        assert {key for key, _ in telemetry(emulator, name)} == {"temperature", "humidity"}
    assert len(telemetry(emulator, "office")) > len(telemetry(emulator, "kitchen"))


async def test_tls_connect(tls_emulator, ca_file, example):
    tls_emulator.add_gateway("TLS_TOKEN", "gateway")
    address = {"TB_GW_HOST": tls_emulator.host, "TB_GW_PORT": tls_emulator.port}
    async with example("gateway/tls_connect.py", TB_CA_CERT=ca_file, TB_GW_ACCESS_TOKEN="TLS_TOKEN", **address) as program:
        assert await program.end() == "Connected over TLS: Success\n"
    assert telemetry(tls_emulator, "meter 7") == [("encrypted", True)]


async def test_tls_connect_reports_an_untrusted_server(tls_emulator, example):
    address = {"TB_HOST": tls_emulator.host, "TB_PORT": tls_emulator.port}
    async with example("gateway/tls_connect.py", TB_TLS=1, **address) as program:
        assert "The server's certificate is not trusted: " in await program.fail()


def test_every_example_has_a_test():
    names = {path.stem for path in (EXAMPLES / "gateway").glob("*.py")}
    assert names
    assert names <= {name.removeprefix("test_") for name in globals()}
