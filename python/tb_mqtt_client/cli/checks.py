"""The steps of ``tb-mqtt doctor``, from resolving the name to testing a session. Each has a finding and what to try next.

Nothing is stored on the platform. The server's codes and replies are described in docs/platform_contract.md, sections 1 and 5.
"""

from __future__ import annotations

import asyncio
import copy
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.cli.certificates import Certificate, Handshake, shake_hands, trusting_context
from tb_mqtt_client.cli.failures import COMMAND_LINE, explain
from tb_mqtt_client.cli.settings import Settings
from tb_mqtt_client.common.exceptions import ConnectionLostError, ConnectionRefusedByServer, TBMQTTError
from tb_mqtt_client.common.network.connection_failure import Cause, Failure, Topic
from tb_mqtt_client.common.network.happy_eyeballs import ATTEMPT_DELAY, AddressInfo, connect_first, resolve
from tb_mqtt_client.common.network.route import Step
from tb_mqtt_client.constants.reason_codes import ReasonCode
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.server_address import ServerAddress

STEP_SECONDS = 10.0
"""How long one step waits for the server or the proxy."""
BYTES_BESIDE_PADDING = 256
"""Bytes of a test packet besides its padding: topic, ids and names."""
SOON_DAYS = 14
"""A certificate that expires within this many days gets a warning."""
EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)
"""A clock that shows an earlier time is wrong, because this package did not exist then."""
STEPS = ("settings", "name", "TCP", "TLS", "clock", "protocol", "credentials", "limits", "payload size")
TAKEN_OVER = "another client with the same credentials took the session"
ONE_EACH = "use one device per program: two programs with the same credentials take the session from each other"
GOOD, WARNING, BAD, SKIPPED = "good", "warning", "bad", "skipped"
Connect = Callable[[], Awaitable[socket.socket]]
"""Connects to the server, without TLS."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one step. ``status`` is good, warning, bad, or skipped if the step was not possible."""

    step: str
    status: str
    finding: str
    advice: str = ""
    topic: Topic | None = None
    """The section of docs/troubleshooting.md about a bad finding."""


class StepFailed(Exception):
    """A step failed, so the later steps are not possible. It is a finding, not an error of the program."""

    def __init__(self, step: str, cause: Cause, addition: str = "") -> None:
        super().__init__(cause.finding)
        self.finding: Finding = Finding(step, BAD, f"{cause.finding}{addition}", cause.advice, cause.topic)


class Examination:
    """Examines the connection to one server, step by step."""

    def __init__(self, settings: Settings, server: ServerAddress) -> None:
        # Only this server is configured, because the client would continue with the next of several servers.
        config = copy.copy(settings.config)
        config.host = str(server)
        self._settings = settings
        self._config = config
        [self._route] = config.routes()
        self._route = replace(self._route, timeout=STEP_SECONDS)
        self._server = server
        self.health: dict[str, Any] | None = None
        """``health()`` of the client that was tested; ``None`` if no step needed one."""

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield the finding of each step. After a bad finding, the remaining steps are skipped."""
        reported: set[str] = set()
        try:
            async for finding in self._steps():
                reported.add(finding.step)
                yield finding
        except StepFailed as failed:
            reported.add(failed.finding.step)
            yield failed.finding
            if "clock" not in reported:
                reported.add("clock")
                yield clock_finding(datetime.now(UTC), None)
        for step in STEPS:
            if step not in reported:
                yield Finding(step, SKIPPED, "not tried")

    async def _steps(self) -> AsyncIterator[Finding]:
        yield self._settings_finding()
        if self._route.proxy is None:
            addresses = await self._resolve()
            yield Finding("name", GOOD, f"{self._server.host} is {', '.join(str(info[4][0]) for info in addresses)}")
            connect, finding = await self._connect(addresses)
        else:
            yield Finding("name", SKIPPED, "the proxy resolves it")
            connect, finding = await self._connect_through_proxy()
        yield finding
        certificate = None
        if self._config.use_tls():
            handshake = await self._handshake(connect)
            certificate = handshake.certificate
            yield self._certificate_finding(handshake)
        else:
            yield Finding("TLS", SKIPPED, "not used: everything, including the credentials, is sent unencrypted")
        yield clock_finding(datetime.now(UTC), certificate)
        client = DeviceClient(self._config)
        try:
            async for finding in self._session(client, connect):
                yield finding
        finally:
            self.health = client.health()
            await client.stop()

    def _settings_finding(self) -> Finding:
        settings, config = self._settings, self._config
        tls = "with TLS" if config.use_tls() else "without TLS"
        kind = "access token" if config.access_token else "user name" if config.username else "password"
        credentials = f"{kind} from {settings.origin_of_credentials}" if settings.origin_of_credentials else ""
        certificate = "a certificate of this client" if config.client_cert else ""
        means = " and ".join(filter(None, (credentials, certificate)))
        through = f" through {self._route.proxy}" if self._route.proxy else ""
        text = f"{self._server} {tls}{through} (from {settings.origin_of_host}); {means or 'no credentials'}"
        if means:
            return Finding("settings", GOOD, text)
        return Finding("settings", WARNING, text, "give --token-file FILE, TB_ACCESS_TOKEN, or access_token in --config FILE")

    def _failed(self, step: Step, error: Exception) -> Cause:
        return Failure.of(self._route, step, error).cause(COMMAND_LINE)

    async def _resolve(self) -> list[AddressInfo]:
        try:
            async with asyncio.timeout(STEP_SECONDS):
                found = await resolve(self._server.host, self._server.port)
        except (OSError, UnicodeError) as error:
            cause = self._failed(Step.NAME, error)
            raise StepFailed("name", cause) from error
        # Keep each address once, in the order in which a connection tries them.
        return list({str(info[4][0]): info for info in reversed(found)}.values())[::-1]

    async def _connect(self, addresses: list[AddressInfo]) -> tuple[Connect, Finding]:
        """Try each address, and return a function that connects to the first address that accepts."""
        good: list[AddressInfo] = []
        errors: dict[str, OSError] = {}
        for info in addresses:
            try:
                async with asyncio.timeout(STEP_SECONDS):
                    (await connect_first([info])).close()
            except OSError as error:
                errors[str(info[4][0])] = error
                continue
            good.append(info)
        port = self._server.port
        if not good:
            cause = self._failed(Step.TCP, next(iter(errors.values())))
            raise StepFailed("TCP", cause, f" ({', '.join(errors)})")
        text = f"{', '.join(str(info[4][0]) for info in good)} accepts connections on port {port}"

        def connect() -> Awaitable[socket.socket]:
            return connect_first(good)

        if not errors:
            return connect, Finding("TCP", GOOD, text)
        text += "".join(f"; {other}: {self._failed(Step.TCP, error).finding}" for other, error in errors.items())
        advice = f"clients try the next address after {ATTEMPT_DELAY:g} s; correct the entry of the name server"
        return connect, Finding("TCP", WARNING, text, advice)

    async def _connect_through_proxy(self) -> tuple[Connect, Finding]:
        proxy = self._route.proxy
        assert proxy is not None

        def connect() -> Awaitable[socket.socket]:
            return proxy.connect(self._server.host, self._server.port)

        try:
            async with asyncio.timeout(STEP_SECONDS):
                (await connect()).close()
        except OSError as error:
            cause = self._failed(Step.PROXY, error)
            raise StepFailed("TCP", cause) from error
        except ModuleNotFoundError as missing:
            cause = Cause(f"{proxy} cannot be used", str(missing), Topic.PROXY_NOT_REACHED)
            raise StepFailed("TCP", cause) from missing
        return connect, Finding("TCP", GOOD, f"{proxy} connects to {self._server}")

    async def _handshake(self, connect: Connect) -> Handshake:
        context = self._route.ssl_context
        assert context is not None
        try:
            return await shake_hands(connect, context, self._server.host, STEP_SECONDS)
        except OSError as error:
            cause = self._failed(Step.TLS, error)
            certificate = await self._describe_certificate(connect) if isinstance(error, ssl.SSLCertVerificationError) else ""
            raise StepFailed("TLS", cause, certificate) from error

    async def _describe_certificate(self, connect: Connect) -> str:
        """Describe a certificate that did not verify, or return an empty text if it cannot be read."""
        try:
            seen = (await shake_hands(connect, trusting_context(), self._server.host, STEP_SECONDS)).certificate
        except (OSError, ValueError):
            return ""
        names = ", ".join(seen.names) or "no name"
        return f"; subject {seen.subject}, issuer {seen.issuer}, for {names}, valid {seen.validity}"

    def _certificate_finding(self, handshake: Handshake) -> Finding:
        certificate = handshake.certificate
        text = f"{handshake.version}, {handshake.cipher}; {certificate.subject} is verified, valid {certificate.validity}"
        days = (certificate.not_after - datetime.now(UTC)).days
        if days < SOON_DAYS:
            return Finding("TLS", WARNING, text, f"it expires in {days} days: renew it")
        if not self._config.verify_hostname:
            return Finding("TLS", WARNING, text, "the host name is not verified, so any certificate of this authority is accepted")
        return Finding("TLS", GOOD, text)

    async def _session(self, client: DeviceClient, connect: Connect) -> AsyncIterator[Finding]:
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await client.connect()
        except ConnectionRefusedByServer as refusal:
            yield protocol_finding(refusal.protocol_version)
            raise StepFailed("credentials", explain(refusal)) from refusal
        except TimeoutError as error:
            advice = "check that this is an MQTT port; --verbose shows the server's packets, if any"
            finding = f"no session within {self._settings.connect_timeout:g} s"
            raise StepFailed("protocol", Cause(finding, advice, Topic.NO_CONNACK)) from error
        except (OSError, TBMQTTError) as error:
            raise await self._no_session(error, client.health(), connect) from error
        health = client.health()
        yield protocol_finding(health["mqtt_version"])
        yield self._credentials_finding(health)
        yield limits_finding(health, self._config.rate_limit_percentage)
        yield await self._payload_finding(client, health)

    async def _no_session(self, error: Exception, health: dict[str, Any], connect: Connect) -> StepFailed:
        if health["last_disconnect_code"] == ReasonCode.SESSION_TAKEN_OVER:
            return StepFailed("credentials", Cause(f"accepted, but {TAKEN_OVER}", ONE_EACH, Topic.SESSION_TAKEN_OVER))
        if health["connections"]:
            finding = f"the session ended immediately: {health['last_disconnect']}"
            return StepFailed("protocol", Cause(finding, "check the server's log", Topic.SESSION_ENDED))
        if not self._config.use_tls() and await self._speaks_tls(connect):
            cause = Failure.of(self._route, Step.MQTT, error).speaks_tls(COMMAND_LINE)
            return StepFailed("protocol", cause)
        cause = explain(error)
        return StepFailed("protocol", replace(cause, finding=f"no reply to CONNECT: {cause.finding}"))

    async def _speaks_tls(self, connect: Connect) -> bool:
        try:
            await shake_hands(connect, trusting_context(), self._server.host, STEP_SECONDS)
        except (OSError, ValueError):
            return False
        return True

    def _credentials_finding(self, health: dict[str, Any]) -> Finding:
        if health["last_disconnect_code"] == ReasonCode.SESSION_TAKEN_OVER:
            return Finding("credentials", WARNING, f"accepted, but {TAKEN_OVER}", ONE_EACH, Topic.SESSION_TAKEN_OVER)
        role = "; the device is a gateway" if health["limits"]["gateway"] else ""
        if self._settings.origin_of_credentials or self._config.client_cert:
            return Finding("credentials", GOOD, f"accepted{role}")
        return Finding(
            "credentials", WARNING, f"accepted without any{role}", "the platform does this only for a client id that it knows"
        )

    async def _payload_finding(self, client: DeviceClient, health: dict[str, Any]) -> Finding:
        limit = health["limits"]["max_packet_size"]
        text = f"max packet {limit:,} bytes (telemetry payload {client.max_payload_size:,})"
        if not health["limits"]["announced"]:
            return Finding("payload size", SKIPPED, f"not announced by the server; assumed: {text}")
        # The platform ignores the parameters, stores nothing, and replies immediately (docs/platform_contract.md, section 5).
        size = limit - BYTES_BESIDE_PADDING
        request = await RPCRequest.build("getSessionLimits", {"padding": "x" * size})
        try:
            await client.send_rpc_request(request, timeout=STEP_SECONDS)
        except ConnectionLostError:
            advice = "a proxy or load balancer in front of the platform has a lower limit: raise it"
            finding = f"{text}; but a {size:,}-byte test packet ended the connection"
            return Finding("payload size", BAD, finding, advice, Topic.PACKETS_TOO_LARGE)
        except TimeoutError:
            return Finding(
                "payload size",
                WARNING,
                f"{text}; a {size:,}-byte test packet got no reply",
                "check the limits of a proxy in between",
            )
        return Finding("payload size", GOOD, f"{text}; a {size:,}-byte test packet got through")


def protocol_finding(mqtt_version: int) -> Finding:
    """Return the finding about the MQTT version, with a warning about 3.1.1."""
    if mqtt_version >= 5:
        return Finding("protocol", GOOD, "MQTT 5")
    advice = "MQTT 3.1.1 has no reason codes: refused data looks acknowledged. Use MQTT 5 if the server supports it"
    return Finding("protocol", WARNING, "MQTT 3.1.1", advice)


def limits_finding(health: dict[str, Any], percentage: int) -> Finding:
    """Return the finding about the rate limits that the server announced."""
    limits = health["limits"]
    if not limits["announced"]:
        advice = "ThingsBoard before 3.8 and other brokers announce none; unannounced limits may still end the connection"
        return Finding("limits", WARNING, "the server did not announce its limits (getSessionLimits)", advice)
    device, gateway = (_windows(limits[owner]) for owner in ("device", "gateway"))
    text = device or "unlimited"
    if limits["gateway"]:
        text += f"; its sub-devices together: {gateway or 'unlimited'}"
    if device or gateway:
        text += f" (count:seconds, of which the client uses {percentage} %)"
    return Finding("limits", GOOD, text)


def _windows(texts: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {text}" for name, text in texts.items() if text)


def clock_finding(now: datetime, certificate: Certificate | None) -> Finding:
    """Return the finding about this machine's clock.

    MQTT does not carry the server's time, so the clock is compared with the validity of the certificate.

    Args:
        now: The time that the clock shows.
        certificate: A certificate that verified at that time, if any.
    """
    text = f"this machine's clock shows {now:%Y-%m-%d %H:%M:%S} UTC"
    if now < EARLIEST:
        advice = "set it: data without a time is stored under this time, and certificates do not verify"
        return Finding("clock", BAD, f"{text}, which is wrong", advice, Topic.WRONG_CLOCK)
    advice = "compare it with a clock that you trust: data without a time is stored under this time"
    if certificate is None:
        return Finding("clock", SKIPPED, f"{text}; MQTT does not carry the server's time", advice)
    return Finding("clock", GOOD, f"{text}, within the certificate's validity; MQTT does not carry the server's time")
