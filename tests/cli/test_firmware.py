"""``tb-mqtt firmware``: what is assigned is fetched, verified, saved and told to the platform."""

import asyncio
import signal

import pytest
from command_line import finished

from tb_mqtt_client.emulator import OtaPackage

IMAGE = bytes(range(256)) * 400


def states(emulator):
    return [point.value for point in emulator.device("device").telemetry if point.key == "fw_state"]


@pytest.mark.parametrize("algorithm", ["SHA256", "CRC32", "MD5"])
async def test_an_image(tb_mqtt, emulator, device, tmp_path, algorithm):
    await emulator.assign_package("device", OtaPackage("pump.bin", "1.2", IMAGE, checksum_algorithm=algorithm))
    done = await tb_mqtt("firmware", "--save", str(tmp_path), "--json", env=device)
    assert (done.code, done.err) == (0, "")
    assert (done.json["state"], done.json["title"], done.json["version"]) == ("UPDATED", "pump.bin", "1.2")
    assert (done.json["size"], done.json["checksum_algorithm"]) == (len(IMAGE), algorithm)
    assert done.json["path"] == str(tmp_path / "pump.bin")
    assert (tmp_path / "pump.bin").read_bytes() == IMAGE
    assert states(emulator)[1:] == ["DOWNLOADING", "DOWNLOADED", "VERIFIED", "UPDATING", "UPDATED"]


async def test_an_image_for_people(tb_mqtt, emulator, device, tmp_path):
    await emulator.assign_package("device", OtaPackage("pump.bin", "1.2", IMAGE))
    done = await tb_mqtt("firmware", "--chunk-size", "1000", env=device, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"✓ pump.bin 1.2, 102,400 bytes, SHA256 verified: {tmp_path / 'pump.bin'}\n"


async def test_nothing_to_do(tb_mqtt, emulator, device, tmp_path):
    done = await tb_mqtt("firmware", env=device, cwd=tmp_path)
    assert (done.code, done.out) == (0, "✓ nothing is assigned\n")
    await emulator.assign_package("device", OtaPackage("pump.bin", "1.2", IMAGE))
    done = await tb_mqtt("firmware", "--current", "pump.bin", "1.2", env=device, cwd=tmp_path)
    assert (done.code, done.out) == (0, "✓ pump.bin 1.2 is already installed\n")
    assert list(tmp_path.iterdir()) == []


async def test_software(tb_mqtt, emulator, device, tmp_path):
    await emulator.assign_package("device", OtaPackage("app.zip", "3", b"software", kind="sw"))
    done = await tb_mqtt("firmware", "--kind", "sw", "--json", env=device, cwd=tmp_path)
    assert (done.code, done.json["kind"]) == (0, "sw")
    assert (tmp_path / "app.zip").read_bytes() == b"software"


async def test_a_wrong_checksum(tb_mqtt, emulator, device, tmp_path):
    await emulator.assign_package("device", OtaPackage("pump.bin", "1.2", IMAGE))
    emulator.device("device").shared_attributes["fw_checksum"] = "0" * 64
    done = await tb_mqtt("firmware", "--json", env=device, cwd=tmp_path)
    assert (done.code, done.json["state"]) == (1, "FAILED")
    assert "The update failed: " in done.err
    assert states(emulator)[-1] == "FAILED"
    assert list(tmp_path.iterdir()) == []


async def test_a_package_that_is_elsewhere(tb_mqtt, emulator, device, tmp_path):
    await emulator.assign_package("device", OtaPackage("pump.bin", "1.2", url="https://example.com/pump.bin"))
    done = await tb_mqtt("firmware", env=device, cwd=tmp_path)
    assert (done.code, "https://example.com/pump.bin" in done.err) == (1, True)


async def test_ctrl_c(tb_mqtt, emulator, device, tmp_path):
    await emulator.assign_package("device", OtaPackage("pump.bin", "1.2", IMAGE))
    asked = asyncio.Event()
    emulator.on_publish = lambda publish: asked.set() if publish.topic.endswith("/chunk/5") else None
    process = await tb_mqtt.start("firmware", "--chunk-size", "10", "--save", str(tmp_path), env=device)
    await asked.wait()
    process.send_signal(signal.SIGINT)
    done = await finished(process)
    assert done.code == 130
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_not_there(tb_mqtt, device):
    done = await tb_mqtt("firmware", "--save", "/nowhere/at/all", env=device)
    assert (done.code, "does not exist" in done.err) == (2, True)
