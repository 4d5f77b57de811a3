"""``tb-mqtt agent``: the input reaches the platform, and files are removed when their data is safe."""

import asyncio
import json
import os
import signal
import socket
from contextlib import asynccontextmanager

import pytest
from command_line import finished

# Windows has no limits of this kind.
resource = pytest.importorskip("resource") if os.name == "posix" else None


@pytest.fixture
def spool(tmp_path):
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


@pytest.fixture
def agent(tb_mqtt, tmp_path, device):
    """Return a function that runs the agent with a table of the configuration."""

    def run(table, *arguments, environment=device, **options):
        (tmp_path / "agent.toml").write_text(f'store = "store"\n\n[agent]\n{table}\n')
        return tb_mqtt("agent", "--config", "agent.toml", *arguments, env=environment, cwd=tmp_path, **options)

    return run


@pytest.fixture
def service(tb_mqtt, tmp_path, device):
    """Return a context manager that runs the agent without --once, and ends it with SIGTERM."""

    @asynccontextmanager
    async def run(table):
        (tmp_path / "agent.toml").write_text(f'store = "store"\n\n[agent]\n{table}\n')
        process = await tb_mqtt.start("agent", "--config", "agent.toml", env=device, cwd=tmp_path)
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            done = await finished(process)
            assert (done.code, "Traceback" in done.err) == (0, False), done.err
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    return run


def points(emulator, name="device"):
    return [(point.key, point.value) for point in emulator.device(name).telemetry]


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def write(path, *lines):
    """Write lines to the agent's socket, and return its answer."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write("".join(f"{line}\n" for line in lines).encode())
    writer.write_eof()
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return json.loads(answer)


async def test_files_of_a_directory_are_delivered_and_deleted(agent, emulator, spool):
    (spool / "1.ndjson").write_text('{"ts": 1700000000000, "values": {"a": 1}}\n{"ts": 1700000000001, "values": {"a": 2}}\n')
    (spool / "2.ndjson.tmp").write_text("not complete")
    done = await agent('directory = "spool"', "--once")
    assert done.code == 0, done.err
    assert points(emulator) == [("a", 1), ("a", 2)]
    assert [path.name for path in spool.iterdir()] == ["2.ndjson.tmp"]


async def test_a_file_with_bad_lines_is_kept(agent, emulator, spool):
    (spool / "1.ndjson").write_text('{"a": 1}\nnot JSON\n')
    done = await agent('directory = "spool"', "--once")
    assert done.code == 5, done.err
    assert points(emulator) == [("a", 1)]
    assert [path.name for path in spool.iterdir()] == ["1.ndjson.bad"]


async def test_files_are_renamed(agent, emulator, spool):
    (spool / "1.line").write_text("room,floor=2 temperature=21.5,open=f 1700000000000000000\n")
    done = await agent('directory = "spool"\nafter = "rename"\nformat = "line"', "--once")
    assert done.code == 0, done.err
    assert points(emulator) == [("room.2.temperature", 21.5), ("room.2.open", False)]
    assert [path.name for path in spool.iterdir()] == ["1.line.done"]


async def test_without_a_connection_the_data_is_kept_in_the_store(agent, emulator, spool, device, tmp_path):
    (spool / "1.ndjson").write_text('{"ts": 1700000000000, "values": {"a": 1}}\n')
    done = await agent('directory = "spool"', "--once", "--timeout", "1", environment=device | {"TB_PORT": "1"})
    assert done.code == 3, done.err
    assert list(spool.iterdir()) == []


async def test_standard_input_is_delivered(agent, emulator):
    done = await agent("", "--once", input='{"ts": 1700000000000, "values": {"a": 1}}\n')
    assert done.code == 0, done.err
    assert points(emulator) == [("a", 1)]
    assert done.out.startswith("1 record: ")


async def test_csv_with_an_unusable_header_is_kept(agent, emulator, spool):
    (spool / "1.csv").write_text("ts,a,a\n1,2,3\n")
    (spool / "1.csv.bad").write_text("from before")
    (spool / "2.csv").write_text("ts,a\n1700000000000,7\n")
    done = await agent('directory = "spool"\nformat = "csv"', "--once")
    assert done.code == 5, done.err
    assert points(emulator) == [("a", 7)]
    assert {path.name: path.read_text() for path in spool.iterdir()} == {
        "1.csv.bad": "from before",
        "1.csv.2.bad": "ts,a,a\n1,2,3\n",
    }


async def test_records_of_sub_devices(agent, emulator, gateway, spool):
    (spool / "1.line").write_text("room,device=boiler temperature=21.5 1700000000\n")
    table = 'directory = "spool"\nformat = "line"\nts_unit = "s"\ngateway = true'
    done = await agent(table, "--once", environment=gateway)
    assert done.code == 0, done.err
    [point] = emulator.device("boiler").telemetry
    assert (point.key, point.value, point.ts) == ("room.temperature", 21.5, 1700000000000)


async def test_data_of_sub_devices_is_kept_without_a_connection(agent, emulator, gateway, spool):
    (spool / "1.ndjson").write_text('{"device": "boiler", "ts": 1700000000000, "a": 1}\n')
    table = 'directory = "spool"\ngateway = true'
    done = await agent(table, "--once", "--timeout", "1", environment=gateway | {"TB_PORT": "1"})
    assert done.code == 3, done.err
    assert list(spool.iterdir()) == []


async def test_what_was_kept_is_delivered_later(agent, emulator, spool, device):
    (spool / "1.ndjson").write_text('{"ts": 1700000000000, "values": {"a": 1}}\n')
    # The same server: a store belongs to one.
    port = emulator.port
    await emulator.stop()
    assert (await agent('directory = "spool"', "--once", "--timeout", "1")).code == 3
    await emulator.start()
    assert emulator.port == port
    done = await agent('directory = "spool"', "--once")
    assert done.code == 0, done.err
    assert points(emulator) == [("a", 1)]


async def test_files_that_are_moved_into_the_directory_are_delivered(service, emulator, spool):
    pytest.importorskip("asyncinotify")
    (spool / "1.ndjson").write_text('{"ts": 1700000000000, "values": {"a": 1}}\n')
    async with service('directory = "spool"'):
        await until(lambda: points(emulator) == [("a", 1)])
        (spool / "2.tmp").write_text('{"ts": 1700000000001, "values": {"a": 2}}\n')
        (spool / "2.tmp").rename(spool / "2.ndjson")
        await until(lambda: points(emulator) == [("a", 1), ("a", 2)])
        await until(lambda: list(spool.iterdir()) == [])


@pytest.mark.skipif(resource is None or not hasattr(resource, "prlimit"), reason="limits of another process are set on Linux only")
async def test_a_connection_waits_while_the_agent_has_no_descriptors(service, emulator, tmp_path):
    path = tmp_path / "agent.sock"
    async with service('socket = "agent.sock"') as process:
        await until(path.exists)
        # The first connection shows that everything else is open.
        await write(path, '{"ts": 1700000000000, "values": {"a": 1}}')
        used = {int(name) for name in os.listdir(f"/proc/{process.pid}/fd")}
        allowed = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        lowest_free = next(number for number in range(1000) if number not in used)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (lowest_free, allowed[1]))
        answer = asyncio.ensure_future(write(path, '{"ts": 1700000000001, "values": {"a": 2}}'))
        async with asyncio.timeout(60):
            while b"has to wait: Too many open files" not in (line := await process.stderr.readline()):
                assert line, "the agent has ended"
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, allowed)
        assert await answer == {"records": 1, "bad_lines": 0}
        await until(lambda: points(emulator) == [("a", 1), ("a", 2)])


async def test_programs_write_to_the_socket(service, emulator, tmp_path):
    path = tmp_path / "agent.sock"
    async with service('socket = "agent.sock"'):
        await until(path.exists)
        answers = await asyncio.gather(
            write(path, '{"ts": 1700000000000, "values": {"a": 1}}', '{"ts": 1700000000001, "values": {"a": 2}}'),
            write(path, '{"ts": 1700000000002, "values": {"a": 3}}', "not JSON"),
        )
        assert answers == [{"records": 2, "bad_lines": 0}, {"records": 1, "bad_lines": 1}]
        await until(lambda: sorted(points(emulator)) == [("a", 1), ("a", 2), ("a", 3)])
        # A program that has not finished does not keep the agent from ending.
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"ts": 1700000000003, "values": {"a": 4}}\n')
        await until(lambda: ("a", 4) in points(emulator))
    writer.close()
    assert not path.exists()


async def test_the_socket_of_a_dead_process_is_replaced(service, tmp_path):
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with service('socket = "agent.sock"'):

        async def is_served():
            try:
                return await write(path) == {"records": 0, "bad_lines": 0}
            except ConnectionRefusedError:
                return False

        async with asyncio.timeout(60):
            while not await is_served():  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_another_file_at_the_path_of_the_socket_is_not_removed(agent, tmp_path):
    (tmp_path / "agent.sock").write_text("other")
    done = await agent('socket = "agent.sock"')
    assert (done.code, "another file at this path" in done.err) == (2, True), done.err
    assert (tmp_path / "agent.sock").read_text() == "other"


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ('director = "spool"', "unknown key 'director'"),
        ('directory = "spool"\nsocket = "s"', "give only one of them"),
        ('format = "xml"', "format"),
        ("stop_timeout = 0", "stop_timeout must be a positive number of seconds"),
    ],
)
async def test_an_unusable_table_is_refused(agent, spool, table, text):
    done = await agent(table, "--once")
    assert (done.code, text in done.err) == (2, True), done.err


async def test_a_port_for_health_checks_must_be_usable(agent):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await agent(f'socket = "agent.sock"\nhealth_port = {port}')
    assert (done.code, f"health_port: 127.0.0.1:{port} cannot be used" in done.err) == (2, True), done.err
    assert "Traceback" not in done.err
    done = await agent("health_port = 70000")
    assert (done.code, "health_port must be between 1 and 65535, not 70000" in done.err) == (2, True), done.err


async def test_once_needs_input_that_ends(agent):
    done = await agent('socket = "agent.sock"', "--once")
    assert (done.code, "--once needs input that ends" in done.err) == (2, True), done.err


async def test_the_agent_needs_a_store(tb_mqtt, device, tmp_path):
    done = await tb_mqtt("agent", "--once", env=device, cwd=tmp_path)
    assert (done.code, "The agent needs a store" in done.err) == (2, True), done.err


async def test_check_shows_the_settings(tb_mqtt, device, spool, tmp_path):
    text = 'store = "store"\n[agent]\ndirectory = "spool"\n[other]\nclient_id = "x"\n'
    (tmp_path / "agent.toml").write_text(text)
    done = await tb_mqtt("config", "check", "--config", str(tmp_path / "agent.toml"), env=device)
    assert done.code == 0, done.err
    assert f"store: {tmp_path / 'store'}" in done.out.replace("\n", "")
    assert f"agent: reads the directory {spool}" in done.out
    assert "DEVICE-TOKEN" not in done.out + done.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[agent]\ndirectory = "spool"\n', "The agent needs a store"),
        ('store = "store"\n[agent]\ndirectory = "missing"\n', "missing is not a directory"),
        ('store = "store"\n[agent]\nsocket = "missing/agent.sock"\n', "missing is not a directory"),
        ('agent = "spool"\n', "must be a table"),
        ('stor = "store"\n', "unknown key 'stor'"),
    ],
)
async def test_check_finds_mistakes(tb_mqtt, device, spool, tmp_path, text, message):
    (tmp_path / "agent.toml").write_text(text)
    done = await tb_mqtt("config", "check", "--config", "agent.toml", env=device, cwd=tmp_path)
    assert (done.code, message in done.err) == (2, True), done.err
