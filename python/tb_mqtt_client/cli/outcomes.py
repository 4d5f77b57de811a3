"""Exit codes, and the error that carries one."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of all commands."""

    DONE = 0
    """Everything was done, and acknowledged."""
    REFUSED = 1
    """Something was not acknowledged, the response is an error, a check failed, or the result cannot be written."""
    USAGE = 2
    """Options, configuration or input are not usable."""
    NO_CONNECTION = 3
    """The server could not be reached, or refused the connection."""
    TIMEOUT = 4
    """No response arrived in time."""
    INCOMPLETE = 5
    """Everything sent was acknowledged, but lines of the input were skipped, or datapoints were superseded."""
    DEFECT = 70
    """A bug in this program."""
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
