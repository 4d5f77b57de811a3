"""Starts firmware and software updates of a device (docs/platform_contract.md, section 7)."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path
from typing import Any

from tb_mqtt_client.common.exceptions import BackpressureException, NotConnectedError
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.tasks import END_SECONDS
from tb_mqtt_client.constants.firmware import FirmwareStates, PackageKind, package_keys
from tb_mqtt_client.entities.data.assigned_package import AssignedPackage
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.service.engine import Component, Engine
from tb_mqtt_client.service.ota.download import ATTEMPTS, DEFAULT_CHUNK_SIZE, PackageChunks, PackageUpdateError
from tb_mqtt_client.service.ota.files import is_checksum, known_algorithm, new_checksum
from tb_mqtt_client.service.ota.update import PackageUpdate, UpdateOptions, UpdateResult, current_info
from tb_mqtt_client.service.requests.callbacks import Callback, call_reporting, require_callable
from tb_mqtt_client.service.sends import Sends

logger: ExtendedLogger = get_logger(__name__)

DEFAULT_CHUNK_TIMEOUT = 10.0
"""Seconds to wait for a chunk before it is requested again."""
ATTRIBUTES_TIMEOUT = 10.0
"""Seconds to wait for the attributes of the assigned package before they are requested again."""
LONGEST_ERROR = 1000
"""Characters of an error that is sent to the platform."""


class FirmwareUpdater(Component):
    """Runs one update at a time, since errors from the platform do not name the request that they belong to.

    ``current_firmware_info`` and ``current_software_info`` are the installed packages as the device reports them. They are not
    stored on disk: a program that knows them sets them before it starts an update. Otherwise the installed package is downloaded
    again.
    """

    def __init__(self, engine: Engine) -> None:
        """Take part in the life of an engine, as one of its components."""
        self._engine = engine
        self._sends: Sends = engine.sends
        self.current_firmware_info: dict[str, Any] = _initial_info(PackageKind.FIRMWARE)
        self.current_software_info: dict[str, Any] = _initial_info(PackageKind.SOFTWARE)
        self._task: asyncio.Task[UpdateResult] | None = None
        self._update: PackageUpdate | None = None
        # A number is not used twice in a session: the platform would serve the package that it cached for it.
        self._request_ids = itertools.count(1)
        self._last_report_ts = 0
        engine.downlink.attribute_updates.listeners.append(self.attributes_updated)
        engine.add(self)

    async def update(
        self,
        on_received_callback: Callback[Any] | None = None,
        save_firmware: bool = True,
        firmware_save_path: str | os.PathLike[str] | None = None,
        *,
        kind: PackageKind | str = PackageKind.FIRMWARE,
        on_package: Callback[Any] | None = None,
        on_progress: Callback[Any] | None = None,
        chunk_size: int | None = None,
        chunk_timeout: float = DEFAULT_CHUNK_TIMEOUT,
        keep_watching: bool = False,
    ) -> asyncio.Task[UpdateResult]:
        """Start an update. ``DeviceClient.update_firmware`` describes arguments, result and errors."""
        for name, callback in (
            ("on_received_callback", on_received_callback),
            ("on_package", on_package),
            ("on_progress", on_progress),
        ):
            if callback is not None:
                require_callable(name, callback)
        if on_package is None and on_received_callback is None and not save_firmware:
            raise ValueError(
                "save_firmware must be true unless on_package or on_received_callback is set: the image would be discarded"
            )
        if not isinstance(chunk_timeout, int | float) or not 0 < chunk_timeout < float("inf"):
            raise ValueError(f"chunk_timeout must be a positive number of seconds, not {chunk_timeout!r}")
        options = UpdateOptions(
            _kind(kind),
            _folder(firmware_save_path) if save_firmware else None,
            on_received_callback,
            on_package,
            on_progress,
            self._chunk_size(chunk_size),
            keep_watching,
        )
        self._engine.guard.require_started()
        if self._task is not None and not self._task.done():
            raise RuntimeError("an update is running already: wait for it, or cancel it")
        return self._start(options, chunk_timeout)

    def _start(self, options: UpdateOptions, chunk_timeout: float) -> asyncio.Task[UpdateResult]:
        engine = self._engine
        chunks = PackageChunks(engine.mqtt_manager, engine.admission, options.kind, chunk_timeout, lambda: next(self._request_ids))
        self._update = PackageUpdate(self, chunks, options, engine.tasks)
        self._task = engine.tasks.start(self._update.run(), "update")
        # A task that is cancelled before it begins does not come to closing them.
        self._task.add_done_callback(lambda _: chunks.close())
        return self._task

    def verify_checksum(self, firmware_data: bytes | None, checksum_alg: str | None, checksum: str | None) -> bool:
        """Return whether the data has a checksum.

        Args:
            firmware_data: The image.
            checksum_alg: The platform's name of the algorithm, in upper or lower case.
            checksum: Hexadecimal digits, in upper or lower case.

        Returns:
            False also if an argument is ``None``, or the algorithm is unknown.

        Raises:
            ModuleNotFoundError: The algorithm needs a Python package that is not installed.
        """
        if firmware_data is None or checksum is None or checksum_alg is None or not known_algorithm(checksum_alg):
            return False
        computed = new_checksum(checksum_alg)
        computed.update(firmware_data)
        return is_checksum(computed, checksum)

    def attributes_updated(self, update: AttributeUpdate) -> None:
        """Notify the running update if an attribute of its package was changed or deleted."""
        if self._update is not None and {*update.keys(), *update.deleted_keys} & {*package_keys(self._update.kind)}:
            self._update.assignment_changed()

    def session_ended(self) -> None:
        """Notify the running update: attribute updates may be lost until the next session."""
        if self._update is not None:
            self._update.session_ended()

    async def finish(self) -> None:
        """Cancel the update before the queues are drained, so that its state is still sent."""
        await self.stop()

    async def disconnect(self) -> None:
        """Cancel the update."""
        await self.stop()

    async def stop(self) -> None:
        """Cancel the update. If its own callback disconnects or stops the client, the update ends after the callback."""
        if self._task is None or self._update is None:
            return
        await self._engine.tasks.end([self._task])
        if not self._task.done() and self._update.client_ended():
            await asyncio.wait([self._task], timeout=END_SECONDS)

    # The methods of ``UpdateHost``.

    def is_current(self, package: AssignedPackage) -> bool:
        info = self._info(package.kind)
        names = f"current_{package.kind}_title", f"current_{package.kind}_version"
        return (package.title, package.version) == tuple(info.get(name) for name in names)

    async def assigned_package(self, kind: PackageKind) -> AssignedPackage | None:
        for _ in range(ATTEMPTS):
            # The time without a connection does not count as an attempt.
            await self._engine.mqtt_manager.wait_writable_for_service()
            request = await AttributeRequest.build(shared_keys=package_keys(kind))
            try:
                response = await self._engine.requests.attributes(request, ATTRIBUTES_TIMEOUT)
            except TimeoutError:
                continue
            return AssignedPackage.from_attributes(kind, {entry.key: entry.value for entry in response.shared})
        raise PackageUpdateError("the platform did not respond to the request for the assigned package")

    async def report_current(self, kind: PackageKind) -> None:
        await self._send(self._info(kind))

    async def report(self, kind: PackageKind, state: FirmwareStates, error: str | None = None) -> None:
        self._set_info(kind, self._info(kind) | {f"{kind}_state": state.value})
        await self._send(self._info(kind) | ({} if error is None else {f"{kind}_error": _text(error)}))

    async def report_installed(self, package: AssignedPackage) -> None:
        self._set_info(package.kind, current_info(package, FirmwareStates.UPDATED))
        await self._send(self._info(package.kind))

    async def report_progress(self, callback: Callback[Any], received: int, size: int) -> None:
        await call_reporting(self._engine.report, "the progress of an update", callback, received, size)

    async def _send(self, values: dict[str, Any]) -> None:
        """Send telemetry with a time that no earlier state has: the platform keeps only one value of a key and time."""
        now = self._sends.stamp()
        if now is not None:
            now = self._last_report_ts = max(now, self._last_report_ts + 1)
        data = {"ts": now, "values": values}
        try:
            await self._sends.accept(self._sends.encode_timeseries(data), None)
        except (BackpressureException, NotConnectedError) as error:
            # The update continues: an installed image stays installed even if its state cannot be reported.
            logger.warning("The state of an update was not reported to the platform: %s. Not sent: %s", error, values)

    def _info(self, kind: PackageKind) -> dict[str, Any]:
        """Return the installed package and the state; a program may have set only some of the keys."""
        info = self.current_firmware_info if kind is PackageKind.FIRMWARE else self.current_software_info
        return _initial_info(kind) | info

    def _set_info(self, kind: PackageKind, info: dict[str, Any]) -> None:
        if kind is PackageKind.FIRMWARE:
            self.current_firmware_info = info
        else:
            self.current_software_info = info

    def _chunk_size(self, wanted: int | None) -> int:
        largest = self._engine.admission.payload_limits(of_sub_devices=False).max_packet_size
        if wanted is None:
            return min(DEFAULT_CHUNK_SIZE, largest)
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
            raise ValueError(f"chunk_size must be a positive number of bytes, not {wanted!r}")
        return min(wanted, largest)


def _text(error: str) -> str:
    """Return an error text that the platform can store: short, and without lone surrogates."""
    return error[:LONGEST_ERROR].encode(errors="replace").decode()


def _initial_info(kind: PackageKind) -> dict[str, Any]:
    return current_info(AssignedPackage(kind, "Initial", "v0"), FirmwareStates.IDLE)


def _kind(kind: PackageKind | str) -> PackageKind:
    try:
        return PackageKind(kind)
    except ValueError:
        raise ValueError(f"kind must be one of {', '.join(PackageKind)}, not {kind!r}") from None


def _folder(path: str | os.PathLike[str] | None) -> Path:
    if path is not None and not isinstance(path, str | os.PathLike):
        raise ValueError(f"firmware_save_path must be a path, not {path!r}")  # ValueError, as for all wrong values of it
    folder = Path(path or ".")
    if not folder.is_dir():
        raise ValueError(f"firmware_save_path must be an existing folder, not {str(path)!r}")
    return folder.absolute()
