"""Firmware and software from their assignment to the callback: what goes well, and which packages cannot be used."""

import asyncio
import random
import sys
import tracemalloc

import pytest
from ota_platform import ALL_STATES, IMAGE, Installer, OtaPlatform, config, subscriptions, update

from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.constants.firmware import FirmwareStates, PackageKind
from tb_mqtt_client.emulator.checksums import checksum

# All goes well.


@pytest.mark.parametrize("version", [4, 5])
async def test_published_form(emulator, platform, tmp_path, version):
    """SDK 2.0's arguments, in its order: bytes and a dict to a coroutine function, and a file under the title's name."""
    client = DeviceClient(config(emulator, mqtt_version=version))
    await client.connect()
    await platform.assign("main.bin", "2.0", IMAGE)
    received = []

    async def on_received(image, info):
        received.append((image, info))

    result = await (await client.update_firmware(on_received, True, str(tmp_path)))
    info = {"current_fw_title": "main.bin", "current_fw_version": "2.0", "fw_state": "UPDATED"}
    assert received == [(IMAGE, info)]
    assert client.firmware_updater.current_firmware_info == info
    assert (result.state, result.path, result.error) == (FirmwareStates.UPDATED, tmp_path / "main.bin", None)
    assert (result.package.kind, result.package.title, result.package.size) == (PackageKind.FIRMWARE, "main.bin", len(IMAGE))
    assert (tmp_path / "main.bin").read_bytes() == IMAGE
    await client.send_timeseries({"end": 1})
    assert subscriptions(emulator) == set()
    await client.stop()
    assert platform.states() == ALL_STATES
    assert platform.asked == [(0, 1, 0, 32768)]
    latest = {point.key: point.value for point in emulator.device("device").telemetry}
    assert latest.items() >= info.items()


async def test_defect_62_in_chunks_with_progress(client, platform, tmp_path):
    await platform.assign("main.bin", "2.0", IMAGE)
    progress = []
    result = await update(client, firmware_save_path=tmp_path, on_progress=lambda *so_far: progress.append(so_far))
    assert result.state is FirmwareStates.UPDATED
    assert platform.asked == [(0, 1, number, 1000) for number in range(10)]
    assert progress == [((number + 1) * 1000, 10_000) for number in range(10)]


@pytest.mark.parametrize("algorithm", ["MD5", "SHA256", "SHA384", "SHA512", "CRC32", "MURMUR3_32", "MURMUR3_128"])
async def test_contract_9_all_checksums_of_the_platform(client, platform, algorithm):
    # One whose checksum begins with zeros.
    image = next(image for number in range(10**6) if checksum(algorithm, image := b"%d" % number).startswith("00"))
    await platform.assign("main.bin", "2.0", image, algorithm=algorithm)
    installer = Installer()
    assert (await update(client, save_firmware=False, on_package=installer)).state is FirmwareStates.UPDATED
    assert installer.images == [image]


async def test_software(client, emulator, platform, tmp_path):
    await platform.assign("app", "3", IMAGE, kind="sw")
    await platform.assign("firmware", "1", b"other")
    result = await update(client, kind="sw", firmware_save_path=tmp_path)
    assert (result.state, result.package.kind) == (FirmwareStates.UPDATED, PackageKind.SOFTWARE)
    assert (tmp_path / "app").read_bytes() == IMAGE
    info = {"current_sw_title": "app", "current_sw_version": "3", "sw_state": "UPDATED"}
    assert client.firmware_updater.current_software_info == info
    assert client.firmware_updater.current_firmware_info["current_fw_title"] == "Initial"
    await client.stop()
    assert (platform.states("sw"), platform.states("fw")) == (ALL_STATES, [])


async def test_a_gateway_updates_itself_too(emulator, tmp_path):
    platform = OtaPlatform(emulator, "gateway")
    gateway = GatewayClient(config(emulator, "GATEWAY"))
    await gateway.connect()
    await platform.assign("gateway.bin", "2", IMAGE)
    assert (await update(gateway, firmware_save_path=tmp_path)).path.read_bytes() == IMAGE
    await gateway.stop()


async def test_an_image_that_is_not_kept_is_there_for_the_callback(client, platform, tmp_path):
    await platform.assign("../main.bin", "2.0", IMAGE)
    installer = Installer()
    result = await update(client, save_firmware=False, on_package=installer)
    assert (result.state, result.path) == (FirmwareStates.UPDATED, None)
    [(package, path)] = installer.packages
    assert (package.title, installer.images) == ("../main.bin", [IMAGE])
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []


async def test_a_plain_function_installs_too(client, platform, tmp_path):
    await platform.assign("main.bin", "2.0", IMAGE)
    got = []
    await update(client, on_received_callback=lambda image, info: got.append((image, info)), firmware_save_path=tmp_path)
    assert got[0][0] == IMAGE


async def test_contract_9_ota_a_package_at_a_url_is_handed_over(client, platform, tmp_path):
    await platform.assign("main.bin", "2.0", url="coap://example.org/image")
    installer = Installer()
    result = await update(client, on_package=installer, firmware_save_path=tmp_path)
    [(package, path)] = installer.packages
    assert (package.url, package.size, path) == ("coap://example.org/image", None, None)
    assert (result.state, platform.asked) == (FirmwareStates.UPDATED, [])
    await client.stop()
    assert platform.states() == ["IDLE", "UPDATING", "UPDATED"]


async def test_contract_9_ota_a_package_at_a_url_for_who_cannot_fetch_it(client, platform, tmp_path):
    """Bytes that nobody has are not handed over as an image of none."""
    await platform.assign("main.bin", "2.0", url="coap://example.org/image")
    got = []
    result = await update(client, on_received_callback=lambda *it: got.append(it), firmware_save_path=tmp_path)
    assert (result.state, got, platform.asked) == (FirmwareStates.FAILED, [], [])
    assert "on_package is needed" in result.error


async def test_what_the_device_has_is_not_fetched_again(client, platform, tmp_path):
    await platform.assign("main.bin", "2.0", IMAGE)
    client.firmware_updater.current_firmware_info = {"current_fw_title": "main.bin", "current_fw_version": "2.0"}
    result = await update(client, firmware_save_path=tmp_path)
    assert (result.state, result.package.version, platform.asked) == (FirmwareStates.IDLE, "2.0", [])


async def test_nothing_is_assigned(client, platform, tmp_path):
    result = await update(client, firmware_save_path=tmp_path)
    assert (result.state, result.package, result.error) == (FirmwareStates.IDLE, None, None)
    await client.stop()
    assert platform.states() == ["IDLE"]


async def test_each_update_has_a_request_id_of_its_own(client, platform, tmp_path):
    """The platform serves by an old one what it found for it first."""
    for version, image in (("1", IMAGE), ("2", IMAGE[::-1])):
        await platform.assign("main.bin", version, image)
        assert (await update(client, firmware_save_path=tmp_path)).path.read_bytes() == image
    assert {request_id for _, request_id, _, _ in platform.asked} == {1, 2}


async def test_the_image_is_not_kept_in_memory(client, platform, tmp_path):
    image = random.Random(2).randbytes(8 * 2**20)
    await platform.assign("main.bin", "2.0", image)
    installer = []
    tracemalloc.start()
    try:
        await update(client, chunk_size=32768, firmware_save_path=tmp_path, on_package=lambda *it: installer.append(it))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "main.bin").stat().st_size == len(image)
    assert peak < len(image) / 4


# What can be wrong with a package.


@pytest.mark.parametrize(
    ("others", "error"),
    [
        ({"size": None}, "the attribute fw_size is missing"),
        ({"checksum": None}, "the attribute fw_checksum is missing"),
        ({"version": None}, "the attribute fw_version is missing"),
        ({"size": "many"}, "the attribute fw_size must be a number of bytes, not 'many'"),
        ({"checksum_algorithm": "SHA3"}, "unknown checksum algorithm 'SHA3'"),
        ({"title": "../.."}, "fw_title '../..' is no name for a file"),
    ],
)
async def test_a_package_that_cannot_be_used_is_not_fetched(client, platform, tmp_path, others, error):
    await platform.assign("main.bin", "2.0", IMAGE)
    await platform.change(**others)
    result = await update(client, firmware_save_path=tmp_path)
    assert (result.state, platform.asked) == (FirmwareStates.FAILED, [])
    assert error in result.error
    await client.stop()
    assert platform.states() == ["IDLE", "FAILED", result.error]


async def test_defect_61_a_size_as_text(client, platform, tmp_path):
    await platform.assign("main.bin", "2.0", IMAGE)
    await platform.change(size=str(len(IMAGE)))
    assert (await update(client, firmware_save_path=tmp_path)).state is FirmwareStates.UPDATED


@pytest.mark.parametrize("title", ["../escaped", "..\\escaped", "/escaped", "C:\\escaped"])
async def test_defect_63_no_title_leaves_the_folder(client, platform, tmp_path, title):
    folder = tmp_path / "inner"
    folder.mkdir()
    await platform.assign(title, "2.0", IMAGE)
    assert (await update(client, firmware_save_path=folder)).path == folder / "escaped"
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]


async def test_a_wrong_checksum(client, emulator, platform, tmp_path):
    await platform.assign("main.bin", "2.0", IMAGE)
    await platform.change(checksum=checksum("SHA256", b"other"))
    installer = Installer()
    result = await update(client, firmware_save_path=tmp_path, on_package=installer)
    assert (result.state, installer.packages, list(tmp_path.iterdir())) == (FirmwareStates.FAILED, [], [])
    assert client.firmware_updater.current_firmware_info == {
        "current_fw_title": "Initial",
        "current_fw_version": "v0",
        "fw_state": "FAILED",
    }
    await client.send_timeseries({"end": 1})
    assert subscriptions(emulator) == set()
    await client.stop()
    assert platform.states() == ["IDLE", "DOWNLOADING", "DOWNLOADED", "FAILED", result.error]


async def test_defect_64_murmur_without_its_package(client, platform, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmh3", None)
    await platform.assign("main.bin", "2.0", IMAGE, algorithm="MURMUR3_128")
    result = await update(client, firmware_save_path=tmp_path)
    assert (result.state, platform.asked) == (FirmwareStates.FAILED, [])
    assert "pip install 'tb-mqtt-client[firmware]'" in result.error


async def test_a_file_that_cannot_be_written(client, platform, tmp_path):
    (tmp_path / "main.bin").mkdir()
    await platform.assign("main.bin", "2.0", IMAGE)
    installer = Installer()
    result = await update(client, firmware_save_path=tmp_path, on_package=installer)
    assert (result.state, installer.packages) == (FirmwareStates.FAILED, [])
    await client.stop()
    assert platform.states()[:5] == ["IDLE", "DOWNLOADING", "DOWNLOADED", "VERIFIED", "FAILED"]


# Callbacks.


@pytest.mark.parametrize("name", ["on_package", "on_received_callback"])
@pytest.mark.parametrize("error", [KeyError("flash"), asyncio.CancelledError(), ValueError("\ud800" * 5000)])
async def test_a_callback_that_raises_makes_it_failed(client, platform, tmp_path, name, error, caplog):
    await platform.assign("main.bin", "2.0", IMAGE)

    async def install(*_):
        raise error

    result = await update(client, firmware_save_path=tmp_path, **{name: install})
    assert result.state is FirmwareStates.FAILED
    assert client.firmware_updater.current_firmware_info["current_fw_version"] == "v0"
    assert "Traceback" in caplog.text
    await client.stop()
    *states, told = platform.states()
    assert states == [*ALL_STATES[:-1], "FAILED"]
    assert told == result.error[:1000].replace("\ud800", "?")


async def test_progress_that_raises_is_counted_and_does_no_harm(client, platform, tmp_path):
    await platform.assign("main.bin", "2.0", IMAGE)

    async def on_progress(_received, _size):
        raise ValueError("bar")

    assert (await update(client, firmware_save_path=tmp_path, on_progress=on_progress)).state is FirmwareStates.UPDATED
    assert client.statistics.callback_errors == 10


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_callback_that_stops_the_client(emulator, platform, tmp_path, elsewhere):
    """As one does that restarts the device."""
    client = DeviceClient(config(emulator))
    await client.connect()
    await platform.assign("main.bin", "2.0", IMAGE)

    async def install(_package, _path):
        await (asyncio.create_task(client.stop()) if elsewhere else client.stop())

    result = await update(client, firmware_save_path=tmp_path, on_package=install)
    assert result.state is FirmwareStates.UPDATED
    assert platform.states()[-1] == "UPDATING"
