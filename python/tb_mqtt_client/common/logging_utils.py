"""Loggers of this package: named after their modules, below ``tb_mqtt_client``."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, TextIO, cast

TRACE_LEVEL = 5
"""Below DEBUG: one line per message."""

DEFAULT_LOG_FORMAT = "[%(asctime)s.%(msecs)03d] [%(levelname)s] %(name)s - %(lineno)d - %(message)s"
DEFAULT_DATE_FORMAT = "%Y-%m-%d %H:%M:%S"


class ExtendedLogger(logging.Logger):
    """A logger that has a method for ``TRACE_LEVEL``. ``get_logger`` gives them; the process's logger class stays as it is."""

    def trace(self, message: object, *args: object, **kwargs: Any) -> None:
        """Log at ``TRACE_LEVEL``."""
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        self.log(TRACE_LEVEL, message, *args, **kwargs)

    def handle(self, record: logging.LogRecord) -> None:
        """Pass a record to the handlers. The exception of a handler or filter is printed as ``logging`` prints those of its own.

        A program's handler that raises must neither lose a message nor end a connection.
        """
        try:
            super().handle(record)
        except Exception:  # noqa: BLE001  # printed, with its traceback
            logging.Handler().handleError(record)


def get_logger(name: str | None = None) -> ExtendedLogger:
    """The logger of this name, with ``trace``, whoever made it first."""
    logger = logging.getLogger(name or __name__)
    if type(logger) is logging.Logger:
        # This one logger only: it gains a method, and no state.
        logger.__class__ = ExtendedLogger
    return cast("ExtendedLogger", logger)


class OccasionalLog:
    """Lines about single messages: one of a kind a minute, the others at DEBUG. A bad device must not fill a disk.

    Kinds are few: they are remembered.
    """

    def __init__(self, logger: logging.Logger, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: monotonic seconds."""
        self._logger = logger
        self._seconds = seconds
        self._clock = clock
        self._last: dict[Hashable, float] = {}
        self._held_back: Counter[Hashable] = Counter()

    def warn_of(
        self, kind: Hashable, message: str, *args: object, level: int = logging.WARNING, error: BaseException | None = None
    ) -> None:
        """Log a line; when there were others of its kind since the last one, it says how many. ``error``: with its traceback."""
        now = self._clock()
        if now - self._last.get(kind, float("-inf")) < self._seconds:
            self._held_back[kind] += 1
            self._logger.debug(message, *args, exc_info=error)
            return
        self._last[kind] = now
        if held_back := self._held_back.pop(kind, 0):
            message, args = f"{message} (and %d more like this since the last such line)", (*args, held_back)
        self._logger.log(level, message, *args, exc_info=error)


def configure_logging(
    level: int = logging.INFO,
    log_format: str = DEFAULT_LOG_FORMAT,
    date_format: str = DEFAULT_DATE_FORMAT,
    stream: TextIO | Any = sys.stdout,
) -> None:
    """One stream handler on the root logger, unless it has handlers already."""
    logging.addLevelName(TRACE_LEVEL, "TRACE")
    logging.basicConfig(level=level, format=log_format, datefmt=date_format, stream=stream)
