"""Credentials of devices (contract section 1)."""

from __future__ import annotations

import secrets
import ssl
import string
from dataclasses import dataclass
from typing import Final, TypeAlias

_LETTERS: Final = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class BasicCredentials:
    """MQTT_BASIC credentials: what is not None must be presented. At least one of client id and username is needed."""

    client_id: str | None = None
    username: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True)
class X509Credentials:
    """X509_CERTIFICATE credentials: the client's certificate as PEM text, presented in the TLS handshake."""

    certificate: str


# An access token is plain text.
Credentials: TypeAlias = str | BasicCredentials | X509Credentials


def certificate_der(pem: str) -> bytes:
    """Convert a certificate. Raises `ValueError` for a text that is not one."""
    return ssl.PEM_cert_to_DER_cert(pem.strip())


def random_text() -> str:
    """20 characters, as the platform's own names and tokens have."""
    return "".join(secrets.choice(_LETTERS) for _ in range(20))
