"""How much a store may take of its disk."""

from __future__ import annotations

import errno
import os
import shutil

from tb_mqtt_client.common.exceptions import StoreFullError
from tb_mqtt_client.entities.store import Store
from tb_mqtt_client.service.store.log import SendLog


def full_error(options: Store) -> StoreFullError:
    """Return the error of a send that does not fit in the store with these options."""
    return StoreFullError(options.path, options.max_bytes, options.min_free)


LOCK_FILE = "lock"
"""The file that is there as long as a store is open."""


class Bounds:
    """Compares the files of a log, and what is about to be written, with the options of the store and with the file system."""

    def __init__(self, store: Store, log: SendLog) -> None:
        self._path = store.path
        self._max_bytes = store.max_bytes
        self._min_free = store.min_free
        self._log = log
        self._lock_file = os.path.join(store.path, LOCK_FILE)
        self._identity = self._identity_now()
        self._free: int | None = None
        """Free bytes of the file system when a commit was last written."""

    def fits(self, nbytes: int) -> bool:
        """Return whether this number of bytes may be written, in addition to what is on disk."""
        return self.is_within_max_bytes(nbytes) and (self._free is None or self._free - nbytes >= self._min_free)

    def is_within_max_bytes(self, nbytes: int) -> bool:
        """Return whether the store may take this number of bytes in addition, if the file system has them."""
        return self._log.disk_bytes + nbytes <= self._max_bytes

    def _identity_now(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._lock_file)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def check_place(self) -> None:
        """Check that the files of the store are those that were opened. Run in the thread of the store.

        Whatever is written to files that were removed is lost, without an error of the system.

        Raises:
            OSError: They were removed or replaced, as by a program that cleans up old files.
        """
        if self._identity_now() != self._identity:
            raise OSError(errno.ESTALE, "the files of the store were removed while it was open", self._path)

    def measure(self) -> None:
        """Find out how much of the file system is free. Run in the thread of the store."""
        self._free = shutil.disk_usage(self._path).free

    def check(self, nbytes: int) -> None:
        """Measure, and refuse a commit that leaves too little free. Run in the thread of the store.

        Raises:
            OSError: There is less free space than ``min_free``, or it cannot be found out; or the files were removed.
        """
        self.check_place()
        self.measure()
        if self._free is not None and self._free - nbytes < self._min_free:
            text = f"{self._free} bytes are free, and min_free is {self._min_free}"
            raise OSError(errno.ENOSPC, text, os.fspath(self._path))
