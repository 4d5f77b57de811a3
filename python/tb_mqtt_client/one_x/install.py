"""Installs a package on request of the program, as ``utils.install_package`` of SDK 1.x did."""

from __future__ import annotations

import subprocess
import sys


def install_package(package: str, version: str = "upgrade") -> None:
    """Install a package with pip into the environment of the running Python.

    Nothing in this package calls this function: SDK 1.x also installed packages while it was imported.

    Args:
        package: The name of the package.
        version: The version to install; ``"upgrade"`` for the newest one.

    Raises:
        subprocess.CalledProcessError: pip did not install the package.
    """
    wanted = ["--upgrade", package] if version.lower() == "upgrade" else [f"{package}=={version}"]
    subprocess.check_call([sys.executable, "-m", "pip", "install", *wanted], stdout=subprocess.DEVNULL)
