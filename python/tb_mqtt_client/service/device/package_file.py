"""An image on its way to the disk.

The rule: what stands under the final name is whole and verified. Until then the image is in a file beside it, which is gone
when it is given up. Methods that wait for the disk belong into a thread; ``discard`` may be called while another one runs there.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from io import FileIO
from pathlib import Path
from threading import Lock

from tb_mqtt_client.service.device.package_checksum import Checksum, is_checksum


class PackageFile:
    """Grows chunk by chunk, and its checksum with it."""

    def __init__(self, folder: Path, name: str, checksum: Checksum) -> None:
        self._target = folder / name
        self._checksum = checksum
        # Held by the method that runs, since who gives up does not wait for the thread that writes.
        self._lock = Lock()
        self._file: FileIO | None = None
        self._kept = self._discarded = False
        self.path = folder / f".{name}.{secrets.token_hex(4)}.part"
        """Where the image is."""
        self.received = 0
        """Bytes so far."""

    def open(self) -> None:
        """Make the file. Raises ``OSError`` when there can be none."""
        with self._lock:
            if not self._discarded:
                # A name that exists, even as a link, is refused.
                self._file = self.path.open("xb", buffering=0)

    def append(self, data: bytes) -> None:
        """Write the next bytes."""
        with self._lock:
            file = self._opened()
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            self._checksum.update(data)
            self.received += len(data)

    def is_intact(self, expected_checksum: str) -> bool:
        """Whether what was written has this checksum."""
        return is_checksum(self._checksum, expected_checksum)

    def keep(self) -> Path:
        """Put the image under its final name, where it stays, in the place of an older one."""
        with self._lock:
            file = self._opened()
            os.fsync(file.fileno())
            file.close()
            self.path.replace(self._target)
            self._kept, self.path = True, self._target
            _sync_folder(self._target.parent)
        return self._target

    def read(self) -> bytes:
        """The whole image."""
        with self._lock:
            return self.path.read_bytes()

    def discard(self) -> None:
        """Remove the image unless it was kept."""
        with self._lock:
            self._discarded = True
            if self._file is not None:
                self._file.close()
                if not self._kept:
                    self.path.unlink(missing_ok=True)

    def _opened(self) -> FileIO:
        if self._file is None:
            raise ValueError("the file is not open")
        return self._file


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power failure, where folders can be synchronized."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some file systems cannot, and the image itself is safe.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
