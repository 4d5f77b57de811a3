"""Read the metrics of this machine, as values of sub-devices of a gateway.

Metrics that cannot be read are left out of a reading: a disk without permission, a process that has ended, or a counter
that this system does not have.
"""

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import psutil

BUSIEST_PROCESSES = 5
NOT_READABLE = (psutil.Error, OSError, NotImplementedError, AttributeError)
"""``AttributeError`` because psutil lacks the functions for counters that a system does not have."""

Values = dict[str, int | float | str | bool]


class Reading(NamedTuple):
    """The values of one sub-device at one time."""

    device: str
    profile: str
    values: Values


class Machine:
    """The machine that this program runs on.

    The busiest processes are chosen once, so that every reading has the same sub-devices.
    """

    def __init__(self) -> None:
        self._name = _text(platform.node() or "machine")
        self._processes = _busiest_processes(BUSIEST_PROCESSES)
        # psutil returns the percentages since the previous call, so the first call only sets the start.
        psutil.cpu_times_percent(percpu=True)

    def read(self) -> list[Reading]:
        """Return one reading per sub-device.

        It takes some milliseconds, and blocks as long as a disk blocks.
        """
        families: tuple[Callable[[], Iterator[Reading]], ...] = (_cpus, _memory, _disks, _networks, self._busiest)
        readings: list[Reading] = []
        for family in families:
            with suppress(*NOT_READABLE):
                readings += family()
        return [Reading(f"{self._name} {device}", profile, values) for device, profile, values in readings if values]

    def _busiest(self) -> Iterator[Reading]:
        for process in self._processes:
            with suppress(*NOT_READABLE):
                yield _read_process(process)


def sized(readings: list[Reading], count: int | None) -> list[Reading]:
    """Return readings of exactly ``count`` sub-devices: the first ones, or all of them repeated under other names."""
    if count is None or not readings:
        return readings
    rounds = -(-count // len(readings))
    copies = (
        reading if number == 1 else reading._replace(device=f"{reading.device} #{number}")
        for number in range(1, rounds + 1)
        for reading in readings
    )
    return [reading for reading, _ in zip(copies, range(count), strict=False)]


def _cpus() -> Iterator[Reading]:
    for number, times in enumerate(psutil.cpu_times_percent(percpu=True)):
        values = _numbers(times)
        values["busy"] = round(100 - times.idle, 1)
        yield Reading(f"CPU {number}", "cpu", values)


def _memory() -> Iterator[Reading]:
    yield Reading("memory", "memory", _numbers(psutil.virtual_memory()))
    with suppress(*NOT_READABLE):
        yield Reading("swap", "memory", _numbers(psutil.swap_memory()))


def _disks() -> Iterator[Reading]:
    # A device may be mounted in many places (containers mount single files), so only its first place is read.
    mounts: dict[str, str] = {}
    for partition in psutil.disk_partitions(all=False):
        mounts.setdefault(partition.device, partition.mountpoint)
    for mount in mounts.values() or [os.path.abspath(os.sep)]:
        with suppress(*NOT_READABLE):
            yield Reading(f"disk {_text(mount)}", "disk", _numbers(psutil.disk_usage(mount)))
    with suppress(*NOT_READABLE):
        for name, counters in psutil.disk_io_counters(perdisk=True).items():
            # Linux also lists loop devices that are not in use.
            if counters.read_count or counters.write_count:
                yield Reading(f"block device {_text(name)}", "disk", _numbers(counters))


def _networks() -> Iterator[Reading]:
    states = psutil.net_if_stats()
    for name, counters in psutil.net_io_counters(pernic=True).items():
        if not (counters.packets_sent or counters.packets_recv):
            continue
        values = _numbers(counters)
        if (state := states.get(name)) is not None:
            values |= {"up": state.isup, "speed_mbit": state.speed, "mtu": state.mtu}
        yield Reading(f"network {_text(name)}", "network", values)


def _busiest_processes(count: int) -> list[psutil.Process]:
    """Return the processes that have used the most CPU time."""

    def cpu_seconds(process: psutil.Process) -> float:
        with suppress(*NOT_READABLE):
            times = process.cpu_times()
            return times.user + times.system
        return -1.0

    used = [(cpu_seconds(process), process) for process in psutil.process_iter()]
    used.sort(key=lambda pair: pair[0], reverse=True)
    return [process for _, process in used[:count]]


def _read_process(process: psutil.Process) -> Reading:
    with process.oneshot():
        memory, times, switches = process.memory_info(), process.cpu_times(), process.num_ctx_switches()
        values: Values = {
            "cpu_percent": process.cpu_percent(),
            "user_seconds": times.user,
            "system_seconds": times.system,
            "memory_percent": round(process.memory_percent(), 3),
            "rss": memory.rss,
            "vms": memory.vms,
            "threads": process.num_threads(),
            "voluntary_switches": switches.voluntary,
            "involuntary_switches": switches.involuntary,
            "status": str(process.status()),
        }
        return Reading(f"process {process.pid} {_text(process.name())}", "process", values)


def _numbers(counters: Any) -> Values:
    """Return the numeric fields of one of psutil's named tuples. Not every system fills every field.

    Floats are rounded to three decimal places, because the platform stores a number with more than 16 of them as text
    (docs/platform_contract.md, section 3).
    """
    return {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in counters._asdict().items()
        if isinstance(value, int | float)
    }


def _text(name: str) -> str:
    """Return a name of a file or process that JSON can represent: bytes that are not text are replaced."""
    return name.encode("utf-8", "replace").decode()
