"""Runs clients as a systemd service: readiness, status, watchdog, and an orderly stop.

>>> async def main():
...     client = DeviceClient()
...     async with SystemdService(client):
...         await client.send_timeseries({"temperature": 21.5})
>>> tb_mqtt_client.run(main())

The service manager is notified through the datagram socket in ``NOTIFY_SOCKET``, as sd_notify(3) describes. Without that variable
nothing is sent, and the program runs in the same way. Linux only needs Python for it; no library of systemd is used.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, Self

from tb_mqtt_client.common.exceptions import NotConnectedError
from tb_mqtt_client.common.logging_utils import ExtendedLogger, OccasionalLog, get_logger
from tb_mqtt_client.common.tasks import Tasks, report_failure
from tb_mqtt_client.service.delivery.statistics import Statistics
from tb_mqtt_client.service.life_cycle import ClientState

logger: ExtendedLogger = get_logger(__name__)

STOP_TIMEOUT: float = 20.0
"""Seconds that ``stop`` of the clients may take. systemd itself kills a service after 90 s (``TimeoutStopSec``)."""
STALL_TIMEOUT: float = 300.0
"""Seconds without a result of any datapoint, during a session with data to send, after which the watchdog is not notified."""
STATUS_INTERVAL: float = 10.0
"""The longest time between two updates of the status, in seconds."""
STOP_MARGIN: float = 5.0
"""Seconds that are added to the time for stopping, for closing connections and for the program's own cleanup."""


class RunsClient(Protocol):
    """The part of ``DeviceClient`` and ``GatewayClient`` that a service needs."""

    @property
    def state(self) -> ClientState: ...

    @property
    def statistics(self) -> Statistics: ...

    def health(self) -> dict[str, Any]: ...

    async def start(self) -> None: ...

    async def wait_connected(self, timeout: float | None = None) -> None: ...

    async def stop(self, timeout: float | None = ...) -> None: ...

    def on_connection_event(self, callback: Callable[..., Any]) -> Callable[[], None]: ...


class NotifySocket:
    """Sends datagrams to the service manager."""

    def __init__(self, address: str | None) -> None:
        """Open the socket.

        Args:
            address: The path of a Unix datagram socket, or ``@name`` for an abstract one; ``None`` to send nothing.

        Raises:
            ValueError: The address is neither an absolute path nor an abstract name.
        """
        self._log = OccasionalLog(logger)
        self._socket: socket.socket | None = None
        self.address: str | None = address or None
        if self.address is None:
            return
        if self.address[0] not in "/@" or len(self.address) == 1:
            raise ValueError(f"NOTIFY_SOCKET must be an absolute path or @name, not {self.address!r}")
        # A null byte marks an abstract socket.
        self._target = "\0" + self.address[1:] if self.address[0] == "@" else self.address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, **assignments: str | int) -> None:
        """Send assignments such as ``READY=1``. A failure is logged: the service works without its manager."""
        if self._socket is None:
            return
        lines = [f"{name}={str(value).replace(chr(10), ' ')}" for name, value in assignments.items()]
        try:
            self._socket.sendto("\n".join(lines).encode(), self._target)
        except OSError as error:
            self._log.warn_of("notify", "The service manager at %s cannot be notified: %s", self.address, error)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Movement:
    """Judges whether the data of one client moves."""

    def __init__(self, stall_timeout: float, clock: Callable[[], float]) -> None:
        """Start with moving data. ``clock`` returns monotonic seconds."""
        self._stall_timeout = stall_timeout
        self._clock = clock
        self._settled = -1
        self._since = clock()

    def is_stalled(self, health: Mapping[str, Any]) -> bool:
        """Return True if a client has failed, or had data to send for ``stall_timeout`` and got a result for none of it.

        A client without a session waits for the network or the platform, and one that is limited or holds its data for the device's
        clock waits on purpose: a restart would not help.

        Args:
            health: What ``health()`` of the client returns.
        """
        if health["state"] == ClientState.FAILED.value:
            return True
        settled = sum(health[name] for name in ("acknowledged", "rejected", "dropped", "undelivered", "kept"))
        clock = health["clock"]
        holds = clock is not None and not clock["credible"]
        waits = not health["ready"] or health["limited"] or holds
        if settled != self._settled or waits or not (health["queued"] or health["in_flight"]):
            self._settled, self._since = settled, self._clock()
            return False
        return self._clock() - self._since >= self._stall_timeout


def watchdog_seconds(environment: Mapping[str, str], process_id: int) -> float | None:
    """Return the interval of the watchdog that the service manager asks for; ``None`` without one.

    Args:
        environment: The variables ``WATCHDOG_USEC`` and ``WATCHDOG_PID``.
        process_id: The id of this process: the watchdog may be for another one.

    Raises:
        ValueError: A variable is not a positive integer.
    """
    microseconds = environment.get("WATCHDOG_USEC")
    if not microseconds:
        return None
    owner = environment.get("WATCHDOG_PID") or str(process_id)
    if not (microseconds.isdecimal() and int(microseconds) and owner.isdecimal()):
        raise ValueError(f"WATCHDOG_USEC and WATCHDOG_PID must be positive integers, not {microseconds!r} and {owner!r}")
    return int(microseconds) / 1e6 if int(owner) == process_id else None


def status_text(clients: Sequence[Mapping[str, Any]]) -> str:
    """Return one line about clients, from what their ``health()`` returns: states and sums of datapoints."""
    states = ", ".join(dict.fromkeys(str(health["state"]) for health in clients))
    names = ("acknowledged", "queued", "in_flight", "rejected", "dropped", "undelivered", "kept")
    sums = {name: sum(health[name] for health in clients) for name in names}
    shown = [f"{name.replace('_', ' ')} {count}" for name, count in sums.items() if count or name in {"acknowledged", "queued"}]
    errors = [str(health["connect_error"]) for health in clients if health["connect_error"] and not health["ready"]]
    return "; ".join([f"{states}: {', '.join(shown)}", *errors[:1]])


class SystemdService:
    """Starts clients, reports their life to systemd, and stops them: ``async with SystemdService(client):``.

    - ``READY=1`` when every client has its first session, or, with a ``store``, has opened the store: from then on, accepted data
      is safe.
    - ``STATUS``: the states and the sums of datapoints, as ``systemctl status`` shows them.
    - ``WATCHDOG=1`` twice in ``WatchdogSec``, from the event loop: a blocked loop is noticed, and so is a client that has failed or
      whose data does not move (see ``stall_timeout``). systemd then restarts the service.
    - ``STOPPING=1`` on exit, before the clients send queued data.

    Signals are the part of ``tb_mqtt_client.run``.
    """

    def __init__(
        self,
        *clients: RunsClient,
        stop_timeout: float = STOP_TIMEOUT,
        stall_timeout: float = STALL_TIMEOUT,
        status_interval: float = STATUS_INTERVAL,
        on_reload: Callable[[], Awaitable[None] | None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Create a service that is not started yet.

        Args:
            clients: The clients that the service starts and stops. They need not be connected: ``start`` is called, so that the
                service may boot before its network.
            stop_timeout: Seconds that the clients may take to send queued data on exit, all at the same time.
            stall_timeout: Seconds without a result of any datapoint after which a client counts as stalled, if it has a session
                and data to send and is not limited. Only relevant with a watchdog.
            status_interval: Seconds between updates of the status. Changes of the connection update it at once.
            on_reload: A function or coroutine function that SIGHUP calls, between ``RELOADING=1`` and ``READY=1``
                (``systemctl reload`` with ``Type=notify-reload``). Requires the main thread.
            environment: The variables ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``; ``None`` for ``os.environ``.

        Raises:
            ValueError: There is no client, a time is not positive, or one of the variables is not possible.
            TypeError: A time is not a number, or ``on_reload`` cannot be called.
        """
        if not clients:
            raise ValueError("clients must have at least one client")
        times = {"stop_timeout": stop_timeout, "stall_timeout": stall_timeout, "status_interval": status_interval}
        for name, seconds in times.items():
            if not isinstance(seconds, int | float):
                raise TypeError(f"{name} must be a number of seconds, not {seconds!r}")
            if not seconds > 0:
                raise ValueError(f"{name} must be a positive number of seconds, not {seconds!r}")
        if on_reload is not None and not callable(on_reload):
            raise TypeError(f"on_reload must be a function or a coroutine function, not {on_reload!r}")
        variables = os.environ if environment is None else environment
        self._clients = clients
        self._stop_timeout = stop_timeout
        self._stall_timeout = stall_timeout
        self._on_reload = on_reload
        self._watchdog = watchdog_seconds(variables, os.getpid())
        # Half of the time that systemd allows, as sd_watchdog_enabled(3) recommends.
        self._interval = status_interval if self._watchdog is None else min(status_interval, self._watchdog / 2)
        self._address = variables.get("NOTIFY_SOCKET")
        self._notify = NotifySocket(None)
        self._tasks = Tasks(report_failure)
        self._movements: list[Movement] = []
        self._remove: list[Callable[[], None]] = []
        self._status = ""
        self._is_ready = False
        self._was_stalled = False
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        """Start the clients, and notify the service manager when they are ready, in the background.

        Raises:
            OSError: The store of a client cannot be opened, among others; see ``DeviceClient.start``. No client is left running.
        """
        loop = asyncio.get_running_loop()
        self._notify = NotifySocket(self._address)
        self._is_ready = self._was_stalled = False
        self._movements = [Movement(self._stall_timeout, loop.time) for _ in self._clients]
        try:
            for client in self._clients:
                self._remove.append(client.on_connection_event(lambda _event: self._report()))
                await client.start()
        except BaseException:
            await self._end(0)
            raise
        if self._on_reload is not None and threading.current_thread() is threading.main_thread():
            loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        self._tasks.keep(self._wait_ready(), "readiness", may_return=True)
        self._turn()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Notify the service manager, and stop the clients."""
        microseconds = int((self._stop_timeout + STOP_MARGIN) * 1e6)
        self._notify.send(STOPPING=1, STATUS="stopping: sending queued data", EXTEND_TIMEOUT_USEC=microseconds)
        await self._end(self._stop_timeout)

    async def _end(self, timeout: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for remove in self._remove:
            remove()
        self._remove = []
        if self._on_reload is not None and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        await self._tasks.end_all()
        try:
            results = await asyncio.gather(*(client.stop(timeout) for client in self._clients), return_exceptions=True)
            self._notify.send(STATUS=status_text([client.health() for client in self._clients]))
        finally:
            self._notify.close()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _wait_ready(self) -> None:
        for client in self._clients:
            # An open store is enough: ``start`` raises if it cannot be opened.
            if client.health().get("store") is None:
                try:
                    await client.wait_connected()
                except NotConnectedError:
                    # The program stopped this client itself, or it has failed: the watchdog says so.
                    logger.warning("A client of the service ended before its first session")
                    return
        self._is_ready = True
        self._notify.send(READY=1)
        self._report()

    def _turn(self) -> None:
        """Report, and do so again after the interval. A blocked event loop does not get here."""
        self._report()
        if self._watchdog is not None and not self._is_stalled():
            self._notify.send(WATCHDOG=1)
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._turn)

    def _report(self) -> None:
        status = status_text([client.health() for client in self._clients])
        if status != self._status:
            self._status = status
            self._notify.send(STATUS=status)

    def _is_stalled(self) -> bool:
        healths = [client.health() for client in self._clients]
        # A list, so that each one observes its client.
        stalled = any([movement.is_stalled(health) for movement, health in zip(self._movements, healths, strict=True)])  # noqa: C419
        if stalled and not self._was_stalled:
            text = "The watchdog is not notified any more, so that systemd restarts the service: %s"
            logger.error(text, status_text(healths))
        self._was_stalled = stalled
        return stalled

    def _reload_soon(self) -> None:
        self._tasks.start(self._reload(), "reload")

    async def _reload(self) -> None:
        # systemd matches the reload by this time.
        self._notify.send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
        try:
            if self._on_reload is not None and (result := self._on_reload()) is not None:
                await result
        except Exception:
            # The service continues with its old settings.
            logger.exception("Reloading failed")
        finally:
            self._notify.send(READY=1)
