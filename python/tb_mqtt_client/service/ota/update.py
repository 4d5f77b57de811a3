"""Runs one update: finds the assigned package, downloads and verifies its image, and lets the application install it.

The rule: however an update ends, its final state is reported to the platform, and no subscription, task or temporary file is left.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tb_mqtt_client.common.exceptions import NotConnectedError, TBMQTTError
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.constants.firmware import FirmwareStates, PackageKind
from tb_mqtt_client.entities.data.assigned_package import AssignedPackage, IncompletePackageError
from tb_mqtt_client.service.ota.download import PackageChunks, PackageUpdateError, download
from tb_mqtt_client.service.ota.files import PackageFile, new_checksum
from tb_mqtt_client.service.requests.callbacks import Callback, call

logger: ExtendedLogger = get_logger(__name__)

SETTLING_SECONDS = 1.0
"""Seconds without a change after which an assignment counts as complete.

An assignment arrives as a deletion and an update, in either order, and the attributes are stored one after the other
(docs/platform_contract.md, section 7).
"""
SETTLING_ATTEMPTS = 3
"""Requests for the attributes of a package until missing attributes are an error; ``SETTLING_SECONDS`` pass between them."""
MOST_CHANGES = 20
"""Changes of an assignment to wait for: a program that keeps changing the attributes must not delay an update indefinitely."""
FAREWELL_SECONDS = 1.0
"""Seconds that a cancelled update may wait for space in the queue, to report its state."""


@dataclass(frozen=True)
class UpdateResult:
    """How an update ended."""

    state: FirmwareStates
    """UPDATED, FAILED, or IDLE if there was nothing to install."""
    package: AssignedPackage | None = None
    """The assigned package; ``None`` without one, and after a failure."""
    path: Path | None = None
    """The path of the saved image."""
    error: str | None = None
    """The cause of a failure."""


@dataclass(frozen=True)
class UpdateOptions:
    """The validated arguments of ``DeviceClient.update_firmware``."""

    kind: PackageKind
    folder: Path | None
    """The folder of the saved image; ``None`` if it is not saved."""
    on_received_callback: Callback[Any] | None
    on_package: Callback[Any] | None
    on_progress: Callback[Any] | None
    chunk_size: int
    keep_watching: bool


class UpdateHost(Protocol):
    """The device that an update runs on."""

    def is_current(self, package: AssignedPackage) -> bool:
        """Return whether the device has this package."""

    async def assigned_package(self, kind: PackageKind) -> AssignedPackage | None:
        """Request the assigned package from the platform.

        Returns:
            The package; ``None`` if none is assigned.

        Raises:
            PackageUpdateError: The platform does not respond.
            IncompletePackageError: An attribute of the package is missing.
            ValueError: An attribute has an invalid value.
        """

    async def report_current(self, kind: PackageKind) -> None:
        """Report the installed package and the last state to the platform."""

    async def report(self, kind: PackageKind, state: FirmwareStates, error: str | None = None) -> None:
        """Report a state, and the error of a failure, to the platform."""

    async def report_installed(self, package: AssignedPackage) -> None:
        """Remember a package as the installed one, and report that to the platform."""

    async def report_progress(self, callback: Callback[Any], received: int, size: int) -> None:
        """Call a callback of the application with numbers of bytes. An exception is logged, and does not end the update."""


class PackageUpdate:
    """Runs one update, or with ``keep_watching`` one after the other."""

    def __init__(self, host: UpdateHost, chunks: PackageChunks, options: UpdateOptions, tasks: Tasks) -> None:
        """Prepare an update of the package ``options.kind``, whose download runs in a task of ``tasks``."""
        self._host = host
        self._tasks = tasks
        self._chunks = chunks
        self._options = options
        self.kind: PackageKind = options.kind
        """The kind of the package."""
        self._state = FirmwareStates.IDLE
        self._changed = asyncio.Event()
        self._tried: AssignedPackage | None = None
        self._task: asyncio.Task[Any] | None = None
        self._runs_callback = self._client_ended = False

    def assignment_changed(self) -> None:
        """Note that the platform changed the assignment, or assigned the same package again."""
        self._tried = None
        self._changed.set()

    def session_ended(self) -> None:
        """Note that the assignment may change unnoticed until the next session."""
        self._changed.set()

    def client_ended(self) -> bool:
        """Cancel the update, but not before the end of a running callback, which may be the one that ends the client.

        Returns:
            True if no callback is running, so that the update ends at once.
        """
        self._client_ended = True
        if not self._runs_callback:
            self._cancel()
        return not self._runs_callback

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run_callback(self, callback: Awaitable[Any]) -> None:
        self._runs_callback = True
        try:
            await callback
        finally:
            self._runs_callback = False

    async def run(self) -> UpdateResult:
        """Install the assigned package. With ``keep_watching``, also install each later one, until the task is cancelled."""
        self._task = asyncio.current_task()
        try:
            await self._host.report_current(self.kind)
            while True:
                result = await self._update_reporting()
                if self._client_ended or not self._options.keep_watching:
                    return result
                await self._changed.wait()
                await self._settle()
        except asyncio.CancelledError:
            await self._report_cancelled()
            raise
        finally:
            self._chunks.close()

    async def _update_reporting(self) -> UpdateResult:
        """Run one update. Report a failure to the platform, and log it."""
        try:
            return await self._update()
        except (TBMQTTError, OSError, ValueError, ImportError) as error:
            text = str(error) or repr(error)
            logger.error("The update failed: %s", text, exc_info=_traceback_of(error))  # noqa: TRY400  # the text of our own errors is enough
            await self._report(FirmwareStates.FAILED, text)
            return UpdateResult(FirmwareStates.FAILED, error=text)
        except Exception as defect:
            await self._report(FirmwareStates.FAILED, repr(defect))
            if not self._options.keep_watching:
                raise
            # The task stays for later packages.
            logger.exception("The update failed unexpectedly. The client waits for the next assignment")
            return UpdateResult(FirmwareStates.FAILED, error=repr(defect))

    async def _settle(self) -> None:
        """Wait until the assignment has not changed for ``SETTLING_SECONDS``."""
        for _ in range(MOST_CHANGES):
            self._changed.clear()
            try:
                async with asyncio.timeout(SETTLING_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def _assigned_package(self) -> AssignedPackage | None:
        """Request the assigned package, and again while its attributes are incomplete."""
        for _ in range(SETTLING_ATTEMPTS - 1):
            try:
                return await self._host.assigned_package(self.kind)
            except IncompletePackageError as incomplete:
                logger.debug("The assigned package is incomplete; next request in %g s: %s", SETTLING_SECONDS, incomplete)
            await self._settle()
        return await self._host.assigned_package(self.kind)

    async def _update(self) -> UpdateResult:
        package = await self._assigned_package()
        while package is not None and package != self._tried and not self._host.is_current(package):
            try:
                return await (self._install_from_url(package) if package.url else self._install_image(package))
            except _ReassignedError as change:
                logger.info("Another package was assigned: %s", change.package)
                package = change.package
                if package is None:
                    raise PackageUpdateError("the package was unassigned") from None
        return UpdateResult(FirmwareStates.IDLE, package)

    async def _install_from_url(self, package: AssignedPackage) -> UpdateResult:
        on_package = self._options.on_package
        self._tried = package
        if on_package is None:
            raise PackageUpdateError(
                f"the platform has only the URL {package.url} of the package: on_package is needed to download it"
            )
        await self._install(package, lambda: call(on_package, package, None))
        return UpdateResult(FirmwareStates.UPDATED, package)

    async def _install_image(self, package: AssignedPackage) -> UpdateResult:
        folder = self._options.folder
        # An unknown algorithm or an unusable title is reported before the download.
        checksum = new_checksum(str(package.checksum_algorithm))
        name = package.file_name if folder else f"{self.kind}-image"
        file = PackageFile(folder or Path(tempfile.gettempdir()), name, checksum)
        try:
            await self._report(FirmwareStates.DOWNLOADING)
            await asyncio.to_thread(file.open)
            await self._download(package, file)
            # From here on, a new session does not start another attempt.
            self._tried = package
            await self._report(FirmwareStates.DOWNLOADED)
            if not file.is_intact(str(package.checksum)):
                # If the assignment changed during the request, the attributes may belong to two packages.
                await self._require_assigned(package)
                raise PackageUpdateError(f"the {package.checksum_algorithm} checksum of the image is not {package.checksum}")
            await self._report(FirmwareStates.VERIFIED)
            path = await asyncio.to_thread(file.keep) if folder else None
            await self._install(package, lambda: self._hand_over(package, file))
            return UpdateResult(FirmwareStates.UPDATED, package, path)
        finally:
            file.discard()

    async def _install(self, package: AssignedPackage, install: Callable[[], Awaitable[Any]]) -> None:
        """Let the application install the package. An exception of its callback is a failure of the update."""
        await self._report(FirmwareStates.UPDATING)
        try:
            await self._run_callback(install())
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise PackageUpdateError("the callback awaited a task or future that was cancelled") from error
        except Exception as error:
            raise PackageUpdateError(f"{type(error).__name__}: {error}") from error
        self._state = FirmwareStates.UPDATED
        await self._host.report_installed(package)

    async def _hand_over(self, package: AssignedPackage, file: PackageFile) -> None:
        options = self._options
        if options.on_package is not None:
            await call(options.on_package, package, file.path)
        if options.on_received_callback is not None:
            image = await asyncio.to_thread(file.read)
            await call(options.on_received_callback, image, current_info(package, FirmwareStates.UPDATED))

    async def _download(self, package: AssignedPackage, file: PackageFile) -> None:
        """Download the image. Raise ``_ReassignedError`` if the assignment changes meanwhile."""
        task = self._tasks.fork(self._fetch(package, file), "package download")
        try:
            while await _is_set_first(self._changed, task):
                await self._settle()
                try:
                    await self._require_assigned(package)
                except NotConnectedError:
                    if not self._client_ended:
                        raise
                    # A callback ends the client. It runs to its end, and then the update is cancelled.
                    break
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _require_assigned(self, package: AssignedPackage) -> None:
        """Raise ``_ReassignedError`` if another package is assigned now, or none."""
        assigned = await self._assigned_package()
        if assigned != package:
            raise _ReassignedError(assigned)

    async def _fetch(self, package: AssignedPackage, file: PackageFile) -> None:
        size = package.size or 0
        on_progress = self._options.on_progress

        async def progress(received: int) -> None:
            if on_progress is not None:
                await self._run_callback(self._host.report_progress(on_progress, received, size))
                if self._client_ended:
                    # The callback disconnected or stopped the client, so that no chunk will arrive.
                    self._cancel()

        await download(self._chunks, file, size, self._options.chunk_size, progress)

    async def _report(self, state: FirmwareStates, error: str | None = None) -> None:
        self._state = state
        await self._host.report(self.kind, state, error)

    async def _report_cancelled(self) -> None:
        if self._state in {FirmwareStates.IDLE, FirmwareStates.UPDATED, FirmwareStates.FAILED}:
            return
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._report(FirmwareStates.FAILED, "the update was cancelled")
        except TimeoutError:
            logger.warning("The cancelled update is not reported to the platform as FAILED: the queue is full")


class _ReassignedError(Exception):
    """Another package is assigned, or none."""

    def __init__(self, package: AssignedPackage | None) -> None:
        super().__init__()
        self.package = package


async def _is_set_first(event: asyncio.Event, task: asyncio.Task[Any]) -> bool:
    """Wait for an event or the end of a task. Return whether the event is set."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return event.is_set()


def _traceback_of(error: Exception) -> BaseException | None:
    """Return the exception of the application's callback, whose traceback is logged."""
    return error.__cause__ if isinstance(error, PackageUpdateError) else None


def current_info(package: AssignedPackage, state: FirmwareStates) -> dict[str, Any]:
    """Return ``{"current_fw_title": ..., "current_fw_version": ..., "fw_state": ...}``, or ``sw`` instead of ``fw``."""
    kind = package.kind
    return {f"current_{kind}_title": package.title, f"current_{kind}_version": package.version, f"{kind}_state": state.value}
