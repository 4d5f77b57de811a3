"""Set up a session: connect to one of the servers, subscribe, and request the limits."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence

from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.exceptions import ConnectionLostError, ConnectionRefusedByServer, SubscriptionRefusedError, TBMQTTError
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.network.connection_failure import failure_of
from tb_mqtt_client.common.network.route import Route
from tb_mqtt_client.common.timing import running_timeout
from tb_mqtt_client.constants.mqtt_topics import (
    DEVICE_ATTRIBUTES_RESPONSE_TOPIC,
    DEVICE_ATTRIBUTES_TOPIC,
    DEVICE_RPC_REQUEST_TOPIC_FOR_SUBSCRIPTION,
    DEVICE_RPC_RESPONSE_TOPIC_FOR_SUBSCRIPTION,
)
from tb_mqtt_client.entities.server_address import ServerAddress
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.formats.json_session_limits import SessionLimits
from tb_mqtt_client.service.session.limits import request_session_limits
from tb_mqtt_client.service.session.protocol import Connection

logger: ExtendedLogger = get_logger(__name__)


class Failover:
    """Tries servers in order, starting with the one that worked last."""

    def __init__(self) -> None:
        self._next = 0
        self.current: ServerAddress | None = None
        """The server that was tried last; the server of the session, if there is one."""

    async def reach(self, routes: Sequence[Route], attempt: Callable[[Route], Awaitable[None]]) -> None:
        """Try each server once, until an attempt succeeds. The next call starts with that server, or after the last failed one.

        Args:
            routes: The routes to all servers.
            attempt: Sets up a session; raises if that fails.

        Raises:
            OSError: No server was reached. With several servers, a refusal takes precedence over an unreachable server; the
                message says what happened at the others.
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
                    logger.warning("Connecting failed, trying %s next: %s", following, str(error) or repr(error))
            else:
                return
        if len(errors) == 1:
            raise errors[0]
        raise _for_all(errors)


def _for_all(errors: list[Exception]) -> Exception:
    # The refusal of one server is a better explanation than another server that cannot be reached.
    telling = next((error for error in errors if isinstance(error, ConnectionRefusedByServer)), errors[-1])
    others = "; ".join(str(error) for error in errors if error is not telling)
    failure = failure_of(telling)
    if failure is not None:
        return failure.raised(f"; the other servers: {others}")
    telling.add_note(f"The other servers: {others}")
    return telling


RESPONSE_TOPICS = (DEVICE_RPC_RESPONSE_TOPIC_FOR_SUBSCRIPTION, DEVICE_ATTRIBUTES_RESPONSE_TOPIC)
"""Topics of responses to requests. The platform needs no subscription to them, and does not count one; other brokers need it."""
COUNTED_TOPICS = (DEVICE_ATTRIBUTES_TOPIC, DEVICE_RPC_REQUEST_TOPIC_FOR_SUBSCRIPTION)
"""Topics of which the platform counts each subscription as a message. Over the limit, it acknowledges the subscription and then
sends nothing (docs/platform_contract.md, section 2)."""

SILENT_SERVER_SECONDS = 1.0
"""Seconds to wait for the limits of a server that did not announce any in the previous session. Servers that announce limits do so
at once."""


class SessionSetup:
    """Sets up each session from scratch: the platform keeps nothing from the previous one (docs/platform_contract.md, fact 8)."""

    def __init__(
        self,
        config: DeviceConfig,
        manager: Connection,
        admission: Admission,
        next_rpc_id: Callable[[], int],
        apply_limits: Callable[[SessionLimits], None],
        prepare_traffic: Callable[[], None],
        further_topics: Callable[[], Sequence[str]],
        on_connecting: Callable[[ServerAddress], None],
        on_accepted: Callable[[], None],
        on_opened: Callable[[ServerAddress], None],
    ) -> None:
        """Create the set-up of a client's sessions.

        Args:
            config: The configuration of the client; its files are read again for each session.
            manager: Connects to the server.
            admission: Says when a subscription may be sent.
            next_rpc_id: Returns an unused number for the RPC request for the limits.
            apply_limits: Called with the limits of the session.
            prepare_traffic: Does what must happen before queued messages may be published.
            further_topics: Returns topics to subscribe to in addition to those of a device. The platform does not count these
                subscriptions.
            on_connecting: Called before each attempt to connect to a server.
            on_accepted: Called after each CONNACK.
            on_opened: Called with the server when queued messages may be published.
        """
        self.silent_server_seconds = SILENT_SERVER_SECONDS
        """Seconds to wait for the limits of a server that did not announce any in the previous session."""
        self._config = config
        self._manager = manager
        self._admission = admission
        self._next_rpc_id = next_rpc_id
        self._apply_limits = apply_limits
        self._prepare_traffic = prepare_traffic
        self._further_topics = further_topics
        self._on_connecting = on_connecting
        self._on_accepted = on_accepted
        self._on_opened = on_opened
        self._server_is_silent = False
        self._failover = Failover()

    @property
    def server(self) -> ServerAddress | None:
        """The server that was tried last; the server of the session, if there is one."""
        return self._failover.current

    async def establish(self) -> None:
        """Connect, subscribe, request the limits, and open for traffic. Each of several servers is tried once.

        Returns when everything is subscribed. If the limits have too few tokens for that, traffic begins before.

        Raises:
            OSError: No server can be reached, see ``MQTTManager.connect_by``.
            ConnectionRefusedByServer: The server refuses the connection.
        """
        await self._failover.reach(await self._routes(), self._establish_by)

    async def _routes(self) -> tuple[Route, ...]:
        """Return the routes to all servers; certificates are read again for each session, since they may have been renewed."""
        config = self._config
        if config.use_tls() and not isinstance(config.ssl_context, ssl.SSLContext):
            # In a thread, because the files may be on a slow disk.
            return await asyncio.to_thread(config.routes)
        return config.routes()

    async def _establish_by(self, route: Route) -> None:
        self._on_connecting(route.server)
        try:
            await self._set_up(route)
        except ConnectionLostError as error:
            await self._manager.disconnect()
            if str(route.server) in str(error):
                raise
            raise ConnectionLostError(f"{route}: {error}") from error
        except BaseException:
            # A session that is only partly set up cannot be used: the next attempt starts from scratch.
            await self._manager.disconnect()
            raise

    async def _set_up(self, route: Route) -> None:
        config = self._config
        await self._manager.connect_by(
            route,
            username=config.access_token or config.username,
            password=None if config.access_token else config.password,
            keepalive=config.keepalive,
        )
        self._on_accepted()
        await asyncio.gather(*(self._subscribe(topic) for topic in (*RESPONSE_TOPICS, *self._further_topics())))
        # The platform's limit and MQTT 5's Maximum Packet Size count the same bytes, except for the fixed header.
        limits = await self._request_limits()
        self._apply_limits(limits.within(self._manager.terms.max_remaining_length))
        late = [topic for topic in COUNTED_TOPICS if self._admission.try_take_subscription(topic)]
        await asyncio.gather(*(self._subscribe(topic) for topic in COUNTED_TOPICS if topic not in late))
        self._prepare_traffic()
        self._manager.open_for_traffic()
        self._on_opened(route.server)
        logger.info("Connected to %s, connections=%d", route, self._manager.connections)
        # Telemetry does not count as messages, so it does not wait for subscriptions that lack tokens.
        for topic in late:
            await self._wait_for_message_token(topic)
            await self._subscribe(topic)

    async def _subscribe(self, topic: str) -> None:
        """Subscribe; after a refusal, continue without the messages of the topic, because the broker may still accept telemetry."""
        try:
            await self._manager.subscribe(topic)
        except SubscriptionRefusedError as refusal:
            logger.warning("%s. Messages of this topic will not arrive", refusal)

    async def _wait_for_message_token(self, topic: str) -> None:
        while wait := self._admission.try_take_subscription(topic):
            try:
                async with asyncio.timeout(wait):
                    await self._manager.wait_lost()
            except TimeoutError:
                continue
            # The connection has ended: the subscription will raise the reason.
            return

    async def _request_limits(self) -> SessionLimits:
        """Request the limits; servers before 3.8 and other brokers do not reply."""
        seconds = self._config.limits_timeout
        if self._server_is_silent:
            seconds = min(seconds, self.silent_server_seconds)
        self._server_is_silent = False
        try:
            async with running_timeout(seconds):
                reply = await request_session_limits(self._manager, self._next_rpc_id())
            return SessionLimits.parse(reply)
        except TimeoutError:
            self._server_is_silent = True
            logger.info("The server did not announce its limits within %g s: using the defaults", seconds)
        except ValueError as error:
            logger.warning("The server's limits are not usable: using the defaults: %s", error)
        return SessionLimits()
