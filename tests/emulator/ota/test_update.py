"""Firmware and software updates from the assignment to the callback, and packages that cannot be used."""

import asyncio
import random
import sys
import tracemalloc

import pytest
from ota_platform import ALL_STATES, IMAGE, Installer, OtaPlatform, config, subscriptions, update

from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.constants.firmware import FirmwareStates, PackageKind
from tb_mqtt_client.emulator.checksums import checksum

# Updates without a fault.


@pytest.mark.parametrize("version", [4, 5])
async def test_an_update_with_the_arguments_of_sdk_2(emulator, platform, tmp_path, version):
    """The arguments have SDK 2.0's order. The callback gets bytes and a dict, and the file is named after the title."""
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
    assert platform.requests == [(0, 1, 0, 32768)]
    latest = {point.key: point.value for point in emulator.device("device").telemetry}
    assert latest.items() >= info.items()


async def test_defect_62_an_image_is_downloaded_in_chunks_with_progress(client, platform, tmp_path):
    await platform.assign("main.bin", "2.0", IMAGE)
    progress = []
    result = await update(client, firmware_save_path=tmp_path, on_progress=lambda *numbers: progress.append(numbers))
    assert result.state is FirmwareStates.UPDATED
    assert platform.requests == [(0, 1, number, 1000) for number in range(10)]
    assert progress == [((number + 1) * 1000, 10_000) for number in range(10)]


@pytest.mark.parametrize("algorithm", ["MD5", "SHA256", "SHA384", "SHA512", "CRC32", "MURMUR3_32", "MURMUR3_128"])
async def test_contract_9_all_checksums_of_the_platform(client, platform, algorithm):
    # Choose an image whose checksum begins with zeros.
    image = next(image for number in range(10**6) if checksum(algorithm, image := b"%d" % number).startswith("00"))
    await platform.assign("main.bin", "2.0", image, algorithm=algorithm)
    installer = Installer()
    assert (await update(client, save_firmware=False, on_package=installer)).state is FirmwareStates.UPDATED
    assert installer.images == [image]


async def test_a_software_update(client, emulator, platform, tmp_path):
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


async def test_an_update_of_a_gateway(emulator, tmp_path):
    platform = OtaPlatform(emulator, "gateway")
    gateway = GatewayClient(config(emulator, "GATEWAY"))
    await gateway.connect()
    await platform.assign("gateway.bin", "2", IMAGE)
    assert (await update(gateway, firmware_save_path=tmp_path)).path.read_bytes() == IMAGE
    await gateway.stop()


async def test_an_image_that_is_not_saved_exists_during_the_callback(client, platform, tmp_path):
    await platform.assign("../main.bin", "2.0", IMAGE)
    installer = Installer()
    result = await update(client, save_firmware=False, on_package=installer)
    assert (result.state, result.path) == (FirmwareStates.UPDATED, None)
    [(package, path)] = installer.packages
    assert (package.title, installer.images) == ("../main.bin", [IMAGE])
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []


async def test_the_callback_may_be_a_plain_function(client, platform, tmp_path):
    await platform.assign("main.bin", "2.0", IMAGE)
    got = []
    await update(client, on_received_callback=lambda image, info: got.append((image, info)), firmware_save_path=tmp_path)
    assert got[0][0] == IMAGE


async def test_contract_9_ota_a_package_with_a_url_is_passed_to_the_callback(client, platform, tmp_path):
    await platform.assign("main.bin", "2.0", url="coap://example.org/image")
    installer = Installer()
    result = await update(client, on_package=installer, firmware_save_path=tmp_path)
    [(package, path)] = installer.packages
    assert (package.url, package.size, path) == ("coap://example.org/image", None, None)
    assert (result.state, platform.requests) == (FirmwareStates.UPDATED, [])
    await client.stop()
    assert platform.states() == ["IDLE", "UPDATING", "UPDATED"]


async def test_contract_9_ota_a_package_with_a_url_fails_without_on_package(client, platform, tmp_path):
    """``on_received_callback`` needs an image, which the platform does not have."""
    await platform.assign("main.bin", "2.0", url="coap://example.org/image")
    got = []
    result = await update(client, on_received_callback=lambda *it: got.append(it), firmware_save_path=tmp_path)
    assert (result.state, got, platform.requests) == (FirmwareStates.FAILED, [], [])
    assert "on_package is needed" in result.error


async def test_an_installed_package_is_not_downloaded_again(client, platform, tmp_path):
    await platform.assign("main.bin", "2.0", IMAGE)
    client.firmware_updater.current_firmware_info = {"current_fw_title": "main.bin", "current_fw_version": "2.0"}
    result = await update(client, firmware_save_path=tmp_path)
    assert (result.state, result.package.version, platform.requests) == (FirmwareStates.IDLE, "2.0", [])


async def test_without_an_assigned_package(client, platform, tmp_path):
    result = await update(client, firmware_save_path=tmp_path)
    assert (result.state, result.package, result.error) == (FirmwareStates.IDLE, None, None)
    await client.stop()
    assert platform.states() == ["IDLE"]


async def test_each_update_has_a_request_id_of_its_own(client, platform, tmp_path):
    """For a used request id, the platform serves the package that it cached for it."""
    for version, image in (("1", IMAGE), ("2", IMAGE[::-1])):
        await platform.assign("main.bin", version, image)
        assert (await update(client, firmware_save_path=tmp_path)).path.read_bytes() == image
    assert {request_id for _, request_id, _, _ in platform.requests} == {1, 2}


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


# Packages that cannot be used.


@pytest.mark.parametrize(
    ("others", "error"),
    [
        ({"size": None}, "the attribute fw_size is missing"),
        ({"checksum": None}, "the attribute fw_checksum is missing"),
        ({"version": None}, "the attribute fw_version is missing"),
        ({"size": "many"}, "the attribute fw_size must be a number of bytes, not 'many'"),
        ({"checksum_algorithm": "SHA3"}, "unknown checksum algorithm 'SHA3'"),
        ({"title": "../.."}, "fw_title '../..' cannot be used as a file name"),
    ],
)
async def test_an_unusable_package_is_not_downloaded(client, platform, tmp_path, others, error):
    await platform.assign("main.bin", "2.0", IMAGE)
    await platform.change(**others)
    result = await update(client, firmware_save_path=tmp_path)
    assert (result.state, platform.requests) == (FirmwareStates.FAILED, [])
    assert error in result.error
    await client.stop()
    assert platform.states() == ["IDLE", "FAILED", result.error]


async def test_defect_61_the_size_may_be_text(client, platform, tmp_path):
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


async def test_defect_64_murmur3_without_the_package_mmh3(client, platform, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmh3", None)
    await platform.assign("main.bin", "2.0", IMAGE, algorithm="MURMUR3_128")
    result = await update(client, firmware_save_path=tmp_path)
    assert (result.state, platform.requests) == (FirmwareStates.FAILED, [])
    assert "pip install mmh3" in result.error


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
async def test_an_exception_of_a_callback_is_a_failure(client, platform, tmp_path, name, error, caplog):
    await platform.assign("main.bin", "2.0", IMAGE)

    async def install(*_):
        raise error

    result = await update(client, firmware_save_path=tmp_path, **{name: install})
    assert result.state is FirmwareStates.FAILED
    assert client.firmware_updater.current_firmware_info["current_fw_version"] == "v0"
    assert "Traceback" in caplog.text
    await client.stop()
    *states, reported = platform.states()
    assert states == [*ALL_STATES[:-1], "FAILED"]
    assert reported == result.error[:1000].replace("\ud800", "?")


async def test_exceptions_of_on_progress_are_counted_and_do_not_end_the_update(client, platform, tmp_path):
    await platform.assign("main.bin", "2.0", IMAGE)

    async def on_progress(_received, _size):
        raise ValueError("bar")

    assert (await update(client, firmware_save_path=tmp_path, on_progress=on_progress)).state is FirmwareStates.UPDATED
    assert client.statistics.callback_errors == 10


@pytest.mark.parametrize("in_own_task", [False, True])
async def test_a_callback_may_stop_the_client(emulator, platform, tmp_path, in_own_task):
    """A callback that restarts the device does this."""
    client = DeviceClient(config(emulator))
    await client.connect()
    await platform.assign("main.bin", "2.0", IMAGE)

    async def install(_package, _path):
        await (asyncio.create_task(client.stop()) if in_own_task else client.stop())

    result = await update(client, firmware_save_path=tmp_path, on_package=install)
    assert result.state is FirmwareStates.UPDATED
    assert platform.states()[-1] == "UPDATING"
