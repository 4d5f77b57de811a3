"""SDK 2.0's helper for programs that install a package themselves. Nothing in this package calls it."""

import importlib.metadata
import subprocess
import sys

from tb_mqtt_client.common.logging_utils import get_logger

logger = get_logger(__name__)


def install_package(package: str, version: str = "upgrade") -> bool:
    """Install a package with pip into the running interpreter's environment; whether it is there afterwards.

    ``version`` is an exact version, or ``"upgrade"`` for the newest. Does nothing when that exact version is installed.
    """
    if version != "upgrade" and _installed_version(package) == version:
        return True
    requirement = ["--upgrade", package] if version == "upgrade" else [f"{package}=={version}"]
    try:
        subprocess.check_call([sys.executable, "-m", "pip", "install", *requirement], stdout=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        logger.warning("pip could not install %s: %s", requirement[-1], error)
        return False
    return True


def _installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
