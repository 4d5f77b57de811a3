"""Settings that programs for SDK 1.x change by assigning to names of its modules."""

from __future__ import annotations

import logging
import os

DEFAULT_TIMEOUT: float = 5
"""Seconds; read at each use. The IoT Gateway assigns 3 to ``tb_device_mqtt.DEFAULT_TIMEOUT``."""

log: logging.Logger = logging.getLogger("tb_connection")
"""Where everything here is logged. The IoT Gateway assigns its own logger to ``tb_device_mqtt.log``."""


def _percentage() -> int:
    given = os.environ.get("TB_DEFAULT_RATE_LIMIT_PERCENTAGE", "")
    # A wrong value is reported by the client, which reads this variable too.
    return int(given) if given.isdecimal() and 0 < int(given) <= 100 else 80


DEFAULT_RATE_LIMIT_PERCENTAGE: int = _percentage()
"""The share of a rate limit that is used, in percent."""
