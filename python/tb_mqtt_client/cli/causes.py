"""Why a connection failed, in a person's words: what happened, and the next thing to try.

Facts about the platform's answers are from platform_contract.md, section 1.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from dataclasses import dataclass

from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.exceptions import ConnectionRefusedByServer
from tb_mqtt_client.constants.reason_codes import ConnectReturnCode, ReasonCode, connect_return_name

MQTT_5 = 5
CLEAR_PORT, TLS_PORT = 1883, 8883


@dataclass(frozen=True, slots=True)
class Cause:
    """What happened, and what to try next."""

    finding: str
    advice: str


LOOK_CLOSER = "tb-mqtt doctor looks at each step"

_CREDENTIALS = Cause(
    "the server knows no device with these credentials",
    "compare them with the device's in ThingsBoard (Devices, the device, Manage credentials); "
    "a token of another server or tenant looks the same",
)
_NO_CREDENTIALS = Cause(
    "no user name was sent, and the server knows no device with this client id",
    "give the device's access token: --token-file FILE, TB_ACCESS_TOKEN, or access_token in --config FILE",
)
_NOT_AUTHORIZED = Cause(
    "the server does not authorise this client: its certificate is unknown or expired, or there are no credentials",
    "with X.509, the device's credentials in ThingsBoard must hold exactly this certificate; "
    "otherwise give an access token, or a user name with its password",
)
_BUSY = Cause("the server is not available now", "it may be starting or overloaded: try again in a while, or look at its log")
_TOO_OFTEN = Cause("this device connects too often for its tenant's limits", "wait a minute; does another program use its token?")

_REFUSALS_5: dict[int, Cause] = {
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: _CREDENTIALS,
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: _NO_CREDENTIALS,
    ReasonCode.NOT_AUTHORIZED: _NOT_AUTHORIZED,
    ReasonCode.SERVER_UNAVAILABLE: _BUSY,
    ReasonCode.SERVER_BUSY: _BUSY,
    ReasonCode.CONNECTION_RATE_EXCEEDED: _TOO_OFTEN,
}
_REFUSALS_3_1_1: dict[int, Cause] = {
    ConnectReturnCode.IDENTIFIER_REJECTED: _NO_CREDENTIALS,
    ConnectReturnCode.SERVER_UNAVAILABLE: _BUSY,
    ConnectReturnCode.BAD_USER_NAME_OR_PASSWORD: _CREDENTIALS,
    ConnectReturnCode.NOT_AUTHORIZED: _CREDENTIALS,
}

# OpenSSL's numbers: X509_V_ERR_... of x509_vfy.h.
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_NAME = {62, 64}
_UNTRUSTED = {2, 18, 19, 20, 21}

# OpenSSL's names for an answer that is no TLS.
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING", "PACKET_LENGTH_TOO_LONG"}


def explain(error: Exception, config: DeviceConfig) -> Cause:
    """The cause behind what ``connect()`` raised."""
    if isinstance(error, ConnectionRefusedByServer):
        return _refused(error)
    if isinstance(error, ssl.SSLError):
        return tls_cause(error, config)
    if isinstance(error, socket.gaierror):
        advice = "check the spelling, and that this machine's name server knows it; an IP address works too"
        return Cause(f"the name {config.host!r} is not known here ({error.strerror})", advice)
    if isinstance(error, OSError):
        return network_cause(error, config)
    return Cause(str(error), LOOK_CLOSER)


def network_cause(error: OSError, config: DeviceConfig) -> Cause:
    """Between the address and the CONNACK."""
    number = error.errno
    if number is None and len(numbers := set(re.findall(r"\[Errno (\d+)\]", str(error)))) == 1:
        # asyncio's words for a name with several addresses, none of which worked.
        number = int(numbers.pop())
    if number == errno.ECONNREFUSED:
        ports = f"the usual ones are {CLEAR_PORT} in clear and {TLS_PORT} with TLS"
        return Cause(f"nothing listens at port {config.port}", f"is the server running, and is this its MQTT port? {ports}")
    if number in {errno.EHOSTUNREACH, errno.ENETUNREACH}:
        return Cause("there is no way to this address from here", "look at the network, its routes and a VPN")
    if isinstance(error, TimeoutError):
        return Cause("there was no answer in time", f"a firewall may drop the packets; {LOOK_CLOSER}")
    if isinstance(error, ConnectionResetError):
        with_tls = f"a port that expects TLS does so: try --tls, or --ca-cert FILE for an authority of your own (port {TLS_PORT})"
        in_clear = f"a port in clear does so: leave TLS out (port {CLEAR_PORT}); {LOOK_CLOSER}"
        advice = in_clear if config.use_tls() else with_tls
        return Cause("the server closed the connection before it answered", advice)
    return Cause(str(error), LOOK_CLOSER)


def tls_cause(error: ssl.SSLError, config: DeviceConfig) -> Cause:
    """The TLS handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_cause(error, config)
    reason = error.reason or ""
    if reason in _NO_TLS:
        return Cause(
            f"port {config.port} does not speak TLS",
            f"leave TLS out for a port in clear (usually {CLEAR_PORT}), or use the port with TLS (usually {TLS_PORT})",
        )
    if "ALERT" in reason or "CERTIFICATE" in reason:
        return Cause(
            f"the server did not accept this client in the TLS handshake ({reason})",
            "it may want a certificate of this client: --client-cert FILE and --private-key FILE, signed by an authority it trusts",
        )
    return Cause(f"the TLS handshake failed ({reason or error})", "compare the TLS versions and ciphers of both sides")


def _certificate_cause(error: ssl.SSLCertVerificationError, config: DeviceConfig) -> Cause:
    code = error.verify_code
    if code == _EXPIRED:
        return Cause("the server's certificate has expired", "renew it on the server; if it has not, this machine's clock is ahead")
    if code == _NOT_YET_VALID:
        return Cause("the server's certificate is not valid yet", "this machine's clock is most likely behind: set it")
    if code in _OTHER_NAME:
        return Cause(
            f"the server's certificate is not for {config.host!r}",
            "connect by a name that is in it, or give the server one for this name (--no-verify-hostname accepts any)",
        )
    if code in _UNTRUSTED:
        own = "for an authority of your own, give its certificate: --ca-cert FILE"
        return Cause(
            "the server's certificate is signed by nobody who is trusted here",
            f"is {config.ca_cert} the authority that signed it?" if config.ca_cert else own,
        )
    return Cause(f"the server's certificate did not verify: {error.verify_message}", "look at it with openssl s_client")


def _refused(error: ConnectionRefusedByServer) -> Cause:
    name = connect_return_name(error.reason_code, error.protocol_version)
    cause = (_REFUSALS_5 if error.protocol_version >= MQTT_5 else _REFUSALS_3_1_1).get(error.reason_code)
    if cause is None:
        return Cause(f"the server refused it: {name}", "look at the server's log")
    return Cause(f"{cause.finding} ({name})", cause.advice)
