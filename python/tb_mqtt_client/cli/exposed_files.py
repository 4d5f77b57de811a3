"""Warn about a file with secrets that other users of this machine can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tb_mqtt_client.common.logging_utils import get_logger

logger = get_logger(__name__)

MOUNTED_SECRETS = Path("/run/secrets")
"""Docker mounts secrets here, readable for all processes of the container by design."""


def warn_if_exposed(path: str | Path) -> None:
    """Log a warning if users other than the owner and the group can read a file, with the command that changes this."""
    path = Path(path)
    try:
        if not exposed(path.resolve()):
            return
    except OSError:
        # Reading the file says what is wrong with it.
        return
    logger.warning("%s holds a secret, and all users of this machine can read it: chmod 600 %s", path, path)


def exposed(path: Path) -> bool:
    """Return True if others can read a regular file: through its own mode and that of every folder above it."""
    # Windows has no such modes. A pipe, such as that of `<(pass show token)`, is read once.
    if os.name != "posix" or path.is_relative_to(MOUNTED_SECRETS):
        return False
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) or not mode & stat.S_IROTH:
        return False
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
