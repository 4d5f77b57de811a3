"""``tb-mqtt firmware`` downloads, verifies and saves the assigned package, and reports each state to the platform."""

import asyncio
import signal

import pytest
from command_line import finished

from tb_mqtt_client.emulator import OtaPackage

IMAGE = bytes(range(256)) * 400


def states(emulator):
    return [point.value for point in emulator.device("device").telemetry if point.key == "fw_state"]


@pytest.mark.parametrize("algorithm", ["SHA256", "CRC32", "MD5"])
async def test_firmware_downloads_and_verifies_an_image(tb_mqtt, emulator, device, tmp_path, algorithm):
    await emulator.assign_package("device", OtaPackage("pump.bin", "1.2", IMAGE, checksum_algorithm=algorithm))
    done = await tb_mqtt("firmware", "--save", str(tmp_path), "--json", env=device)
    assert (done.code, done.err) == (0, "")
    assert (done.json["state"], done.json["title"], done.json["version"]) == ("UPDATED", "pump.bin", "1.2")
    assert (done.json["size"], done.json["checksum_algorithm"]) == (len(IMAGE), algorithm)
    assert done.json["path"] == str(tmp_path / "pump.bin")
    assert (tmp_path / "pump.bin").read_bytes() == IMAGE
    assert states(emulator)[1:] == ["DOWNLOADING", "DOWNLOADED", "VERIFIED", "UPDATING", "UPDATED"]


async def test_firmware_prints_the_saved_image(tb_mqtt, emulator, device, tmp_path):
    await emulator.assign_package("device", OtaPackage("pump.bin", "1.2", IMAGE))
    done = await tb_mqtt("firmware", "--chunk-size", "1000", env=device, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"✓ pump.bin 1.2, 102,400 bytes, SHA256 verified: {tmp_path / 'pump.bin'}\n"


async def test_firmware_downloads_nothing_that_is_installed(tb_mqtt, emulator, device, tmp_path):
    done = await tb_mqtt("firmware", env=device, cwd=tmp_path)
    assert (done.code, done.out) == (0, "✓ nothing is assigned\n")
    await emulator.assign_package("device", OtaPackage("pump.bin", "1.2", IMAGE))
    done = await tb_mqtt("firmware", "--current", "pump.bin", "1.2", env=device, cwd=tmp_path)
    assert (done.code, done.out) == (0, "✓ pump.bin 1.2 is already installed\n")
    assert list(tmp_path.iterdir()) == []


async def test_firmware_downloads_software(tb_mqtt, emulator, device, tmp_path):
    await emulator.assign_package("device", OtaPackage("app.zip", "3", b"software", kind="sw"))
    done = await tb_mqtt("firmware", "--kind", "sw", "--json", env=device, cwd=tmp_path)
    assert (done.code, done.json["kind"]) == (0, "sw")
    assert (tmp_path / "app.zip").read_bytes() == b"software"


async def test_firmware_reports_a_wrong_checksum(tb_mqtt, emulator, device, tmp_path):
    await emulator.assign_package("device", OtaPackage("pump.bin", "1.2", IMAGE))
    emulator.device("device").shared_attributes["fw_checksum"] = "0" * 64
    done = await tb_mqtt("firmware", "--json", env=device, cwd=tmp_path)
    assert (done.code, done.json["state"]) == (1, "FAILED")
    assert "The update failed: " in done.err
    assert states(emulator)[-1] == "FAILED"
    assert list(tmp_path.iterdir()) == []


async def test_firmware_reports_a_package_that_is_stored_elsewhere(tb_mqtt, emulator, device, tmp_path):
    await emulator.assign_package("device", OtaPackage("pump.bin", "1.2", url="https://example.com/pump.bin"))
    done = await tb_mqtt("firmware", env=device, cwd=tmp_path)
    assert (done.code, "https://example.com/pump.bin" in done.err) == (1, True)


async def test_ctrl_c_removes_the_unfinished_download(tb_mqtt, emulator, device, tmp_path):
    await emulator.assign_package("device", OtaPackage("pump.bin", "1.2", IMAGE))
    requested = asyncio.Event()
    emulator.on_publish = lambda publish: requested.set() if publish.topic.endswith("/chunk/5") else None
    process = await tb_mqtt.start("firmware", "--chunk-size", "10", "--save", str(tmp_path), env=device)
    await requested.wait()
    process.send_signal(signal.SIGINT)
    done = await finished(process)
    assert done.code == 130
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


async def test_firmware_reports_a_missing_folder(tb_mqtt, device):
    done = await tb_mqtt("firmware", "--save", "/nowhere/at/all", env=device)
    assert (done.code, "does not exist" in done.err) == (2, True)
