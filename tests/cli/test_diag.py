"""``tb-mqtt diag``: the archive has what a report needs, and no secret in any form."""

import asyncio
import base64
import io
import json
import os
import tarfile
from urllib.parse import quote

import pytest

from network_peers import free_ports

TOKEN = 'tok"en \\ mit ümlaut'
"""JSON and URLs escape some of its characters."""
PROXY_PASSWORD = "proxy secret"
KEY_PASSWORD = "key-password-1"


def members(path):
    """Return the files of an archive by their names below its folder."""
    with tarfile.open(path) as archive:
        return {name.partition("/")[2]: archive.extractfile(name).read() for name in archive.getnames()}


def forms(secret):
    """Return what a secret may look like in a text file."""
    written = json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], quote(secret), secret, repr(secret)[1:-1]
    return {form.encode() for form in written} | {base64.b64encode(secret.encode())}


async def test_the_archive_has_findings_health_and_log(tb_mqtt, emulator, device, tmp_path):
    done = await tb_mqtt("diag", "--output", "report.tar.gz", env=device, cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.startswith("report.tar.gz: README.txt, versions.json")
    assert (tmp_path / "report.tar.gz").stat().st_mode & 0o777 == 0o600
    found = members(tmp_path / "report.tar.gz")
    assert set(found) == {
        "README.txt", "versions.json", "configuration.json", "doctor.json", "health.json", "errors.json", "log.txt",
    }  # fmt: skip
    findings = json.loads(found["doctor.json"])
    assert {one["status"] for one in findings if one["step"] in ("TCP", "protocol", "credentials")} == {"good"}
    [health] = json.loads(found["health.json"]).values()
    assert health["connections"] == 1
    assert json.loads(found["versions.json"])["packages"]["gmqtt"].startswith("0.")
    assert json.loads(found["configuration.json"])["options"]["access_token"] == "***"
    assert b"Connected to" in found["log.txt"]
    assert json.loads(found["errors.json"]) == []


async def test_the_health_of_a_running_agent_is_in_the_archive(tb_mqtt, emulator, device, tmp_path):
    [port] = free_ports(1)
    (tmp_path / "agent.toml").write_text(f'store = "store"\n\n[agent]\nsocket = "agent.sock"\nhealth_port = {port}\n')
    url = f"http://127.0.0.1:{port}"
    arguments = ["diag", "--config", "agent.toml"]
    agent = await tb_mqtt.start("agent", "--config", "agent.toml", env=device, cwd=tmp_path)
    try:
        async with asyncio.timeout(60):
            while emulator.device("device").counters.connections < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        done = await tb_mqtt(*arguments, "-o", "1.tar.gz", "--health", "http://127.0.0.1:1/x?y", env=device, cwd=tmp_path)
    finally:
        agent.terminate()
        await agent.communicate()
    assert done.code == 0, done.err
    running = json.loads(members(tmp_path / "1.tar.gz")["running.json"])
    assert (running[url]["status"], running[url]["health"]["state"]) == (200, "open")
    # Asked before the sessions of diag, which end that of the agent.
    assert running[url]["health"]["connections"] == 1
    assert "refused" in running["http://127.0.0.1:1/x?y"]["error"]
    assert "http://127.0.0.1:1/x?y: " in done.err
    # The agent has ended.
    done = await tb_mqtt(*arguments, "-o", "2.tar.gz", "--no-connect", env=device, cwd=tmp_path)
    assert (done.code, "refused" in done.err) == (0, True)


@pytest.mark.parametrize("url", ["127.0.0.1:80", "https://localhost:80", "http://:80", "http://localhost:x", "http://localhost:0"])
async def test_a_url_that_cannot_be_used_is_an_error_at_once(tb_mqtt, device, tmp_path, url):
    done = await tb_mqtt("diag", "--no-connect", "--health", url, env=device, cwd=tmp_path)
    assert (done.code, f"{url!r} is not a URL of the form http://HOST:PORT" in done.err) == (2, True), done.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("connects", [True, False])
async def test_no_secret_is_in_the_archive(tb_mqtt, emulator, tmp_path, connects):
    (tmp_path / "app.log").write_text(f"connecting with {TOKEN}\nproxy http://user:{quote(PROXY_PASSWORD)}@127.0.0.1:1\n")
    (tmp_path / "tb.toml").write_text(f"access_token = {json.dumps(TOKEN, ensure_ascii=False)}\n")
    environment = {
        "TB_HOST": emulator.host,
        "TB_PORT": str(emulator.port),
        "TB_PASSWORD": "password of the environment",
        "TB_PRIVATE_KEY_PASSWORD": KEY_PASSWORD,
        "TB_PROXY": f"http://user:{quote(PROXY_PASSWORD)}@127.0.0.1:1",
    }
    arguments = ["diag", "-o", "report.tar.gz", "--config", "tb.toml", "--include", "app.log"]
    done = await tb_mqtt(*arguments, *([] if connects else ["--no-connect"]), env=environment, cwd=tmp_path)
    assert done.code == 0, done.err
    found = members(tmp_path / "report.tar.gz")
    assert b"connecting with ***" in found["included/1-app.log"]
    if connects:
        assert [one["topic"] for one in json.loads(found["doctor.json"]) if one["status"] == "bad"] == ["proxy-not-reached"]
    else:
        assert json.loads(found["doctor.json"]) == []
    everything = b"".join(found.values()) + done.out.encode() + done.err.encode()
    assert b"TB_PASSWORD" in everything
    for secret in (TOKEN, PROXY_PASSWORD, KEY_PASSWORD, "password of the environment"):
        assert not [form for form in forms(secret) if form in everything]


async def test_the_end_of_a_long_log_is_included(tb_mqtt, device, tmp_path):
    (tmp_path / "app.log").write_text("".join(f"line {number}\n" for number in range(200_000)))
    done = await tb_mqtt("diag", "-o", "r.tar.gz", "--no-connect", "--include", "app.log", "--json", env=device, cwd=tmp_path)
    assert done.json["archive"] == "r.tar.gz"
    included = members(tmp_path / "r.tar.gz")["included/1-app.log"]
    assert len(included) < 1024 * 1024 + 100
    lines = io.BytesIO(included).read().decode().splitlines()
    assert lines[0] == "[...]"
    assert lines[1].startswith("line ")
    assert lines[-1] == "line 199999"


async def test_no_file_is_overwritten(tb_mqtt, device, tmp_path):
    (tmp_path / "r.tar.gz").write_text("mine")
    done = await tb_mqtt("diag", "-o", "r.tar.gz", "--no-connect", env=device, cwd=tmp_path)
    assert (done.code, (tmp_path / "r.tar.gz").read_text()) == (2, "mine")
    missing = await tb_mqtt("diag", "--no-connect", "--include", "none.log", env=device, cwd=tmp_path)
    assert missing.code == 2
    assert "--include: none.log cannot be read" in missing.err
    assert os.listdir(tmp_path) == ["r.tar.gz"]
