"""Asks a running program for its health, as ``HealthServer`` serves it."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from tb_mqtt_client.cli.failures import CommandError, ExitCode

SECONDS: float = 5.0
"""How long the program may take for its response."""
MAX_BYTES: int = 1024 * 1024
"""The size of a response that is read."""


def checked_url(url: str) -> str:
    """Return a URL that ``health_of`` can use.

    Raises:
        CommandError: It is not a URL of the form http://HOST:PORT/PATH.
    """
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise CommandError(f"--health: {url!r} is not a URL of the form http://HOST:PORT", ExitCode.USAGE)
    return url


def health_of(url: str) -> dict[str, Any]:
    """Return the response of a running program: ``status`` and ``health``, or ``error``.

    Args:
        url: Where the program serves its health. The request does not go through a proxy.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
    try:
        connection.request("GET", f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}")
        response = connection.getresponse()
        body = response.read(MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        return {"error": str(error) or type(error).__name__}
    finally:
        connection.close()
    try:
        return {"status": response.status, "health": json.loads(body)}
    except ValueError:
        return {"status": response.status, "error": "the response is not JSON", "text": body.decode(errors="backslashreplace")}
