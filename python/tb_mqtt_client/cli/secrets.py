"""Secrets of one run: read them from files, redact them in output, and warn about files that others can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger

logger: ExtendedLogger = get_logger(__name__)

SHORTEST_SECRET = 4
"""Shorter values are not redacted, because they would be found in ordinary words."""
MOUNTED_SECRETS = Path("/run/secrets")
"""Docker mounts secrets here; by design, all processes of the container can read them."""


class Redactor:
    """Collects the secrets of one run and replaces them in texts."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def add(self, secret: object) -> None:
        """Remember a secret, unless it is ``None`` or shorter than ``SHORTEST_SECRET``."""
        if secret is not None and len(str(secret)) >= SHORTEST_SECRET:
            self._secrets.add(str(secret))

    def clean(self, text: str) -> str:
        """Return a text with each secret replaced by ``***``."""
        # The longest first, because one secret may be part of another.
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def read_secret(path: str, option: str, redactor: Redactor) -> str:
    """Return the first line of a file, add it to the redactor, and warn if others can read the file.

    Args:
        path: The file.
        option: The option or key that names the file, for errors.
        redactor: Receives the secret.

    Raises:
        CommandError: If the file cannot be read, is not a text file, or is empty.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise CommandError(f"{option}: {path} cannot be read: {error.strerror}", ExitCode.USAGE) from error
    except ValueError:
        raise CommandError(f"{option}: {path} is not a text file", ExitCode.USAGE) from None
    secret = lines[0].strip() if lines else ""
    if not secret:
        raise CommandError(f"{option}: {path} is empty", ExitCode.USAGE)
    redactor.add(secret)
    warn_if_exposed(path)
    return secret


def warn_if_exposed(path: str | Path) -> None:
    """Log a warning, with the command to run, if users other than the owner and the group can read a file."""
    path = Path(path)
    try:
        if not is_exposed(path.resolve()):
            return
    except OSError:
        # Reading the file reports the same error, with the name of the option.
        return
    logger.warning("%s holds a secret, and all users of this machine can read it: chmod 600 %s", path, path)


def is_exposed(path: Path) -> bool:
    """Return True if the modes of a regular file and of all folders above it let other users read it."""
    # Windows has no such modes. A pipe, such as that of `<(pass show token)`, is read once.
    if os.name != "posix" or path.is_relative_to(MOUNTED_SECRETS):
        return False
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) or not mode & stat.S_IROTH:
        return False
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
