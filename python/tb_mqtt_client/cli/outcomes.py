"""How commands end: exit codes, and the error that carries one."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the shell sees."""

    DONE = 0
    """All of it was done, and acknowledged."""
    REFUSED = 1
    """It ran, but something was not acknowledged, the answer is an error, or a check failed."""
    USAGE = 2
    """Options, configuration or input are not usable."""
    NO_CONNECTION = 3
    """The server could not be reached, or refused the connection."""
    TIMEOUT = 4
    """An answer did not come in time."""
    SKIPPED = 5
    """All that was sent is acknowledged, but lines of the input were skipped."""
    DEFECT = 70
    """A defect of this program."""
    INTERRUPTED = 130
    """Ctrl-C."""
    TERMINATED = 143
    """SIGTERM."""


class CommandError(Exception):
    """An expected failure: what happened, what to try next, and the exit code."""

    def __init__(self, message: str, exit_code: ExitCode, advice: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.advice = advice
