"""Explanations of failed connection attempts: what happened, and what to try next.

Errors raised by ``connect()`` and findings of ``tb-mqtt doctor`` take their texts from here. How the platform refuses connections
is described in docs/platform_contract.md, section 1.
"""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass
from enum import StrEnum

from tb_mqtt_client.common.exceptions import ConnectionRefusedByServer, ProxyRefusedError
from tb_mqtt_client.common.mqtt.packets import NotMqttError
from tb_mqtt_client.common.network.proxy import PROXY_AUTHENTICATION_REQUIRED
from tb_mqtt_client.common.network.route import CONNECT_TIMEOUT, Route, Step
from tb_mqtt_client.constants.option_values import MQTT_5
from tb_mqtt_client.constants.reason_codes import ConnectReturnCode, ReasonCode, connect_return_name
from tb_mqtt_client.entities.server_address import MQTT_OVER_TLS_PORT, MQTT_PORT, ServerAddress


class Topic(StrEnum):
    """The causes of failed connections. Each value is the anchor of a section of docs/troubleshooting.md."""

    UNKNOWN_NAME = "unknown-name"
    NAME_TIMEOUT = "name-server-does-not-respond"
    NOTHING_LISTENS = "nothing-listens"
    NO_ROUTE = "no-route"
    NO_REPLY = "no-reply"
    PROXY_NOT_REACHED = "proxy-not-reached"
    PROXY_REFUSED = "proxy-refused"
    PROXY_CREDENTIALS = "proxy-credentials"
    TLS_REQUIRED = "tls-required"
    NOT_TLS = "not-a-tls-port"
    NO_TLS_REPLY = "no-tls-reply"
    CLIENT_CERTIFICATE = "client-certificate-rejected"
    TLS_FAILED = "tls-failed"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_YET_VALID = "certificate-not-yet-valid"
    CERTIFICATE_OTHER_NAME = "certificate-for-another-name"
    CERTIFICATE_UNTRUSTED = "certificate-untrusted"
    CERTIFICATE_NOT_STRICT = "certificate-not-strict"
    CERTIFICATE_NOT_VERIFIED = "certificate-not-verified"
    NO_CONNACK = "no-connack"
    CLOSED_BEFORE_CONNACK = "closed-before-connack"
    WEB_SERVER = "port-of-a-web-server"
    NOT_MQTT = "not-an-mqtt-port"
    WRONG_CREDENTIALS = "wrong-credentials"
    NO_CREDENTIALS = "no-credentials"
    NOT_AUTHORIZED = "not-authorized"
    SERVER_UNAVAILABLE = "server-unavailable"
    CONNECTS_TOO_OFTEN = "connects-too-often"
    REFUSED = "refused"
    SESSION_TAKEN_OVER = "session-taken-over"
    SESSION_ENDED = "session-ended"
    PACKETS_TOO_LARGE = "packets-too-large"
    WRONG_CLOCK = "wrong-clock"
    OTHER = "other-failures"


@dataclass(frozen=True, slots=True)
class Cause:
    """An explanation of a failure. Both texts are clauses without a capital or a full stop."""

    finding: str
    """What happened."""
    advice: str
    """What to try next."""
    topic: Topic
    """The section of docs/troubleshooting.md about it."""


@dataclass(frozen=True, slots=True)
class OptionNames:
    """The names of settings in advice: those of a configuration (the defaults), or of the command line."""

    token: str = "access_token (or TB_ACCESS_TOKEN)"
    tls: str = "use_system_ca=True"
    ca_cert: str = "ca_cert"
    client_certificate: str = "client_cert and private_key"
    any_host_name: str = "verify_hostname=False"
    not_strict: str = "tls_strict=False"
    proxy: str = "proxy"


PROGRAM = OptionNames()
"""The names of the options of ``DeviceConfig``."""
LOOK_CLOSER = "tb-mqtt doctor examines each step"

# Error codes of OpenSSL: X509_V_ERR_... in x509_vfy.h.
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_NAME = {62, 64}
_UNTRUSTED = {2, 18, 19, 20, 21}
_STRICT = range(79, 95)
"""Errors that only X509_V_FLAG_STRICT causes."""
# Reasons that OpenSSL reports if the reply is not TLS.
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING", "PACKET_LENGTH_TOO_LONG"}

_CHECK_TLS_PORT = f"check that this is the port for TLS (usually {MQTT_OVER_TLS_PORT}), or turn TLS off"
_CHECK_MQTT_PORT = "check that this is an MQTT port"
_FIREWALL = f"a firewall may drop the packets; {LOOK_CLOSER}"
_TLS_ALERT, _HTTP_LETTER = 0x15, ord("H")
"""The first byte with which a TLS server or a web server replies to a CONNECT."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A connection attempt that failed.

    It is attached to the error, so it contains no secret and can be pickled.
    """

    server: ServerAddress
    step: Step
    error: Exception
    tls: bool = False
    proxy: str = ""
    """URL of the proxy without its credentials; empty without a proxy."""
    timeout: float = CONNECT_TIMEOUT
    """Seconds that the attempt may take."""
    ca_cert: str | None = None
    """Path of the certificate authorities that the client trusts; ``None`` for those of the system."""

    @classmethod
    def of(cls, route: Route, step: Step, error: Exception) -> Failure:
        """Describe a failed attempt to connect.

        Args:
            route: The server, and how the client connects to it.
            step: The step that failed.
            error: The error that it raised.
        """
        proxy = "" if route.proxy is None else str(route.proxy)
        return cls(route.server, step, error, route.ssl_context is not None, proxy, route.timeout, route.ca_cert)

    @property
    def where(self) -> str:
        """The server and, if there is one, the proxy."""
        return f"{self.server} through {self.proxy}" if self.proxy else str(self.server)

    def cause(self, names: OptionNames = PROGRAM) -> Cause:
        """Explain the failure.

        Args:
            names: The names of the settings in the advice.
        """
        match self.error:
            case ConnectionRefusedByServer() as refusal:
                return _refused(refusal, names)
            case ProxyRefusedError() as refusal:
                return _proxy_refused(refusal, names)
            case ssl.SSLError() as error:
                return self._tls_cause(error, names)
            case socket.gaierror() as error:
                return self._unknown_name(error)
            case TimeoutError(errno=None):
                return self._timed_out(names)
        return self._by_step(names)

    def speaks_tls(self, names: OptionNames = PROGRAM) -> Cause:
        """Explain that a client without TLS connected to a port that requires TLS."""
        advice = f"use {names.tls}, or {names.ca_cert} for your own certificate authority"
        return Cause(f"port {self.server.port} requires TLS, but the client did not use it", advice, Topic.TLS_REQUIRED)

    def raised(self, addition: str = "") -> Exception:
        """Return the error for the caller of ``connect()``, with the class and the attributes of the original error.

        Args:
            addition: The end of the error's text, after the server, the finding and the advice.
        """
        cause = self.cause()
        text = f"{self.where}: {cause.finding}; {cause.advice}{addition} [troubleshooting: {cause.topic}]"
        original = self.error
        if isinstance(original, ConnectionRefusedByServer):
            described: Exception = ConnectionRefusedByServer(original.reason_code, original.protocol_version, text)
        elif isinstance(original, ProxyRefusedError):
            described = ProxyRefusedError(text, original.reply_code)
        elif isinstance(original, OSError) and original.errno is not None:
            described = type(original)(original.errno, text)
        else:
            described = type(original)(text)
        vars(described).update(vars(original), connection_failure=self)
        return described

    def _unknown_name(self, error: socket.gaierror) -> Cause:
        name = f"the name of the proxy {self.proxy}" if self.step is Step.PROXY else f"the name {self.server.host!r}"
        advice = "check the spelling and this machine's DNS settings, or use an IP address"
        return Cause(f"{name} cannot be resolved ({error.strerror})", advice, Topic.UNKNOWN_NAME)

    def _by_step(self, names: OptionNames) -> Cause:
        match self.step:
            case Step.PROXY:
                finding = f"the proxy {self.proxy} cannot be reached ({_reason(self.error)})"
                return Cause(finding, f"check {names.proxy}", Topic.PROXY_NOT_REACHED)
            case Step.TLS:
                why = str(self.error) or "the connection was closed"
                finding = f"port {self.server.port} does not respond to a TLS handshake ({why})"
                return Cause(finding, _CHECK_TLS_PORT, Topic.NO_TLS_REPLY)
            case Step.MQTT:
                return self._no_connack(names)
        return self._not_reached()

    def _not_reached(self) -> Cause:
        error = self.error
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.ECONNREFUSED:
            ports = f"usually {MQTT_PORT}, or {MQTT_OVER_TLS_PORT} with TLS"
            advice = f"check that the server is running and that this is its MQTT port ({ports})"
            return Cause(f"nothing listens on port {self.server.port}", advice, Topic.NOTHING_LISTENS)
        if number in {errno.EHOSTUNREACH, errno.ENETUNREACH}:
            advice = "check the network, the routes and the VPN of this machine"
            return Cause("there is no route to this address", advice, Topic.NO_ROUTE)
        if isinstance(error, TimeoutError):
            return Cause("the server did not respond in time", _FIREWALL, Topic.NO_REPLY)
        return Cause(_reason(error), LOOK_CLOSER, Topic.OTHER)

    def _timed_out(self, names: OptionNames) -> Cause:
        """Explain that a step took too long."""
        within = f"within {self.timeout:g} s"
        match self.step:
            case Step.NAME:
                finding = f"the name {self.server.host!r} was not resolved {within}"
                return Cause(finding, "check this machine's DNS settings", Topic.NAME_TIMEOUT)
            case Step.TCP:
                return Cause(f"the server did not respond {within}", _FIREWALL, Topic.NO_REPLY)
            case Step.PROXY:
                advice = f"check {names.proxy}, and that the proxy can reach this server"
                return Cause(f"the proxy did not connect {within}", advice, Topic.PROXY_NOT_REACHED)
            case Step.TLS:
                finding = f"the server did not respond to the TLS handshake {within}"
                return Cause(finding, _CHECK_TLS_PORT, Topic.NO_TLS_REPLY)
        finding = f"the server accepted the connection, but sent no CONNACK {within}"
        return Cause(finding, self._other_port(names), Topic.NO_CONNACK)

    def _no_connack(self, names: OptionNames) -> Cause:
        port, seen = self.server.port, self.error.__cause__
        if isinstance(seen, ssl.SSLError):
            return self._tls_cause(seen, names)
        if not isinstance(seen, NotMqttError):
            finding = "the server closed the connection before sending a CONNACK"
            return Cause(finding, self._other_port(names), Topic.CLOSED_BEFORE_CONNACK)
        if seen.first_byte == _TLS_ALERT and not self.tls:
            return self.speaks_tls(names)
        if seen.first_byte == _HTTP_LETTER:
            finding = f"port {port} is the port of a web server, not of MQTT"
            advice = f"{_CHECK_MQTT_PORT} (usually {MQTT_PORT}, or {MQTT_OVER_TLS_PORT} with TLS)"
            return Cause(finding, advice, Topic.WEB_SERVER)
        return Cause(f"port {port} does not speak MQTT ({seen})", self._other_port(names), Topic.NOT_MQTT)

    def _other_port(self, names: OptionNames) -> str:
        if self.tls:
            return f"{_CHECK_MQTT_PORT}; the server may require a client certificate ({names.client_certificate}); {LOOK_CLOSER}"
        tls = f"use {names.tls}, or {names.ca_cert} for your own certificate authority"
        return f"{_CHECK_MQTT_PORT}; if it is a port for TLS (usually {MQTT_OVER_TLS_PORT}), {tls}"

    def _tls_cause(self, error: ssl.SSLError, names: OptionNames) -> Cause:
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._certificate_cause(error, names)
        reason = error.reason or ""
        if reason in _NO_TLS and self.step is Step.TLS:
            return Cause(
                f"port {self.server.port} does not speak TLS",
                f"turn TLS off for this port (usually {MQTT_PORT}), or use the port for TLS (usually {MQTT_OVER_TLS_PORT})",
                Topic.NOT_TLS,
            )
        if "ALERT" in reason or "CERTIFICATE" in reason:
            return Cause(
                f"the server rejected this client in the TLS handshake ({reason})",
                f"it may require a client certificate ({names.client_certificate}) from an authority that it trusts",
                Topic.CLIENT_CERTIFICATE,
            )
        advice = "compare the TLS versions and ciphers of both sides"
        return Cause(f"the TLS handshake failed ({reason or error})", advice, Topic.TLS_FAILED)

    def _certificate_cause(self, error: ssl.SSLCertVerificationError, names: OptionNames) -> Cause:
        code = error.verify_code
        if code == _EXPIRED:
            advice = "renew it on the server, or correct this machine's clock if it is ahead"
            return Cause("the server's certificate has expired", advice, Topic.CERTIFICATE_EXPIRED)
        if code == _NOT_YET_VALID:
            advice = "correct this machine's clock, which is probably behind"
            return Cause("the server's certificate is not valid yet", advice, Topic.CERTIFICATE_NOT_YET_VALID)
        if code in _OTHER_NAME:
            return Cause(
                f"the server's certificate is not for {self.server.host!r}",
                f"connect to a name that the certificate contains, or issue one for this name ({names.any_host_name} accepts any)",
                Topic.CERTIFICATE_OTHER_NAME,
            )
        if code in _UNTRUSTED:
            own = f"for your own certificate authority use {names.ca_cert}"
            return Cause(
                "the server's certificate is signed by an untrusted authority",
                f"check that {self.ca_cert} is the authority that signed it" if self.ca_cert else own,
                Topic.CERTIFICATE_UNTRUSTED,
            )
        if code in _STRICT:
            return Cause(
                f"the server's certificate, or its authority's, does not follow RFC 5280 ({error.verify_message})",
                "issue a certificate that does, which Python 3.13 and later require by default; "
                f"{names.not_strict} accepts this one",
                Topic.CERTIFICATE_NOT_STRICT,
            )
        finding = f"the server's certificate could not be verified: {error.verify_message}"
        return Cause(finding, "inspect it with openssl s_client", Topic.CERTIFICATE_NOT_VERIFIED)


def failure_of(error: BaseException) -> Failure | None:
    """Return the description of an error that ``connect()`` raised, or ``None`` if it has none."""
    failure = getattr(error, "connection_failure", None)
    return failure if isinstance(failure, Failure) else None


def _proxy_refused(error: ProxyRefusedError, names: OptionNames) -> Cause:
    if error.reply_code == PROXY_AUTHENTICATION_REQUIRED:
        advice = f"set its user name and password: {names.proxy} is http://user:password@host:port"
        return Cause(f"the proxy {error}", advice, Topic.PROXY_CREDENTIALS)
    advice = f"check {names.proxy}, and that the proxy allows connections to this server and port"
    return Cause(f"the proxy {error}", advice, Topic.PROXY_REFUSED)


def _refused(error: ConnectionRefusedByServer, names: OptionNames) -> Cause:
    name = connect_return_name(error.reason_code, error.protocol_version)
    causes = _refusals_of_mqtt_5(names) if error.protocol_version >= MQTT_5 else _refusals_of_mqtt_3_1_1(names)
    cause = causes.get(error.reason_code)
    if cause is None:
        return Cause(f"the server refused the connection: {name}", "check the server's log", Topic.REFUSED)
    return Cause(f"{cause.finding} ({name})", cause.advice, cause.topic)


def _refusals_of_mqtt_5(names: OptionNames) -> dict[int, Cause]:
    return {
        ReasonCode.BAD_USER_NAME_OR_PASSWORD: _CREDENTIALS,
        ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: _no_credentials(names),
        ReasonCode.NOT_AUTHORIZED: _NOT_AUTHORIZED,
        ReasonCode.SERVER_UNAVAILABLE: _BUSY,
        ReasonCode.SERVER_BUSY: _BUSY,
        ReasonCode.CONNECTION_RATE_EXCEEDED: _TOO_OFTEN,
    }


def _refusals_of_mqtt_3_1_1(names: OptionNames) -> dict[int, Cause]:
    return {
        ConnectReturnCode.IDENTIFIER_REJECTED: _no_credentials(names),
        ConnectReturnCode.SERVER_UNAVAILABLE: _BUSY,
        ConnectReturnCode.BAD_USER_NAME_OR_PASSWORD: _CREDENTIALS,
        ConnectReturnCode.NOT_AUTHORIZED: _CREDENTIALS,
    }


_CREDENTIALS = Cause(
    "the server has no device with these credentials",
    "compare them with the device's credentials in ThingsBoard (Devices, the device, Manage credentials); "
    "tokens of other servers and tenants look the same",
    Topic.WRONG_CREDENTIALS,
)
_NOT_AUTHORIZED = Cause(
    "the server does not authorize this client: its certificate is unknown or expired, or there are no credentials",
    "with X.509, the device's credentials in ThingsBoard must contain exactly this certificate; "
    "otherwise set an access token, or a user name and password",
    Topic.NOT_AUTHORIZED,
)
_BUSY = Cause(
    "the server is currently unavailable",
    "it may be starting or overloaded: try again later, or check its log",
    Topic.SERVER_UNAVAILABLE,
)
_TOO_OFTEN = Cause(
    "this device connects too often for its tenant's limits",
    "wait a minute, and check that no other program uses its token",
    Topic.CONNECTS_TOO_OFTEN,
)


def _no_credentials(names: OptionNames) -> Cause:
    finding = "no user name was sent, and the server has no device with this client id"
    return Cause(finding, f"set the device's access token: {names.token}", Topic.NO_CREDENTIALS)


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
