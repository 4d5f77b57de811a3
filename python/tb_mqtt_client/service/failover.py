"""Several servers: which one is tried next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tb_mqtt_client.common.connection_failure import failure_of
from tb_mqtt_client.common.exceptions import ConnectionRefusedByServer, TBMQTTError
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.route import Route
from tb_mqtt_client.entities.server_address import ServerAddress

logger = get_logger(__name__)


class Failover:
    """Tries servers in their order, beginning with the one that worked last."""

    def __init__(self) -> None:
        self._next = 0
        self.current: ServerAddress | None = None
        """The server that was tried last, which is the one of the session if there is one."""

    async def reach(self, routes: Sequence[Route], attempt: Callable[[Route], Awaitable[None]]) -> None:
        """Try each server once, until an attempt succeeds. The next call begins with that one, or after the last one that failed.

        Args:
            routes: All servers.
            attempt: Sets a session up; raises if that fails.

        Raises:
            OSError: No server was reached. With several servers a refusal is raised rather than a server that is away; the text
                says what happened at the others.
            TBMQTTError: As above.
        """
        errors: list[Exception] = []
        for _ in routes:
            route = routes[self._next % len(routes)]
            self.current = route.server
            try:
                await attempt(route)
            except Exception as error:
                self._next = (self._next + 1) % len(routes)
                if not isinstance(error, OSError | TBMQTTError):
                    raise
                errors.append(error)
                if len(errors) < len(routes):
                    following = routes[self._next].server
                    logger.warning("Connecting failed, %s is tried next: %s", following, str(error) or repr(error))
            else:
                return
        if len(errors) == 1:
            raise errors[0]
        raise _for_all(errors)


def _for_all(errors: list[Exception]) -> Exception:
    # What a server says is worth more than that another one is away.
    telling = next((error for error in errors if isinstance(error, ConnectionRefusedByServer)), errors[-1])
    others = "; ".join(str(error) for error in errors if error is not telling)
    failure = failure_of(telling)
    if failure is not None:
        return failure.raised(f"; the other servers: {others}")
    telling.add_note(f"The other servers: {others}")
    return telling
