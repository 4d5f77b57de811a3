"""TLS contexts made from certificate files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

KEY_VALUES_MISMATCH = "KEY_VALUES_MISMATCH"
"""OpenSSL's name for a private key that does not belong to the certificate."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files, and how the server's certificate is checked."""

    ca_cert: str | None = None
    """The certificate authorities to trust; ``None`` for those of the system."""
    client_cert: str | None = None
    """The client's certificate."""
    private_key: str | None = None
    """The private key of ``client_cert``."""
    private_key_password: str | None = field(default=None, repr=False)
    """The password of an encrypted ``private_key``."""
    verify_hostname: bool = True
    """Require that the server's certificate is for the server's name."""
    strict: bool | None = None
    """Require that certificates follow RFC 5280 to the letter. ``None`` is Python's default: required from Python 3.13 on."""

    def context(self) -> ssl.SSLContext:
        """Read the files and return a new context.

        Never prompts for a password on the terminal, as OpenSSL does by default, because that would block the event loop.

        Raises:
            FileNotFoundError: A file is missing; the text names the option.
            ValueError: Only one of ``client_cert`` and ``private_key`` is set, or the key is encrypted and there is no password.
            ssl.SSLError: A file is not a certificate or a key, they do not belong together, or the password is wrong.
        """
        if bool(self.client_cert) != bool(self.private_key):
            raise ValueError("client_cert and private_key must be set together")
        for name in ("ca_cert", "client_cert", "private_key"):
            path = getattr(self, name)
            if path and not Path(path).is_file():
                raise FileNotFoundError(f"{name}: there is no file {path}")
        context = self._trusting()
        context.check_hostname = self.verify_hostname
        if self.strict is not None:
            others = context.verify_flags & ~ssl.VerifyFlags.VERIFY_X509_STRICT
            context.verify_flags = others | (ssl.VerifyFlags.VERIFY_X509_STRICT if self.strict else 0)
        if self.client_cert and self.private_key:
            self._load_pair(context, self.client_cert, self.private_key)
        return context

    def _trusting(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca_cert)
        except ssl.SSLError as error:
            raise _described(error, f"ca_cert: {self.ca_cert} is not a certificate in PEM form") from error

    def _load_pair(self, context: ssl.SSLContext, client_cert: str, private_key: str) -> None:
        asked = False

        def password() -> str:
            nonlocal asked
            asked = True
            if self.private_key_password is None:
                raise ValueError(f"private_key: {private_key} is encrypted: set private_key_password (or TB_PRIVATE_KEY_PASSWORD)")
            return self.private_key_password

        try:
            context.load_cert_chain(client_cert, private_key, password)
        except ssl.SSLError as error:
            if error.reason == KEY_VALUES_MISMATCH:
                text = f"client_cert and private_key: {private_key} is not the key of the certificate in {client_cert}"
            elif asked:
                text = f"private_key_password is not the password of {private_key}"
            else:
                text = f"client_cert and private_key: {client_cert} and {private_key} must be a certificate and its key in PEM form"
            raise _described(error, text) from error


def _described(error: ssl.SSLError, text: str) -> ssl.SSLError:
    described = type(error)(error.errno, f"{text} ({error.reason})" if error.reason else text)
    vars(described).update(vars(error))
    return described
