"""The log of a store in memory: what `_native.StoreLog` does on a disk, for tests of the code above it.

A `Disk` survives the process of a test: what a commit has written is found by the next `open_log`. It can fail and be full.
"""

import errno
import threading


def lane_of(send):
    if send[0].attribute_count:
        return "attributes"
    return {1: "high", 2: "low"}.get(send[3], "normal")


class Disk:
    """Files by path, and the faults of the disk."""

    def __init__(self):
        self.files = {}
        self.held = set()
        self.fails_with = None
        """The errno of all writes from now on; None if they succeed."""
        self.blocked = None
        """A threading.Event for which writes wait."""
        self.commits = []
        """For each commit, the numbers of its sends and the settled numbers."""

    def open_log(self, path, owner, max_segment_bytes):
        return ReferenceLog(self, path, owner, max_segment_bytes)

    def unsettled(self, path):
        """Return the numbers on disk that are not settled."""
        return sorted(self.files[path]["sends"])


class ReferenceLog:
    """One open log."""

    def __init__(self, disk, path, owner, max_segment_bytes):
        if path in disk.held:
            raise OSError(errno.EAGAIN, "another client has the store", path)
        file = disk.files.setdefault(path, {"owner": owner, "sends": {}, "next": 1})
        if file["owner"] != owner:
            raise OSError(errno.EPERM, "the store has another owner", path)
        disk.held.add(path)
        self._disk, self._path, self._file = disk, path, file
        self._settled = set()
        self._released = set(file["sends"])
        self._thread = None
        self.is_closed = False
        self.damaged_places = self.lost_datapoints = 0
        self.obstacles = []

    def _enter(self):
        assert not self.is_closed, "a closed log is used"
        self._thread = self._thread or threading.get_ident()
        assert self._thread == threading.get_ident(), "only the thread of the store uses the log"
        if self._disk.blocked is not None:
            assert self._disk.blocked.wait(60)

    def _write(self):
        self._enter()
        if self._disk.fails_with is not None:
            raise OSError(self._disk.fails_with, "the disk fails", self._path)

    @property
    def next_number(self):
        return self._file["next"]

    @property
    def _backlog(self):
        sends = self._file["sends"]
        return [sends[number] for number in sorted(self._released) if number in sends]

    @property
    def backlog_sends(self):
        return len(self._backlog)

    @property
    def backlog_attribute_sends(self):
        return sum(send[0].attribute_count > 0 for send in self._backlog)

    @property
    def backlog_datapoints(self):
        return sum(send[0].datapoints for send in self._backlog)

    @property
    def backlog_bytes(self):
        return sum(send[0].nbytes for send in self._backlog)

    @property
    def backlog_oldest_ms(self):
        return min((send[2] for send in self._backlog), default=None)

    @property
    def backlog_expires_ms(self):
        return min((send[4] for send in self._backlog if send[4]), default=None)

    @property
    def disk_bytes(self):
        return sum(send[0].nbytes for send in list(self._file["sends"].values()))

    def commit(self, sends, settled):
        numbers = [send[1] for send in sends]
        assert numbers == sorted(set(numbers)), "the numbers rise"
        self._write()
        self._settled.update(settled)
        written = {send[1]: send for send in sends if send[1] not in self._settled}
        self._disk.commits.append((list(written), list(settled)))
        self._file["next"] = max(self._file["next"], *[number + 1 for number in numbers], 1)
        self._file["sends"] = {
            number: send for number, send in (self._file["sends"] | written).items() if number not in self._settled
        }

    def release(self, numbers):
        self._enter()
        self._released.update(number for number in numbers if number in self._file["sends"])

    def read(self, max_bytes, max_sends, lanes):
        self._write()
        found, nbytes = [], 0
        for send in self._backlog:
            if lane_of(send) not in lanes:
                continue
            if len(found) == max_sends or (found and nbytes + send[0].nbytes > max_bytes):
                break
            found.append(send)
            nbytes += send[0].nbytes
        self._released.difference_update(send[1] for send in found)
        return found

    def drop_oldest(self, nbytes):
        self._write()
        dropped, freed = [], 0
        ranks = {"low": 0, "normal": 1, "attributes": 1, "high": 2}
        for send in sorted(self._backlog, key=lambda send: (ranks[lane_of(send)], send[1])):
            if freed >= nbytes:
                break
            dropped.append((send[1], send[0].datapoints, False))
            freed += send[0].nbytes
        return self._forget(dropped)

    def drop_due(self, expired_at_ms, accepted_ms, max_sends):
        self._write()
        first, end = accepted_ms
        due = [
            (number, encoded.datapoints, 0 < expires <= expired_at_ms)
            for encoded, number, accepted, _, expires in self._backlog
            if 0 < expires <= expired_at_ms or first <= accepted < end
        ]
        return self._forget(due[:max_sends])

    def _forget(self, dropped):
        numbers = {number for number, _, _ in dropped}
        self._settled |= numbers
        self._file["sends"] = {number: send for number, send in self._file["sends"].items() if number not in numbers}
        return dropped

    def close(self):
        self._enter()
        self.is_closed = True
        self._disk.held.discard(self._path)
