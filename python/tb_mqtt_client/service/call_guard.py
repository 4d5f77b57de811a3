"""Whether a client may be called: in the state that it is in, and in the event loop that it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import get_ident

from tb_mqtt_client.common.exceptions import NotConnectedError
from tb_mqtt_client.service.life_cycle import ClientState, LifeCycle


class CallGuard:
    """Lets calls of one client pass, or raises the error that says what to do."""

    def __init__(self, life: LifeCycle) -> None:
        """Create the guard of a client with the states ``life``, which belongs to no event loop yet."""
        self.life: LifeCycle = life
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop in which the client was first connected."""
        self.thread: int = 0
        """The identity of the thread in which that loop runs."""
        self.is_loop_running: Callable[[], bool] = bool
        self.failure: str = ""
        """Why the client is in the state ``FAILED``."""

    def enter(self) -> None:
        """Let the client belong to the running loop if it belongs to none.

        Raises:
            RuntimeError: It belongs to another one.
        """
        self.loop = self.loop or asyncio.get_running_loop()
        self.is_loop_running = self.loop.is_running
        self.require_own_loop()
        self.thread = get_ident()

    def require_started(self) -> None:
        """Raise ``NotConnectedError`` if nothing may be sent, and ``RuntimeError`` in another event loop."""
        if not self.life.accepts_sends:
            raise self.not_connected("anything is sent")
        if not (get_ident() == self.thread and self.is_loop_running()):
            self.require_own_loop()

    def require_accepting(self) -> None:
        """Raise ``NotConnectedError`` if nothing may be sent. Any thread may call this."""
        if not self.life.accepts_sends:
            raise self.not_connected("anything is sent")

    def require_own_loop_if_used(self) -> None:
        """Raise ``RuntimeError`` in another event loop, unless no loop needs the client: it is new or stopped."""
        if self.life.state not in {ClientState.NEW, ClientState.STOPPED}:
            self.require_own_loop()

    def require_own_loop(self) -> None:
        """Raise ``RuntimeError`` in another event loop: queues, events and futures belong to one loop."""
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(
                "A client belongs to the event loop in which connect() or start() was called first: "
                "create one client for each loop, or use asyncio.run_coroutine_threadsafe from another thread"
            )

    def not_connected(self, purpose: str) -> NotConnectedError:
        """Return the error that says why the client does not connect, and what to call before its purpose."""
        if self.life.state is ClientState.FAILED:
            return NotConnectedError(self.failure)
        if self.life.state is ClientState.NEW:
            return NotConnectedError(f"connect() or start() must be called before {purpose}")
        how = "disconnected" if self.life.state is ClientState.DISCONNECTED else "stopped"
        return NotConnectedError(f"the client is {how}: connect() or start() must be called again before {purpose}")
