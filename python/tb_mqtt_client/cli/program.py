"""All commands, and what becomes of their failures."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Sequence

import click

from tb_mqtt_client import __version__
from tb_mqtt_client.cli.doctor import doctor
from tb_mqtt_client.cli.firmware import firmware
from tb_mqtt_client.cli.forwarded import demo, emulator
from tb_mqtt_client.cli.outcomes import CommandError, ExitCode
from tb_mqtt_client.cli.provision import provision
from tb_mqtt_client.cli.requests import attributes, claim, rpc
from tb_mqtt_client.cli.send import send
from tb_mqtt_client.cli.terminal import Redactor, Terminal
from tb_mqtt_client.cli.visible import visible
from tb_mqtt_client.cli.watch import watch

EPILOG = """Exit codes: 0 all done and acknowledged; 1 something was refused, or the answer is an error; 2 options or input not
usable; 3 no connection; 4 no answer in time; 5 all that was sent is acknowledged, but input was skipped; 130 interrupted."""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="tb-mqtt")
def tb_mqtt() -> None:
    """Talk MQTT with ThingsBoard as a device or as a gateway.

    The server and the credentials: --host and --token-file of each command, or TB_HOST and TB_ACCESS_TOKEN in the
    environment, or a file for --config. Begin with doctor, which tells what works; emulator is a server to try it all on.
    """


for command in (send, watch, rpc, attributes, provision, claim, firmware, doctor, demo, emulator):
    tb_mqtt.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    redactor = Redactor()
    try:
        outcome = tb_mqtt.main(args=arguments, prog_name="tb-mqtt", standalone_mode=False, obj=redactor)
    except click.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        # It repeats arguments, which may come from a file or another program.
        shown = io.StringIO()
        error.show(shown)
        print(visible(shown.getvalue(), keep="\n"), end="", file=sys.stderr)
        return error.exit_code
    except CommandError as error:
        Terminal(redactor).failure(str(error), error.advice)
        return error.exit_code
    except Exception:  # noqa: BLE001  # the last place that can keep secrets out of a traceback
        print(visible(redactor.clean(traceback.format_exc()), keep="\n"), file=sys.stderr)
        Terminal(redactor).failure("This is a defect of tb-mqtt", "please report it with the lines above")
        return ExitCode.DEFECT
    return outcome if isinstance(outcome, int) else ExitCode.DONE
