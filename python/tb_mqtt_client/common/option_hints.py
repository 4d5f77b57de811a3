"""What a misspelt option most likely means."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

_OTHER_NAMES = {
    "ca": "ca_cert",
    "cafile": "ca_cert",
    "cert": "client_cert",
    "certfile": "client_cert",
    "clientid": "client_id",
    "hostname": "host",
    "key": "private_key",
    "keyfile": "private_key",
    "server": "host",
    "ssl": "use_system_ca",
    "timeout": "connect_timeout",
    "tls": "use_system_ca",
    "token": "access_token",
    "url": "host",
    "user": "username",
}
"""What other libraries call an option."""


def nearest_option(name: Any, options: Iterable[str]) -> str:
    """Return the rest of a sentence: ``", did you mean 'port'?"``, or a full stop if nothing is near."""
    plain = str(name).lower()
    near = [_OTHER_NAMES[plain]] if plain in _OTHER_NAMES else get_close_matches(plain, list(options), n=1)
    found = near[0] if near else None
    return f", did you mean {found!r}?" if found else "."
