"""Addresses of servers: the forms that users write, and the form that the client uses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MQTT_PORT, MQTT_OVER_TLS_PORT = 1883, 8883
"""The ports that IANA assigned to MQTT without and with TLS."""
LARGEST_PORT = 65535
"""The largest TCP port."""

_TLS_OF_SCHEME = {"mqtt": False, "tcp": False, "mqtts": True, "ssl": True, "tls": True}
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::(.*))?", re.DOTALL)
_LONGEST_LABEL = 63
"""Characters between two dots of a name (RFC 1035, section 2.3.4)."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server that the client can connect to. ``str()`` returns ``host:port``, with an IPv6 address in brackets."""

    host: str
    """A name or an IP address."""
    port: int
    """The TCP port."""

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class GivenServer:
    """A server as a user wrote it."""

    host: str
    """A name or an IP address."""
    port: int | None = None
    """The TCP port; ``None`` if the user did not write one."""
    tls: bool | None = None
    """Whether the scheme of a URL requires TLS; ``None`` without a scheme."""

    def __str__(self) -> str:
        """Return a text from which ``parse_servers`` makes this server."""
        scheme = "" if self.tls is None else "mqtts://" if self.tls else "mqtt://"
        port = "" if self.port is None else f":{self.port}"
        return f"{scheme}{_bracketed(self.host)}{port}"


def parse_servers(name: str, value: Any) -> tuple[GivenServer, ...]:
    """Parse one or more servers.

    Args:
        name: The option or variable, for errors.
        value: A text in which commas separate servers, or a list of texts. Each text is a host name, an IP address, a URL with the
            scheme ``mqtt`` or ``mqtts`` (also ``tcp``, ``ssl`` and ``tls``), or one of these with ``:port``.

    Returns:
        The servers in the given order; an empty tuple for a blank text.

    Raises:
        ValueError: A text has none of these forms, or only some of the servers require TLS.
    """
    if isinstance(value, str):
        texts = value.split(",") if value.strip() else []
    elif isinstance(value, Iterable) and not isinstance(value, bytes | dict):
        texts = list(value)
        if not texts:
            raise ValueError(f"{name} must name at least one server, not an empty list")
    else:
        raise ValueError(f"{name} must be a str or a list of str, not {value!r}")  # noqa: TRY004  # one error for all options
    servers = tuple(parse_server(name, text) for text in texts)
    if len({server.tls for server in servers} - {None}) > 1:
        raise ValueError(f"{name} must not mix URLs with and without TLS: the client uses the same options for all servers")
    return servers


def parse_server(name: str, text: Any) -> GivenServer:
    """Parse one server.

    Args:
        name: The option or variable, for errors.
        text: A text in one of the forms that ``parse_servers`` accepts.

    Raises:
        ValueError: The text has none of these forms.
    """
    if not isinstance(text, str):
        raise ValueError(f"{name} must be a str or a list of str, not {text!r}")  # noqa: TRY004  # one error for all options
    if "@" in text:
        # The error does not quote the text, which may contain a password.
        raise ValueError(f"{name} must not contain credentials: set access_token, or username and password, instead")
    tls, authority = _split_scheme(name, text.strip())
    host, port = _split_port(name, authority, text)
    return GivenServer(_checked(name, host, text), port, tls)


def _split_scheme(name: str, text: str) -> tuple[bool | None, str]:
    url = _URL.fullmatch(text)
    if url is None:
        return None, text
    scheme, rest = url[1].lower(), url[2]
    authority, _, path = rest.partition("/")
    if scheme in {"http", "https"}:
        host = authority.partition(":")[0] if not authority.startswith("[") else authority
        raise ValueError(
            f"{name} must be the address of the MQTT server, not of a web page ({scheme}://): "
            f"try {host!r}, or 'mqtts://{host}' for MQTT over TLS, which usually listens on port {MQTT_OVER_TLS_PORT}"
        )
    if scheme in {"ws", "wss"}:
        raise ValueError(
            f"{name} must not be a WebSocket URL ({scheme}://): ThingsBoard does not support MQTT over WebSocket, use mqtt://"
        )
    if scheme not in _TLS_OF_SCHEME:
        raise ValueError(f"{name} must be a host, host:port, mqtt://host or mqtts://host, not a URL with the scheme {scheme!r}")
    if path:
        raise ValueError(f"{name} must not have a path: {text!r}")
    return _TLS_OF_SCHEME[scheme], authority


def _split_port(name: str, authority: str, text: str) -> tuple[str, int | None]:
    if authority.startswith("["):
        match = _BRACKETED.fullmatch(authority)
        if match is None or not _is_ipv6(match[1]):
            raise ValueError(f"{name} must have an IPv6 address in brackets, optionally followed by :port, not {text!r}")
        return match[1], None if match[2] is None else _port(name, match[2], text)
    if authority.count(":") > 1:
        if not _is_ipv6(authority):
            raise ValueError(f"{name} must be a host, host:port or an IPv6 address, not {text!r}")
        return authority, None
    host, colon, port = authority.partition(":")
    return host, _port(name, port, text) if colon else None


def _port(name: str, digits: str, text: str) -> int:
    if not digits.isascii() or not digits.isdigit() or not 0 < int(digits) <= LARGEST_PORT:
        raise ValueError(f"{name} must have a port from 1 to {LARGEST_PORT} after the colon, not {text!r}")
    return int(digits)


def _checked(name: str, host: str, text: str) -> str:
    try:
        # The IDNA codec takes milliseconds to load, so it is used for names of other alphabets only.
        labels = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        labels = "\0"
    *inner, last = labels.split(".")
    unusable = set(labels) & set("\0/?#@ \t\r\n")
    if not host or unusable or not all(inner) or any(len(label) > _LONGEST_LABEL for label in (*inner, last)):
        raise ValueError(f"{name} must be a host name or an IP address, not {text!r}")
    return host


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
