"""The life of a client: its states, and the transitions between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum

StateListener = Callable[["ClientState", "ClientState"], None]
"""Called with the old and the new state."""


class ClientState(Enum):
    """What a client is doing. In the states that accept sends, data is queued, and published while the state is ``OPEN``."""

    NEW = "new"
    """Neither ``connect()`` nor ``start()`` was called yet. Sends raise ``NotConnectedError``."""
    CONNECTING = "connecting"
    """The first connection since ``connect()`` or ``start()`` is being opened; after ``start()``, until an attempt succeeds. Sends
    are accepted."""
    SETTING_UP = "setting up"
    """The server has accepted a connection; topics are subscribed, limits are requested, and the sub-devices of a gateway are
    announced. Sends are accepted."""
    OPEN = "open"
    """The session is set up, and queued data is published. Sends are accepted."""
    RECONNECTING = "reconnecting"
    """The connection was lost, and the client connects again until it succeeds. Sends are accepted."""
    DISCONNECTED = "disconnected"
    """``disconnect()`` was called, or ``connect()`` has failed. Sends are accepted, and published after the next ``connect()`` or
    ``start()``."""
    FINISHING = "finishing"
    """``stop()`` waits for running callbacks of server-side RPC. Sends are accepted, since these callbacks may send."""
    DRAINING = "draining"
    """``stop()`` publishes queued data, and closes. Sends raise ``NotConnectedError``."""
    STOPPED = "stopped"
    """The client is stopped, and nothing is queued. Sends raise ``NotConnectedError``; ``connect()`` and ``start()`` start the
    client again."""
    FAILED = "failed"
    """A task of the client ended because of a defect, or because the program cancelled it. Queued data is undelivered, or kept in
    the store, and the connection is closed; if the program cancelled all tasks at once, it is closed by the next ``connect()``,
    ``disconnect()`` or ``stop()``. Sends raise ``NotConnectedError`` with the cause; ``connect()`` and ``start()`` start the client
    again."""

    @property
    def accepts_sends(self) -> bool:
        """Whether data may be sent, which is then at least queued."""
        return self in _ACCEPTING

    @property
    def wants_connection(self) -> bool:
        """Whether the client has a session, or is establishing one."""
        return self in _CONNECTED

    @property
    def is_stopping(self) -> bool:
        """Whether ``stop()`` is running."""
        return self in {ClientState.FINISHING, ClientState.DRAINING}


_CONNECTED = frozenset({ClientState.CONNECTING, ClientState.SETTING_UP, ClientState.OPEN, ClientState.RECONNECTING})
_ACCEPTING = _CONNECTED | {ClientState.DISCONNECTED, ClientState.FINISHING}
_ENDS = {ClientState.DISCONNECTED, ClientState.FINISHING, ClientState.FAILED}

TRANSITIONS: dict[ClientState, frozenset[ClientState]] = {
    ClientState.NEW: frozenset({ClientState.CONNECTING, ClientState.DRAINING}),
    ClientState.CONNECTING: frozenset({ClientState.SETTING_UP, *_ENDS}),
    ClientState.SETTING_UP: frozenset({ClientState.OPEN, ClientState.CONNECTING, ClientState.RECONNECTING, *_ENDS}),
    ClientState.OPEN: frozenset({ClientState.RECONNECTING, *_ENDS}),
    ClientState.RECONNECTING: frozenset({ClientState.SETTING_UP, *_ENDS}),
    ClientState.DISCONNECTED: frozenset({ClientState.CONNECTING, ClientState.DRAINING}),
    ClientState.FINISHING: frozenset({ClientState.DRAINING}),
    ClientState.DRAINING: frozenset({ClientState.STOPPED}),
    ClientState.STOPPED: frozenset({ClientState.CONNECTING}),
    ClientState.FAILED: frozenset({ClientState.CONNECTING, ClientState.DRAINING}),
}
"""The states that may follow each state."""


class IllegalTransitionError(Exception):
    """A defect of the client: a state does not follow another one."""


class LifeCycle:
    """The state of one client. All transitions are made by ``change``."""

    def __init__(self) -> None:
        self.state: ClientState = ClientState.NEW
        self.accepts_sends: bool = False
        """``state.accepts_sends``, for the path of every send."""
        self.listeners: list[StateListener] = []
        self._waiting: set[asyncio.Future[bool]] = set()

    def change(self, state: ClientState) -> None:
        """Enter a state, and report it to the listeners.

        Raises:
            IllegalTransitionError: The state does not follow the current one.
        """
        old = self.state
        if state not in TRANSITIONS[old]:
            raise IllegalTransitionError(f"a client that is {old.value} cannot become {state.value}")
        self.state = state
        self.accepts_sends = state.accepts_sends
        if state is ClientState.OPEN or not state.wants_connection:
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(state is ClientState.OPEN)
        for listener in self.listeners:
            listener(old, state)

    async def wait_open(self) -> bool:
        """Wait until the state is ``OPEN``. Return False if the client does not connect, or ceases to, first."""
        if self.state is ClientState.OPEN or not self.state.wants_connection:
            return self.state is ClientState.OPEN
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            return await waiter
        finally:
            self._waiting.discard(waiter)

    def follow_session(self, state: ClientState) -> None:
        """Enter a state because of an event of the connection; a client that is ending keeps its state."""
        if self.state.wants_connection and state is not self.state:
            self.change(state)
