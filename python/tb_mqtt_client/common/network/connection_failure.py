"""Why a connection attempt failed: what happened, and what to try next.

The errors that ``connect()`` raises and the findings of ``tb-mqtt doctor`` are made here from the same text. Facts about the
platform's answers are from docs/platform_contract.md, section 1.
"""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass

from tb_mqtt_client.common.exceptions import ConnectionRefusedByServer, ProxyRefusedError
from tb_mqtt_client.common.mqtt.packets import NotMqttError
from tb_mqtt_client.common.network.proxy import PROXY_AUTHENTICATION_REQUIRED
from tb_mqtt_client.common.network.route import CONNECT_TIMEOUT, Route, Step
from tb_mqtt_client.constants.reason_codes import ConnectReturnCode, ReasonCode, connect_return_name
from tb_mqtt_client.entities.server_address import MQTT_OVER_TLS_PORT, MQTT_PORT, ServerAddress

MQTT_5 = 5


@dataclass(frozen=True, slots=True)
class Cause:
    """What happened, and what to try next."""

    finding: str
    advice: str


@dataclass(frozen=True, slots=True)
class OptionNames:
    """What users call the settings that an advice mentions: options of a configuration, or of the command line."""

    token: str = "access_token (or TB_ACCESS_TOKEN)"
    tls: str = "use_system_ca=True"
    ca_cert: str = "ca_cert"
    client_certificate: str = "client_cert and private_key"
    any_host_name: str = "verify_hostname=False"
    not_strict: str = "tls_strict=False"
    proxy: str = "proxy"


PROGRAM = OptionNames()
"""The options of ``DeviceConfig``."""
LOOK_CLOSER = "tb-mqtt doctor examines each step"

# OpenSSL's numbers: X509_V_ERR_... of x509_vfy.h.
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_NAME = {62, 64}
_UNTRUSTED = {2, 18, 19, 20, 21}
_STRICT = range(79, 95)
"""What only X509_V_FLAG_STRICT objects to."""
# OpenSSL's names for a reply that is not TLS.
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING", "PACKET_LENGTH_TOO_LONG"}

_IS_THIS_THE_TLS_PORT = f"is this the port with TLS (usually {MQTT_OVER_TLS_PORT})? For a port in clear leave TLS out"
_TLS_ALERT, _HTTP_LETTER = 0x15, ord("H")
"""First bytes of what a TLS server and a web server say to a CONNECT."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A connection attempt that failed. It goes with the error, so it holds no secret, and nothing that cannot be pickled."""

    server: ServerAddress
    step: Step
    error: Exception
    tls: bool = False
    proxy: str = ""
    """Empty without a proxy."""
    timeout: float = CONNECT_TIMEOUT
    ca_cert: str | None = None

    @classmethod
    def of(cls, route: Route, step: Step, error: Exception) -> Failure:
        """Describe an attempt to connect by ``route`` that failed at ``step``."""
        proxy = "" if route.proxy is None else str(route.proxy)
        return cls(route.server, step, error, route.ssl_context is not None, proxy, route.timeout, route.ca_cert)

    @property
    def where(self) -> str:
        """The server, and the proxy if there is one."""
        return f"{self.server} through {self.proxy}" if self.proxy else str(self.server)

    def cause(self, names: OptionNames = PROGRAM) -> Cause:
        """Return what happened and what to try next, with the settings called as in ``names``."""
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
        """Describe a client that spoke in clear to a port with TLS."""
        advice = f"use TLS: {names.tls}, or {names.ca_cert} for an authority of your own"
        return Cause(f"port {self.server.port} speaks TLS, and the client spoke in clear", advice)

    def raised(self, addition: str = "") -> Exception:
        """Return the error for the caller of ``connect()``: of the class and with the attributes of the original one.

        Its text names the server, the finding and the advice, and ends with ``addition``.
        """
        cause = self.cause()
        text = f"{self.where}: {cause.finding}; {cause.advice}{addition}"
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
        advice = "check the spelling, and that this machine's name server knows it; an IP address works too"
        return Cause(f"{name} is not known here ({error.strerror})", advice)

    def _by_step(self, names: OptionNames) -> Cause:
        match self.step:
            case Step.PROXY:
                return Cause(f"the proxy {self.proxy} cannot be reached ({_reason(self.error)})", f"check {names.proxy}")
            case Step.TLS:
                why = str(self.error) or "it was closed"
                return Cause(f"port {self.server.port} does not answer a TLS handshake ({why})", _IS_THIS_THE_TLS_PORT)
            case Step.MQTT:
                return self._no_connack(names)
        return self._not_reached()

    def _not_reached(self) -> Cause:
        error = self.error
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.ECONNREFUSED:
            ports = f"the usual ones are {MQTT_PORT} in clear and {MQTT_OVER_TLS_PORT} with TLS"
            return Cause(
                f"nothing listens at port {self.server.port}", f"is the server running, and is this its MQTT port? {ports}"
            )
        if number in {errno.EHOSTUNREACH, errno.ENETUNREACH}:
            return Cause("there is no route to this address from here", "check the network, its routes and a VPN")
        if isinstance(error, TimeoutError):
            return Cause("there was no answer in time", f"a firewall may drop the packets; {LOOK_CLOSER}")
        return Cause(_reason(error), LOOK_CLOSER)

    def _timed_out(self, names: OptionNames) -> Cause:
        """Describe a step for which the time limit was too short."""
        within = f"within {self.timeout:g} s"
        match self.step:
            case Step.NAME:
                return Cause(f"the name {self.server.host!r} was not resolved {within}", "check this machine's name server")
            case Step.TCP:
                return Cause(f"there was no answer {within}", f"a firewall may drop the packets; {LOOK_CLOSER}")
            case Step.PROXY:
                return Cause(f"the proxy did not connect {within}", f"check {names.proxy}, and whether the proxy knows this server")
            case Step.TLS:
                return Cause(f"the server did not answer the TLS handshake {within}", _IS_THIS_THE_TLS_PORT)
        finding = f"the server accepted the connection, but sent no CONNACK {within}"
        return Cause(finding, f"is this an MQTT port? {self._other_port(names)}")

    def _no_connack(self, names: OptionNames) -> Cause:
        port, seen = self.server.port, self.error.__cause__
        if isinstance(seen, ssl.SSLError):
            return self._tls_cause(seen, names)
        if not isinstance(seen, NotMqttError):
            return Cause("the server closed the connection before it answered", self._other_port(names))
        if seen.first_byte == _TLS_ALERT and not self.tls:
            return self.speaks_tls(names)
        if seen.first_byte == _HTTP_LETTER:
            finding = f"port {port} is the port of a web server, not of MQTT"
            return Cause(finding, f"the MQTT port is usually {MQTT_PORT}, or {MQTT_OVER_TLS_PORT} with TLS")
        return Cause(f"port {port} does not speak MQTT ({seen})", self._other_port(names))

    def _other_port(self, names: OptionNames) -> str:
        if self.tls:
            return f"the server may want a certificate of this client ({names.client_certificate}); {LOOK_CLOSER}"
        own = f"{names.ca_cert} for an authority of your own"
        return f"a port that expects TLS does so: try {names.tls}, or {own} (port {MQTT_OVER_TLS_PORT})"

    def _tls_cause(self, error: ssl.SSLError, names: OptionNames) -> Cause:
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._certificate_cause(error, names)
        reason = error.reason or ""
        if reason in _NO_TLS and self.step is Step.TLS:
            return Cause(
                f"port {self.server.port} does not speak TLS",
                f"leave TLS out for a port in clear (usually {MQTT_PORT}), or use the port with TLS (usually {MQTT_OVER_TLS_PORT})",
            )
        if "ALERT" in reason or "CERTIFICATE" in reason:
            return Cause(
                f"the server did not accept this client in the TLS handshake ({reason})",
                f"it may want a certificate of this client: {names.client_certificate}, signed by an authority that it trusts",
            )
        return Cause(f"the TLS handshake failed ({reason or error})", "compare the TLS versions and ciphers of both sides")

    def _certificate_cause(self, error: ssl.SSLCertVerificationError, names: OptionNames) -> Cause:
        code = error.verify_code
        if code == _EXPIRED:
            return Cause(
                "the server's certificate has expired", "renew it on the server; if it has not, this machine's clock is ahead"
            )
        if code == _NOT_YET_VALID:
            return Cause("the server's certificate is not valid yet", "this machine's clock is most likely behind: set it")
        if code in _OTHER_NAME:
            return Cause(
                f"the server's certificate is not for {self.server.host!r}",
                f"connect by a name that is in it, or give the server one for this name ({names.any_host_name} accepts any)",
            )
        if code in _UNTRUSTED:
            own = f"for an authority of your own, give its certificate: {names.ca_cert}"
            return Cause(
                "the server's certificate is signed by an authority that is not trusted here",
                f"is {self.ca_cert} the authority that signed it?" if self.ca_cert else own,
            )
        if code in _STRICT:
            return Cause(
                f"the server's certificate, or its authority's, does not follow RFC 5280 ({error.verify_message})",
                "have the authority issue it again with what is missing; Python 3.13 and later insist on that, "
                f"and {names.not_strict} accepts the certificate as it is",
            )
        return Cause(f"the server's certificate did not verify: {error.verify_message}", "look at it with openssl s_client")


def failure_of(error: BaseException) -> Failure | None:
    """Return what is known about an error that ``connect()`` raised."""
    failure = getattr(error, "connection_failure", None)
    return failure if isinstance(failure, Failure) else None


def _proxy_refused(error: ProxyRefusedError, names: OptionNames) -> Cause:
    if error.reply_code == PROXY_AUTHENTICATION_REQUIRED:
        return Cause(f"the proxy {error}", f"give it a user name and a password: {names.proxy} is http://user:password@host:port")
    return Cause(f"the proxy {error}", f"check {names.proxy}; does it allow connections to this server and port?")


def _refused(error: ConnectionRefusedByServer, names: OptionNames) -> Cause:
    name = connect_return_name(error.reason_code, error.protocol_version)
    causes = _refusals_of_mqtt_5(names) if error.protocol_version >= MQTT_5 else _refusals_of_mqtt_3_1_1(names)
    cause = causes.get(error.reason_code)
    if cause is None:
        return Cause(f"the server refused the connection: {name}", "look at the server's log")
    return Cause(f"{cause.finding} ({name})", cause.advice)


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
    "the server knows no device with these credentials",
    "compare them with the device's in ThingsBoard (Devices, the device, Manage credentials); "
    "a token of another server or tenant looks the same",
)
_NOT_AUTHORIZED = Cause(
    "the server does not authorise this client: its certificate is unknown or expired, or there are no credentials",
    "with X.509, the device's credentials in ThingsBoard must hold exactly this certificate; "
    "otherwise give an access token, or a user name with its password",
)
_BUSY = Cause("the server is not available now", "it may be starting or overloaded: try again in a while, or look at its log")
_TOO_OFTEN = Cause("this device connects too often for its tenant's limits", "wait a minute; does another program use its token?")


def _no_credentials(names: OptionNames) -> Cause:
    finding = "no user name was sent, and the server knows no device with this client id"
    return Cause(finding, f"give the device's access token: {names.token}")


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
