"""Connect with TLS and read the server's certificate, even if it does not verify.

Python's ``ssl`` module shows the contents of verified certificates only, so they are parsed with ``cryptography``.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

REFUSAL_SECONDS = 0.5
"""How long to wait for a refusal after the handshake. An MQTT server sends nothing else before it receives a CONNECT."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The contents of a server's certificate."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    """The DNS names and IP addresses that the certificate is for."""
    not_before: datetime
    not_after: datetime

    @classmethod
    def parse(cls, der: bytes) -> Certificate:
        """Parse a certificate.

        Args:
            der: The certificate in DER encoding.

        Raises:
            ValueError: If the bytes are not a certificate.
        """
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
        """Return the first and the last day on which the certificate is valid, in UTC."""
        return f"{self.not_before:%Y-%m-%d} to {self.not_after:%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class Handshake:
    """The result of a successful TLS handshake."""

    version: str
    cipher: str
    certificate: Certificate


async def shake_hands(
    connect: Callable[[], Awaitable[socket.socket]], context: ssl.SSLContext, server_name: str, seconds: float
) -> Handshake:
    """Connect, complete a TLS handshake, and close the connection without sending any data.

    Args:
        connect: Makes the connection, without TLS.
        context: What to verify.
        server_name: The host name; a scope id (``%eth0``) is removed.
        seconds: How long the connection and the handshake may take.

    Raises:
        OSError: If the connection or the handshake fails (``ssl.SSLError``) or takes too long (``TimeoutError``).
        ValueError: If the server's certificate cannot be parsed.
    """
    async with asyncio.timeout(seconds):
        connection = await connect()
        reader, writer = await asyncio.open_connection(sock=connection, ssl=context, server_hostname=server_name.partition("%")[0])
    try:
        await _wait_for_refusal(reader)
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        cipher = tls.cipher()
        der = tls.getpeercert(binary_form=True) or b""
        return Handshake(tls.version() or "", cipher[0] if cipher else "", Certificate.parse(der))
    finally:
        # A closing handshake is not needed, because no data was sent that an attacker could truncate.
        writer.transport.abort()


async def _wait_for_refusal(reader: asyncio.StreamReader) -> None:
    """Wait for an alert of the server, and raise it.

    In TLS 1.3 the client completes the handshake before the server has checked the client's certificate.
    """
    try:
        async with asyncio.timeout(REFUSAL_SECONDS):
            if not await reader.read(1):
                raise ConnectionResetError("it was closed right after the handshake")
    except TimeoutError:
        return


def trusting_context() -> ssl.SSLContext:
    """Return a context that verifies nothing. Use it only to read a certificate, never to send data."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
