"""Read certificates, also ones that did not verify: Python's ssl module shows the contents of verified ones only."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

OBJECTION_SECONDS = 0.5
"""How long a server may take to refuse a client after the handshake; a server of MQTT says nothing else before a CONNECT."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    """DNS names and IP addresses that it is for."""
    not_before: datetime
    not_after: datetime

    @classmethod
    def parse(cls, der: bytes) -> Certificate:
        """Parse a certificate. Raises ``ValueError`` if it is not one."""
        certificate = x509.load_der_x509_certificate(der)
        try:
            alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = (
                *alternatives.get_values_for_type(x509.DNSName),
                *(str(address) for address in alternatives.get_values_for_type(x509.IPAddress)),
            )
        except x509.ExtensionNotFound:
            names = ()
        return cls(
            certificate.subject.rfc4514_string() or "no name",
            certificate.issuer.rfc4514_string() or "no name",
            names,
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )

    @property
    def validity(self) -> str:
        """Return the first and the last day, UTC."""
        return f"{self.not_before:%Y-%m-%d} to {self.not_after:%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class Handshake:
    """A TLS handshake that succeeded."""

    version: str
    cipher: str
    certificate: Certificate


async def shake_hands(
    connect: Callable[[], Awaitable[socket.socket]], context: ssl.SSLContext, server_name: str, seconds: float
) -> Handshake:
    """Connect, shake hands, and close without saying anything.

    Raises ``OSError``, which ``ssl.SSLError`` and ``TimeoutError`` are.
    """
    async with asyncio.timeout(seconds):
        connection = await connect()
        reader, writer = await asyncio.open_connection(sock=connection, ssl=context, server_hostname=server_name.partition("%")[0])
    try:
        await _objection(reader)
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        cipher = tls.cipher()
        der = tls.getpeercert(binary_form=True) or b""
        return Handshake(tls.version() or "", cipher[0] if cipher else "", Certificate.parse(der))
    finally:
        # No closing handshake: no data was sent that an attacker could cut off.
        writer.transport.abort()


async def _objection(reader: asyncio.StreamReader) -> None:
    """Wait for an alert: in TLS 1.3 the client finishes before the server has checked the client's certificate."""
    try:
        async with asyncio.timeout(OBJECTION_SECONDS):
            if not await reader.read(1):
                raise ConnectionResetError("it was closed right after the handshake")
    except TimeoutError:
        return


def trusting_context() -> ssl.SSLContext:
    """Return a context that verifies nothing: to read a certificate, never to send anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
