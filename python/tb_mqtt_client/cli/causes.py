"""Why a connection failed, with settings called as on the command line."""

from __future__ import annotations

from tb_mqtt_client.common.network.connection_failure import LOOK_CLOSER, Cause, OptionNames, failure_of

COMMAND_LINE = OptionNames(
    token="--token-file FILE, TB_ACCESS_TOKEN, or access_token in --config FILE",
    tls="--tls",
    ca_cert="--ca-cert FILE",
    client_certificate="--client-cert FILE and --private-key FILE",
    any_host_name="--no-verify-hostname",
    not_strict="--no-tls-strict",
    proxy="--proxy URL",
)


def explain(error: Exception) -> Cause:
    """Return the cause of an error that ``connect()`` raised, and what to try next."""
    failure = failure_of(error)
    if failure is not None:
        return failure.cause(COMMAND_LINE)
    if isinstance(error, TimeoutError):
        return Cause("there was no answer in time", f"a firewall may drop the packets; {LOOK_CLOSER}")
    return Cause(str(error) or type(error).__name__, LOOK_CLOSER)
