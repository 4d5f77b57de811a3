"""``tb-mqtt rpc``, ``attributes`` and ``claim``: the request that is sent, the output, and the exit code."""

import json

import pytest

from tb_mqtt_client.emulator import ClientRpcError, Emulator, Verdict


@pytest.mark.parametrize(
    ("params", "sent"),
    [([], None), (['{"mode":"eco"}'], {"mode": "eco"}), (["[1,2]"], [1, 2]), (['"text"'], "text"), (["null"], None)],
)
async def test_rpc_prints_the_result(tb_mqtt, emulator, device, params, sent):
    requests = []
    emulator.on_client_rpc = lambda _device, method, params: (requests.append((method, params)), {"now": 5, "wört": None})[1]
    done = await tb_mqtt("rpc", "getCurrentTime", *params, env=device)
    assert (done.code, done.out, done.err) == (0, '{"now": 5, "wört": null}\n', "")
    assert requests == [("getCurrentTime", sent)]


async def test_rpc_reports_an_error_response(tb_mqtt, emulator, device):
    def fail(_device, _method, _params):
        raise ClientRpcError("unknown method")

    emulator.on_client_rpc = fail
    done = await tb_mqtt("rpc", "m", env=device)
    assert (done.code, done.out) == (1, "")
    assert 'The response is an error: "unknown method"' in done.err


async def test_rpc_gives_up_without_a_response(tb_mqtt, device):
    done = await tb_mqtt("rpc", "m", "--timeout", "0.2", env=device)
    assert (done.code, done.out) == (4, "")
    assert "No response within 0.2 s" in done.err


async def test_rpc_reports_a_rule_chain_that_does_not_respond(tb_mqtt):
    async with Emulator(client_rpc_timeout=0.1) as emulator:
        emulator.add_device("DEVICE-TOKEN", "device")
        done = await tb_mqtt("rpc", "m", "--host", emulator.host, "--port", str(emulator.port), "--token", "DEVICE-TOKEN")
    assert (done.code, "rule chain did not respond" in done.err) == (4, True)


async def test_rpc_reports_a_refused_request(tb_mqtt, emulator, device):
    emulator.on_publish = lambda publish: Verdict.refuse(0x99) if b'"m"' in publish.payload else None
    done = await tb_mqtt("rpc", "m", env=device)
    assert (done.code, "refused the request" in done.err) == (1, True)


async def test_rpc_reports_a_lost_connection(tb_mqtt, emulator, device):
    emulator.on_publish = lambda publish: Verdict.close() if b'"m"' in publish.payload else None
    done = await tb_mqtt("rpc", "m", env=device)
    assert (done.code, "The connection was lost" in done.err) == (3, True)


async def test_rpc_reports_parameters_that_are_not_json(tb_mqtt, device):
    done = await tb_mqtt("rpc", "m", "text", env=device)
    assert (done.code, "'text' is not valid JSON" in done.err) == (2, True)


ECO = {"mode": "eco", "limit": 5}


@pytest.fixture
async def stored(emulator):
    await emulator.set_shared_attributes("device", ECO)
    emulator.device("device").attributes.update({"serial": "x", "other": [1]})


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], {"client": {"serial": "x", "other": [1]}, "shared": ECO}),
        (["--client", "serial"], {"client": {"serial": "x"}, "shared": {}}),
        (["--shared", "mode, limit"], {"client": {}, "shared": ECO}),
        (
            ["--shared", "mode", "--shared", "limit", "--client", "serial"],
            {"client": {"serial": "x"}, "shared": {"mode": "eco", "limit": 5}},
        ),
    ],
)
@pytest.mark.usefixtures("stored")
async def test_attributes_get_prints_the_requested_attributes(tb_mqtt, device, arguments, found):
    done = await tb_mqtt("attributes", "get", *arguments, env=device)
    assert (done.code, done.json, done.err) == (0, found, "")


@pytest.mark.parametrize(("encoding", "printed"), [("ascii", '"w\\u00f6rt"'), ("latin-1", '"wört"')])
async def test_output_encoding_without_all_characters_gets_the_whole_response(tb_mqtt, emulator, device, encoding, printed):
    emulator.on_client_rpc = lambda _device, _method, _params: "wört"
    process = await tb_mqtt.start("rpc", "m", env=device | {"PYTHONIOENCODING": encoding})
    out, err = await process.communicate()
    assert (process.returncode, out.decode(encoding), err) == (0, f"{printed}\n", b"")


@pytest.mark.usefixtures("stored")
async def test_attributes_get_reports_missing_attributes(tb_mqtt, device):
    done = await tb_mqtt("attributes", "get", "--client", "serial,none", "--shared", "nor", env=device)
    assert (done.code, done.json) == (1, {"client": {"serial": "x"}, "shared": {}})
    assert "Attribute not found: client none, shared nor" in done.err


async def test_attributes_get_gives_up_without_a_response(tb_mqtt, emulator, device):
    emulator.on_publish = lambda publish: Verdict.acknowledge() if "attributes/request" not in publish.topic else Verdict.refuse(0)
    done = await tb_mqtt("attributes", "get", "--timeout", "0.2", env=device)
    assert (done.code, done.out) == (4, "")


async def test_attributes_set_sends_client_attributes(tb_mqtt, emulator, device):
    done = await tb_mqtt("attributes", "set", "serial=7", "name=pump", env=device)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("✓ accepted 2 = acknowledged 2 datapoints")
    assert emulator.device("device").attributes == {"serial": 7, "name": "pump"}
    assert (await tb_mqtt("attributes", "set", "serial", env=device)).code == 2
    assert (await tb_mqtt("attributes", "set", env=device)).code == 2


@pytest.mark.parametrize(
    ("arguments", "environment", "payload"),
    [
        ([], {}, {"secretKey": ""}),
        (["--duration", "60"], {"TB_CLAIM_SECRET": "abc-def"}, {"secretKey": "abc-def", "durationMs": 60000}),
        (["--secret-file", "secret"], {"TB_CLAIM_SECRET": "abc-def"}, {"secretKey": "of the file"}),
    ],
)
async def test_claim_sends_the_secret_and_the_duration(tb_mqtt, emulator, device, tmp_path, arguments, environment, payload):
    (tmp_path / "secret").write_text("of the file\n")
    claims = []
    emulator.on_publish = lambda publish: claims.append(json.loads(publish.payload)) if publish.topic.endswith("/claim") else None
    done = await tb_mqtt("claim", *arguments, env=device | environment, cwd=tmp_path)
    assert (done.code, done.err, claims) == (0, "", [payload])
    assert "the platform does not say whether claiming is allowed" in done.out
    assert "abc-def" not in done.out


async def test_claim_reports_a_refused_request(tb_mqtt, emulator, device):
    emulator.on_publish = lambda publish: Verdict.refuse(0x83) if publish.topic.endswith("/claim") else None
    done = await tb_mqtt("claim", "--json", env=device)
    assert (done.code, done.json) == (1, {"acknowledged": False, "reason": "Implementation specific error"})
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.endswith("/claim") else None
    assert (await tb_mqtt("claim", "--timeout", "0.2", env=device)).code == 4
    assert (await tb_mqtt("claim", "--duration", "-1", env=device)).code == 2
