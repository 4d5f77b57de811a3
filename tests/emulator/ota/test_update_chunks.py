"""Late, repeated and missing chunks, errors from the platform, and lost connections."""

import random

import pytest
from ota_platform import ALL_STATES, DROP, IMAGE, OtaPlatform, config, once, subscriptions, update

from faulty_link import FaultyLink, connect_at_last
from tb_mqtt_client import DeviceClient
from tb_mqtt_client.constants.firmware import FirmwareStates
from tb_mqtt_client.emulator import Emulator, RateLimits, SessionLimits, Verdict

# Missing, repeated and wrong chunks.


async def test_contract_9_ota_a_missing_chunk_is_requested_again(client, platform, tmp_path):
    platform.fault = once(DROP, Verdict.ignore())
    await platform.assign("main.bin", "2.0", IMAGE)
    result = await update(client, firmware_save_path=tmp_path, chunk_timeout=0.2)
    assert result.path.read_bytes() == IMAGE
    assert platform.requests[2:7] == [(0, 1, 2, 1000), *[(0, 1, 3, 1000)] * 3, (0, 1, 4, 1000)]
    # The server does not acknowledge one of these requests.
    await client.stop(timeout=0)


async def test_contract_9_ota_a_chunk_that_is_never_sent(client, emulator, platform, tmp_path):
    platform.fault = once(*[DROP] * 5)
    await platform.assign("main.bin", "2.0", IMAGE)
    result = await update(client, firmware_save_path=tmp_path, chunk_timeout=0.1)
    assert (result.state, result.error) == (FirmwareStates.FAILED, "chunk 3: the platform did not respond")
    await client.send_timeseries({"end": 1})
    assert subscriptions(emulator) == set()


@pytest.mark.parametrize("wrong", [b"", b"short", b"x" * 1001])
async def test_contract_9_ota_an_evicted_package_is_requested_with_a_new_request_id(client, platform, tmp_path, wrong):
    platform.fault = once(wrong)
    await platform.assign("main.bin", "2.0", IMAGE)
    result = await update(client, firmware_save_path=tmp_path)
    assert result.path.read_bytes() == IMAGE
    assert platform.requests[2:6] == [(0, 1, 2, 1000), (0, 1, 3, 1000), (0, 2, 3, 1000), (0, 2, 4, 1000)]


async def test_contract_9_ota_the_platform_evicts_its_cache(client, emulator, platform, tmp_path):
    """The platform does so after an hour. Chunks are empty until a request has a new id."""
    evictions = iter([2, 5, 9])
    due = next(evictions)

    def evict(_kind, _request_id, number, _size):
        nonlocal due
        if number == due:
            due = next(evictions, None)
            emulator.evict_package_cache()

    platform.fault = evict
    await platform.assign("main.bin", "2.0", IMAGE)
    result = await update(client, firmware_save_path=tmp_path)
    assert result.path.read_bytes() == IMAGE
    assert len(platform.requests) == 13
    assert {request_id for _, request_id, _, _ in platform.requests} == {1, 2, 3, 4}


async def test_an_image_that_is_shorter_than_its_size(client, platform, tmp_path):
    await platform.assign("main.bin", "2.0", IMAGE)
    await platform.change(size=len(IMAGE) + 1)
    result = await update(client, firmware_save_path=tmp_path)
    assert (result.state, result.error) == (FirmwareStates.FAILED, "chunk 10: it has 0 bytes instead of 1")


async def test_defect_61_late_repeated_and_unrequested_chunks_are_ignored(client, platform, tmp_path):
    def noise(kind, request_id, number, _size):
        for topic in (
            f"v2/fw/response/{request_id}/chunk/{number - 1}",
            f"v2/fw/response/{request_id}/chunk/{number + 1}",
            f"v2/fw/response/{request_id + 1}/chunk/{number}",
            f"v2/sw/response/{request_id}/chunk/{number}",
            "v2/fw/response/x/chunk/y",
        ):
            platform.send(topic, b"\0" * 1000)

    platform.fault = noise
    await platform.assign("main.bin", "2.0", IMAGE)
    assert (await update(client, firmware_save_path=tmp_path)).path.read_bytes() == IMAGE
    # They are also ignored after the update.
    platform.send("v2/fw/response/1/chunk/9", b"late")
    platform.send("v2/fw/error", b"FAILURE")
    assert (await client.send_timeseries({"end": 1})).is_successful()


# Errors from the platform, after which it closes the connection.


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("kind", ["fw", "sw"])
async def test_contract_9_ota_errors_of_software_arrive_on_the_firmware_topic(emulator, platform, tmp_path, kind, version):
    client = DeviceClient(config(emulator, mqtt_version=version))
    await client.connect()
    platform.fault = once("FAILURE", "FAILURE")
    await platform.assign("main.bin", "2.0", IMAGE, kind=kind)
    result = await update(client, kind=kind, firmware_save_path=tmp_path)
    assert result.path.read_bytes() == IMAGE
    assert [entry for entry in platform.requests if entry[2] == 3] == [(0, 1, 3, 1000), (1, 2, 3, 1000), (2, 3, 3, 1000)]
    await client.stop()
    assert platform.states(kind) == ALL_STATES


async def test_contract_9_ota_not_found(client, emulator, platform, tmp_path):
    platform.fault = once("NOT_FOUND")
    await platform.assign("main.bin", "2.0", IMAGE)
    result = await update(client, firmware_save_path=tmp_path)
    assert (result.state, result.error) == (FirmwareStates.FAILED, "chunk 3: the platform reported NOT_FOUND")
    assert (await client.send_timeseries({"end": 1})).is_successful()
    assert subscriptions(emulator) == set()
    # The platform disconnects with the reason code of an exceeded limit, but no limit was exceeded.
    assert client.statistics.backpressure_pauses == 0
    await client.stop()
    assert platform.states()[-2:] == ["FAILED", result.error]


async def test_contract_9_ota_chunks_that_are_too_large(client, platform, tmp_path):
    platform.fault = lambda _kind, _request_id, _number, size: "PAYLOAD_TOO_LARGE" if size > 1000 else None
    await platform.assign("main.bin", "2.0", IMAGE)
    result = await update(client, firmware_save_path=tmp_path, chunk_size=4000)
    assert result.path.read_bytes() == IMAGE
    # A size may be requested more than once: the error is lost if the reset of the connection overtakes it.
    assert list(dict.fromkeys(entry[2:] for entry in platform.requests))[:4] == [(0, 4000), (0, 2000), (0, 1000), (1, 1000)]


async def test_chunks_fit_into_the_payload_limit_of_the_server(tmp_path):
    async with Emulator(max_payload_size=2000) as emulator:
        emulator.add_device("TOKEN", "device")
        platform = OtaPlatform(emulator)
        client = DeviceClient(config(emulator))
        await client.connect()
        await platform.assign("main.bin", "2.0", IMAGE)
        for chunk_size in (None, 5000):
            client.firmware_updater.current_firmware_info = {}
            await update(client, firmware_save_path=tmp_path, chunk_size=chunk_size)
        assert {size for *_, size in platform.requests} == {2000}
        await client.stop()


async def test_an_update_keeps_within_the_rate_limits(tmp_path):
    """The server counts only the first request with an id, so that an image of many chunks takes few tokens."""
    limits = SessionLimits(rate_limits=RateLimits(messages="20:60", telemetry_messages=None, telemetry_datapoints=None))
    async with Emulator(limits=limits) as emulator:
        emulator.add_device("TOKEN", "device")
        platform = OtaPlatform(emulator)
        client = DeviceClient(config(emulator))
        await client.connect()
        await platform.assign("main.bin", "2.0", IMAGE)
        assert (await update(client, firmware_save_path=tmp_path, chunk_size=100)).state is FirmwareStates.UPDATED
        assert len(platform.requests) == 100
        assert client.statistics.reconnects == 0
        await client.stop()


# Lost connections.


@pytest.mark.parametrize("seed", range(20))
async def test_contract_9_ota_downloads_resume_after_lost_connections(emulator, platform, tmp_path, seed):
    dice = random.Random(seed)

    def plan(connection):
        # The link is cut in one direction, during the handshake, the download, or anywhere between.
        if connection > 6:
            return None, None
        return (dice.randrange(1, 2000), None) if dice.random() < 0.5 else (None, dice.randrange(1, 8000))

    async with FaultyLink(emulator.host, emulator.port, plan) as link:
        client = DeviceClient(config(link))
        await connect_at_last(client)
        await platform.assign("main.bin", "2.0", IMAGE)
        result = await update(client, firmware_save_path=tmp_path, chunk_size=500, chunk_timeout=5.0)
        if result.state is FirmwareStates.UPDATED:
            assert result.path.read_bytes() == IMAGE
        else:
            # Five connections in a row were lost before a chunk arrived.
            assert result.error.startswith("chunk ")
        await client.stop()
    numbers = [number for _, _, number, _ in platform.requests]
    assert numbers == sorted(numbers), "a chunk was downloaded twice"
    by_session = {}
    for session, request_id, _, _ in platform.requests:
        assert by_session.setdefault(request_id, session) == session, "a request id was used in two sessions"


async def test_an_update_waits_for_a_stopped_server(emulator, platform, tmp_path):
    client = DeviceClient(config(emulator))
    await client.connect()
    await platform.assign("main.bin", "2.0", IMAGE)
    platform.fault = once(DROP)
    task = await client.update_firmware(firmware_save_path=tmp_path, chunk_size=1000)
    await platform.wait_requests(4)
    await emulator.stop()
    await emulator.start()
    assert (await task).path.read_bytes() == IMAGE
    await client.stop()
    # States from the time without a connection are sent later.
    assert platform.states() == ALL_STATES
