"""Assignments that change during an update, cancelled updates, and invalid arguments."""

import asyncio
from pathlib import Path

import pytest
from ota_platform import ALL_STATES, DROP, IMAGE, config, once, subscriptions, update

from tb_mqtt_client import DeviceClient, NotConnectedError
from tb_mqtt_client.constants.firmware import FirmwareStates, PackageKind
from tb_mqtt_client.emulator import OtaPackage, Verdict
from tb_mqtt_client.emulator.checksums import checksum
from tb_mqtt_client.service.ota import updater
from tb_mqtt_client.service.ota.updater import FirmwareUpdater

# Changed assignments.


async def test_unassigned_while_downloading(client, emulator, platform, tmp_path):
    platform.fault = once(DROP)
    await platform.assign("main.bin", "2.0", IMAGE)
    task = await client.update_firmware(firmware_save_path=tmp_path, chunk_size=1000)
    await platform.wait_requests(4)
    await platform.unassign()
    result = await task
    assert (result.state, result.error) == (FirmwareStates.FAILED, "the package was unassigned")
    assert list(tmp_path.iterdir()) == []
    await client.send_timeseries({"end": 1})
    assert subscriptions(emulator) == set()


async def test_another_package_while_downloading(client, platform, tmp_path):
    platform.fault = once(DROP)
    await platform.assign("first.bin", "1", IMAGE)
    task = await client.update_firmware(firmware_save_path=tmp_path, chunk_size=1000)
    await platform.wait_requests(4)
    await platform.assign("second.bin", "2", IMAGE[::-1])
    result = await task
    assert (result.package.title, result.path.read_bytes()) == ("second.bin", IMAGE[::-1])
    assert [path.name for path in tmp_path.iterdir()] == ["second.bin"]
    # For the old id, the platform would send the old image.
    assert {request_id for _, request_id, _, _ in platform.requests} == {1, 2}
    await client.stop()
    assert platform.states() == ["IDLE", "DOWNLOADING", *ALL_STATES[1:]]


async def test_the_same_package_assigned_again_while_downloading(client, platform, tmp_path):
    platform.fault = once(DROP)
    await platform.assign("main.bin", "1", IMAGE)
    task = await client.update_firmware(firmware_save_path=tmp_path, chunk_size=1000, chunk_timeout=0.2)
    await platform.wait_requests(4)
    await platform.change(state="QUEUED")
    await platform.assign("main.bin", "1", IMAGE)
    assert (await task).state is FirmwareStates.UPDATED
    assert [entry[2] for entry in platform.requests].count(0) == 1


class Outcomes:
    """A callback of the application, and the versions of the packages that it got."""

    def __init__(self):
        self.installed = asyncio.Queue()

    async def __call__(self, package, _path):
        self.installed.put_nowait(package.version)

    async def next(self):
        async with asyncio.timeout(10):
            return await self.installed.get()


async def test_keep_watching_installs_later_packages(emulator, client, platform, tmp_path):
    """It installs packages that were assigned during the session, and while there was no connection."""
    outcomes = Outcomes()
    task = await client.update_firmware(firmware_save_path=tmp_path, on_package=outcomes, keep_watching=True)
    await platform.assign("main.bin", "1", IMAGE)
    assert await outcomes.next() == "1"
    await platform.assign("main.bin", "2", IMAGE[::-1])
    assert await outcomes.next() == "2"
    await emulator.stop()
    await platform.assign("main.bin", "3", IMAGE)
    await emulator.start()
    assert await outcomes.next() == "3"
    assert (tmp_path / "main.bin").read_bytes() == IMAGE
    assert not task.done()
    await client.stop()
    assert task.cancelled()


async def test_a_failed_package_is_downloaded_again_only_after_a_new_assignment(emulator, client, platform, tmp_path):
    """A new connection does not download it again."""
    outcomes, topics = Outcomes(), asyncio.Queue()

    async def install(package, path):
        await outcomes(package, path)
        raise OSError("flash")

    await platform.assign("main.bin", "1", IMAGE)
    await client.update_firmware(firmware_save_path=tmp_path, on_package=install, keep_watching=True)
    assert await outcomes.next() == "1"
    judge = emulator.on_publish
    emulator.on_publish = lambda publish: topics.put_nowait(publish.topic) or judge(publish)
    await emulator.disconnect_device("device")
    # The response to the update's request for the attributes arrives before the one to the test's own request.
    while not (await topics.get()).startswith("v1/devices/me/attributes/request"):
        pass
    await client.request_attributes(shared_keys=["fw_title"])
    assert (await client.send_timeseries({"a": 1})).is_successful()
    assert platform.states().count("DOWNLOADING") == 1
    await platform.unassign()
    await platform.assign("main.bin", "1", IMAGE)
    assert await outcomes.next() == "1"


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()], ids=repr)
async def test_an_unexpected_error_does_not_end_keep_watching(client, platform, tmp_path, error, caplog, monkeypatch):
    """Without ``keep_watching`` the task raises the error. Otherwise it is logged, and the next package is installed."""

    async def to_thread(*_arguments):
        raise error

    outcomes = Outcomes()
    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    await platform.assign("main.bin", "1", IMAGE)
    with pytest.raises(type(error)):
        await (await client.update_firmware(firmware_save_path=tmp_path))
    task = await client.update_firmware(firmware_save_path=tmp_path, on_package=outcomes, keep_watching=True)
    async with asyncio.timeout(10):
        while not any("failed unexpectedly" in message for message in caplog.messages):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    monkeypatch.undo()
    await platform.assign("main.bin", "2", IMAGE)
    assert await outcomes.next() == "2"
    assert not task.done()


# Ends of an update.


@pytest.mark.parametrize("how", ["cancel", "stop", "disconnect"])
@pytest.mark.parametrize("when", ["before", "requested", "callback"])
async def test_cancelled_updates(emulator, platform, tmp_path, how, when):
    client = DeviceClient(config(emulator))
    await client.connect()
    await platform.assign("main.bin", "2.0", IMAGE)
    installing = asyncio.Event()

    async def install(*_):
        installing.set()
        await asyncio.Event().wait()

    if when == "requested":
        platform.fault = once(DROP)
    task = await client.update_firmware(on_package=install, save_firmware=False, chunk_size=1000)
    if when == "requested":
        await platform.wait_requests(4)
    elif when == "callback":
        await installing.wait()
    if how == "cancel":
        task.cancel()
    else:
        await getattr(client, how)()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.iterdir()) == []
    if how == "cancel":
        await client.send_timeseries({"end": 1})
        assert subscriptions(emulator) == set()
    elif how == "disconnect":
        await client.connect()
    await client.stop()
    expected = {"before": [], "requested": ["IDLE", "DOWNLOADING"], "callback": ALL_STATES[:-1]}[when]
    assert platform.states() == expected + (["FAILED", "the update was cancelled"] if when != "before" else [])


@pytest.mark.parametrize("end", ["stop", "disconnect"])
@pytest.mark.parametrize("in_own_task", [False, True])
async def test_a_progress_callback_that_ends_the_client_cancels_the_update(emulator, platform, tmp_path, end, in_own_task):
    """The callback itself runs to its end."""
    client = DeviceClient(config(emulator))
    await client.connect()
    await platform.assign("main.bin", "2.0", IMAGE)
    progress, ending = [], []

    async def on_progress(received, _size):
        progress.append(received)
        if received == 2000:
            ending.append(asyncio.ensure_future(getattr(client, end)()))
            if not in_own_task:
                await ending[0]
                progress.append("ended")

    task = await client.update_firmware(firmware_save_path=tmp_path, on_progress=on_progress, chunk_size=1000)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    await asyncio.gather(*ending)
    assert progress[1:] == ([2000] if in_own_task else [2000, "ended"])
    assert list(tmp_path.iterdir()) == []
    await client.connect()
    await client.stop()
    reported = ["FAILED", "the update was cancelled"]
    assert platform.states() == ["IDLE", "DOWNLOADING", *(reported if end == "disconnect" or in_own_task else [])]


@pytest.mark.parametrize("end", ["stop", "disconnect"])
async def test_a_progress_callback_may_end_the_client_while_the_assignment_is_checked(emulator, platform, tmp_path, end):
    """The request for the attributes fails then, and the callback still runs to its end."""
    client = DeviceClient(config(emulator))
    await client.connect()
    await platform.assign("main.bin", "2.0", IMAGE)
    checked, progress, judge = asyncio.Event(), [], emulator.on_publish

    def leave_unanswered(publish):
        if publish.topic.startswith("v1/devices/me/attributes/request/") and progress:
            checked.set()
            return DROP
        return judge(publish)

    async def on_progress(received, _size):
        progress.append(received)
        if received == 2000:
            await platform.change(title="main.bin")
            await checked.wait()
            await getattr(client, end)()
            progress.append("ended")

    emulator.on_publish = leave_unanswered
    task = await client.update_firmware(firmware_save_path=tmp_path, on_progress=on_progress, chunk_size=1000)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert progress[1:] == [2000, "ended"]
    assert list(tmp_path.iterdir()) == []
    await client.stop()


@pytest.mark.parametrize("end", ["stop", "disconnect"])
async def test_keep_watching_ends_with_a_client_that_a_callback_ends(emulator, platform, tmp_path, end):
    client = DeviceClient(config(emulator))
    await client.connect()
    await platform.assign("main.bin", "2.0", IMAGE)

    async def install(_package, _path):
        await getattr(client, end)()

    task = await client.update_firmware(firmware_save_path=tmp_path, on_package=install, keep_watching=True)
    assert (await asyncio.wait_for(task, 10)).state is FirmwareStates.UPDATED
    await client.stop()


async def test_a_second_update_at_the_same_time_raises(client, platform, tmp_path):
    platform.fault = once(DROP)
    await platform.assign("main.bin", "2.0", IMAGE)
    task = await client.update_firmware(firmware_save_path=tmp_path, chunk_size=1000, chunk_timeout=0.1)
    await platform.wait_requests(4)
    for kind in PackageKind:
        with pytest.raises(RuntimeError, match=r"^an update is running already"):
            await client.update_firmware(kind=kind, firmware_save_path=tmp_path)
    assert (await task).state is FirmwareStates.UPDATED
    assert (await update(client, firmware_save_path=tmp_path)).state is FirmwareStates.IDLE


async def test_a_platform_that_does_not_respond_to_attribute_requests(emulator, client, tmp_path, monkeypatch):
    monkeypatch.setattr(updater, "ATTRIBUTES_TIMEOUT", 0.02)
    emulator.on_publish = lambda publish: DROP if "attributes/request" in publish.topic else None
    result = await update(client, firmware_save_path=tmp_path)
    assert (result.state, result.error) == (
        FirmwareStates.FAILED,
        "the platform did not respond to the request for the assigned package",
    )


async def test_a_server_that_does_not_support_packages(client, platform, tmp_path):
    platform.fault = lambda *_: Verdict.refuse(0x90)
    await platform.assign("main.bin", "2.0", IMAGE)
    result = await update(client, firmware_save_path=tmp_path)
    assert result.state is FirmwareStates.FAILED
    assert "Topic Name invalid" in result.error


# Arguments.


@pytest.mark.parametrize(
    ("error", "name", "options"),
    [
        (TypeError, "on_received_callback", {"on_received_callback": 5}),
        (TypeError, "on_package", {"on_package": "f"}),
        (TypeError, "on_progress", {"on_progress": []}),
        (ValueError, "kind", {"kind": "hw"}),
        (ValueError, "kind", {"kind": None}),
        (ValueError, "chunk_size", {"chunk_size": 0}),
        (ValueError, "chunk_size", {"chunk_size": True}),
        (ValueError, "chunk_size", {"chunk_size": "big"}),
        (ValueError, "chunk_timeout", {"chunk_timeout": 0}),
        (ValueError, "chunk_timeout", {"chunk_timeout": float("nan")}),
        (ValueError, "chunk_timeout", {"chunk_timeout": None}),
        (ValueError, "firmware_save_path", {"firmware_save_path": "missing/folder"}),
        (ValueError, "firmware_save_path", {"firmware_save_path": 5}),
        (ValueError, "save_firmware", {"save_firmware": False}),
    ],
)
async def test_invalid_arguments_raise_at_once(client, error, name, options):
    with pytest.raises(error, match=f"^{name} must be"):
        await client.update_firmware(**options)


async def test_an_update_before_connect_raises(tmp_path):
    client = DeviceClient({"host": "localhost"})
    with pytest.raises(NotConnectedError):
        await client.update_firmware(firmware_save_path=tmp_path)


async def test_images_are_saved_in_the_current_folder_by_default(client, platform, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    await platform.assign("main.bin", "2.0", IMAGE)
    assert (await update(client)).path == Path.cwd() / "main.bin"


async def test_verify_checksum(client):
    verify = client.firmware_updater.verify_checksum
    assert isinstance(client.firmware_updater, FirmwareUpdater)
    assert verify(IMAGE, "sha256", checksum("SHA256", IMAGE))
    assert verify(IMAGE, "Murmur3_128", checksum("MURMUR3_128", IMAGE).upper())
    assert not verify(IMAGE, "sha256", checksum("SHA256", b""))
    for data, algorithm, expected in ((None, "md5", "x"), (b"", "md5", None), (b"", None, "x"), (b"", "sha1", "x")):
        assert not verify(data, algorithm, expected)


# Assignments that arrive in parts.

KEYS = ["fw_title", "fw_version", "fw_size", "fw_checksum", "fw_checksum_algorithm"]


@pytest.mark.parametrize("missing", [[key] for key in KEYS] + [KEYS[2:], KEYS])
@pytest.mark.parametrize("update_first", [False, True])
@pytest.mark.parametrize("previous", [False, True])
async def test_an_assignment_that_arrives_in_parts_is_used_when_it_is_complete(
    client, emulator, platform, tmp_path, update_first, missing, previous
):
    """A deletion and an update arrive in either order, some attributes later (docs/platform_contract.md, section 7)."""
    outcomes = Outcomes()
    if previous:
        await platform.assign("main.bin", "1", IMAGE[::-1])
    task = await client.update_firmware(firmware_save_path=tmp_path, on_package=outcomes, keep_watching=True)
    if previous:
        assert await outcomes.next() == "1"
    package = OtaPackage("main.bin", "2", IMAGE)
    # The gap is longer than the settling time, so that the client requests the attributes in between.
    await emulator.assign_package("device", package, update_first=update_first, gap=0.04, missing=missing)
    assert await outcomes.next() == "2"
    assert (tmp_path / "main.bin").read_bytes() == IMAGE
    await client.stop()
    assert platform.states() == ALL_STATES[:1] + ALL_STATES[1:] * (2 if previous else 1)
    assert task.cancelled()


@pytest.mark.parametrize("missing", ["fw_size", "fw_version"])
async def test_an_update_that_begins_while_a_package_is_being_assigned(client, emulator, platform, tmp_path, missing):
    assigned = asyncio.create_task(
        emulator.assign_package("device", OtaPackage("main.bin", "2", IMAGE), gap=0.04, missing=[missing])
    )
    await asyncio.sleep(0)
    result = await update(client, firmware_save_path=tmp_path)
    await assigned
    await client.stop()
    assert (result.state, platform.states()) == (FirmwareStates.UPDATED, ALL_STATES)


async def test_another_package_that_arrives_in_parts_while_downloading(client, emulator, platform, tmp_path):
    platform.fault = once(DROP)
    await platform.assign("first.bin", "1", IMAGE)
    task = await client.update_firmware(firmware_save_path=tmp_path, chunk_size=1000)
    await platform.wait_requests(4)
    await emulator.assign_package("device", OtaPackage("second.bin", "2", IMAGE[::-1]), gap=0.04, missing=["fw_size"])
    result = await task
    assert (result.package.title, result.state) == ("second.bin", FirmwareStates.UPDATED)
    assert "FAILED" not in platform.states()


async def test_attributes_of_two_packages_are_not_a_failure(client, emulator, platform, tmp_path):
    """The title and version are new, the size and checksum still old: the checksum of the image does not match."""
    await platform.assign("main.bin", "2", IMAGE)
    await platform.change(size=5000, checksum=checksum("SHA256", IMAGE[::-1][:5000]))
    numbers = []

    def complete_the_attributes(_kind, _request_id, number, _size):
        numbers.append(number)
        if len(numbers) == 5:
            values = {"fw_size": len(IMAGE), "fw_checksum": checksum("SHA256", IMAGE)}
            emulator.device("device").shared_attributes.update(values)

    platform.fault = complete_the_attributes
    assert (await update(client, firmware_save_path=tmp_path)).state is FirmwareStates.UPDATED
    assert (tmp_path / "main.bin").read_bytes() == IMAGE


async def test_attributes_that_stay_incomplete_are_a_failure(client, platform, tmp_path):
    await platform.assign("main.bin", "2.0", IMAGE)
    await platform.change(size=None)
    result = await update(client, firmware_save_path=tmp_path)
    assert (result.state, result.error) == (FirmwareStates.FAILED, "the attribute fw_size is missing")
    await client.stop()
    assert platform.states() == ["IDLE", "FAILED", result.error]
