"""Loggers of this package, which are named after their modules."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, TextIO, cast

TRACE_LEVEL = 5
"""A level below DEBUG, for lines about single messages."""

DEFAULT_LOG_FORMAT = "[%(asctime)s.%(msecs)03d] [%(levelname)s] %(name)s - %(lineno)d - %(message)s"
DEFAULT_DATE_FORMAT = "%Y-%m-%d %H:%M:%S"


class ExtendedLogger(logging.Logger):
    """A logger with a method for ``TRACE_LEVEL``. ``get_logger`` returns one and does not change the process's logger class."""

    def trace(self, message: object, *args: object, **kwargs: Any) -> None:
        """Log at ``TRACE_LEVEL``."""
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        self.log(TRACE_LEVEL, message, *args, **kwargs)

    def handle(self, record: logging.LogRecord) -> None:
        """Pass a record to the handlers.

        An exception of a handler or filter is printed, as ``logging`` prints those of its own handlers: a faulty handler must
        neither lose a message nor end a connection.
        """
        try:
            super().handle(record)
        except Exception:  # noqa: BLE001  # printed, with its traceback
            logging.Handler().handleError(record)


def get_logger(name: str | None = None) -> ExtendedLogger:
    """Return the logger with this name, or that of this module without a name. It has the method ``trace``."""
    logger = logging.getLogger(name or __name__)
    if type(logger) is logging.Logger:
        # Only this logger changes, and it gains a method but no state.
        logger.__class__ = ExtendedLogger
    return cast("ExtendedLogger", logger)


class OccasionalLog:
    """Logs at most one line a minute of each kind, and the others at DEBUG, so that a faulty device cannot fill a disk.

    All kinds are remembered, so there must be few of them.
    """

    def __init__(self, logger: logging.Logger, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Log to ``logger``, one line of each kind in ``seconds``. ``clock`` returns monotonic seconds."""
        self._logger = logger
        self._seconds = seconds
        self._clock = clock
        self._last: dict[Hashable, float] = {}
        self._held_back: Counter[Hashable] = Counter()

    def warn_of(
        self, kind: Hashable, message: str, *args: object, level: int = logging.WARNING, error: BaseException | None = None
    ) -> None:
        """Log a line, or log it at DEBUG if a line of its kind was logged recently.

        Args:
            kind: Identifies similar lines.
            message: The format of the line. The number of suppressed lines is appended.
            args: Arguments of the format.
            level: The level of the line.
            error: An exception to log with its traceback.
        """
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
    """Add a stream handler to the root logger, unless it already has a handler.

    Args:
        level: The level of the root logger.
        log_format: The format of a line.
        date_format: The format of a line's time.
        stream: Where the handler writes lines.
    """
    logging.addLevelName(TRACE_LEVEL, "TRACE")
    logging.basicConfig(level=level, format=log_format, datefmt=date_format, stream=stream)
