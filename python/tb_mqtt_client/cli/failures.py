"""Failures of a command: exit codes, the error that carries one, and explanations of connection failures."""

from __future__ import annotations

from enum import IntEnum

from tb_mqtt_client.common.network.connection_failure import LOOK_CLOSER, Cause, OptionNames, Topic, failure_of

COMMAND_LINE = OptionNames(
    token="--token-file FILE, TB_ACCESS_TOKEN, or access_token in --config FILE",
    tls="--tls",
    ca_cert="--ca-cert FILE",
    client_certificate="--client-cert FILE and --private-key FILE",
    any_host_name="--no-verify-hostname",
    not_strict="--no-tls-strict",
    proxy="--proxy URL",
)
"""The names that settings have on the command line, for explanations."""


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
    """An expected failure of a command.

    Attributes:
        exit_code: The exit code of the program.
        advice: What to try next; empty if there is no advice.
    """

    def __init__(self, message: str, exit_code: ExitCode, advice: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.advice = advice


def explain(error: Exception) -> Cause:
    """Return the cause of an error that ``connect()`` raised, and what to try next."""
    failure = failure_of(error)
    if failure is not None:
        return failure.cause(COMMAND_LINE)
    if isinstance(error, TimeoutError):
        return Cause("the server did not respond in time", f"a firewall may drop the packets; {LOOK_CLOSER}", Topic.NO_REPLY)
    return Cause(str(error) or type(error).__name__, LOOK_CLOSER, Topic.OTHER)
