"""Loggers of this package: named after their modules, below ``tb_mqtt_client``."""

import logging
import sys
from typing import Any, TextIO

TRACE_LEVEL = 5
"""Below DEBUG: one line per message."""

DEFAULT_LOG_FORMAT = "[%(asctime)s.%(msecs)03d] [%(levelname)s] %(name)s - %(lineno)d - %(message)s"
DEFAULT_DATE_FORMAT = "%Y-%m-%d %H:%M:%S"


def get_logger(name: str | None = None) -> logging.Logger:
    """The logger of this name."""
    return logging.getLogger(name or __name__)


def configure_logging(
    level: int = logging.INFO,
    log_format: str = DEFAULT_LOG_FORMAT,
    date_format: str = DEFAULT_DATE_FORMAT,
    stream: TextIO | Any = sys.stdout,
) -> None:
    """One stream handler on the root logger, unless it has handlers already."""
    logging.addLevelName(TRACE_LEVEL, "TRACE")
    logging.basicConfig(level=level, format=log_format, datefmt=date_format, stream=stream)
