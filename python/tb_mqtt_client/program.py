"""All commands of ``tb-mqtt``, and the report of their failures."""

from __future__ import annotations

import argparse
import io
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import cast

import click

from tb_mqtt_client import __version__
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.forwarded import Forwarded
from tb_mqtt_client.cli.secrets import Redactor
from tb_mqtt_client.cli.terminal import Terminal, visible

EPILOG = """Exit codes: 0 everything done and acknowledged; 1 something refused, or the response is an error; 2 options or input
unusable; 3 no connection; 4 no response in time; 5 acknowledged, but lines were skipped or datapoints superseded; 130 Ctrl-C;
143 SIGTERM."""

_MODULES = {
    "agent": "agent",
    "attributes": "requests",
    "bench": "bench",
    "claim": "requests",
    "config": "config",
    "diag": "diag",
    "doctor": "doctor",
    "firmware": "firmware",
    "provision": "provision",
    "rpc": "requests",
    "send": "send",
    "store": "store",
    "watch": "watch",
}
"""The module of each command in ``tb_mqtt_client.cli``."""


class _Program(click.Group):
    """Imports a command when it is run or described: importing all of them takes longer than a short command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*self.commands, *_MODULES])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _MODULES.get(cmd_name)
        if module is None:
            return super().get_command(ctx, cmd_name)
        return cast("click.Command", getattr(import_module(f"tb_mqtt_client.cli.{module}"), cmd_name))


@click.group(cls=_Program, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="tb-mqtt")
def tb_mqtt() -> None:
    """Connect to ThingsBoard over MQTT as a device or as a gateway.

    Name the server and the credentials with --host and --token-file, in the environment (TB_HOST, TB_ACCESS_TOKEN), or
    in a file (--config). Start with doctor, which checks the connection. Without a server, start
    with emulator, which runs one on this machine.
    """


# The imports in these functions are of packages that may be missing, and of modules that the other commands do not need.


def _run_demo(arguments: Sequence[str]) -> int:
    if find_spec("psutil") is None:
        raise CommandError("The demo needs the package psutil: pip install psutil", ExitCode.USAGE)
    from tb_mqtt_client.demo.program import main  # noqa: PLC0415

    return main(arguments, program="tb-mqtt demo")


def _demo_parser() -> argparse.ArgumentParser | None:
    if find_spec("psutil") is None:
        return None
    from tb_mqtt_client.demo.program import argument_parser  # noqa: PLC0415

    return argument_parser("tb-mqtt demo")


def _run_emulator(arguments: Sequence[str]) -> int:
    from tb_mqtt_client.emulator.__main__ import main  # noqa: PLC0415

    return main(arguments, program="tb-mqtt emulator")


def _emulator_parser() -> argparse.ArgumentParser:
    from tb_mqtt_client.emulator.__main__ import argument_parser  # noqa: PLC0415

    return argument_parser("tb-mqtt emulator")


tb_mqtt.add_command(Forwarded("demo", _run_demo, _demo_parser, short_help="Send this machine's metrics through a gateway."))
tb_mqtt.add_command(Forwarded("emulator", _run_emulator, _emulator_parser, short_help="Emulate ThingsBoard's MQTT endpoint."))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code.

    Args:
        arguments: The arguments, without the program's name. ``None``: those of the process.
    """
    redactor = Redactor()
    try:
        outcome = tb_mqtt.main(args=arguments, prog_name="tb-mqtt", standalone_mode=False, obj=redactor)
    except click.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        # The message repeats arguments, which may come from a file or another program.
        shown = io.StringIO()
        error.show(shown)
        print(visible(shown.getvalue(), keep="\n"), end="", file=sys.stderr)
        return error.exit_code
    except CommandError as error:
        Terminal(redactor).failure(str(error), error.advice)
        return error.exit_code
    except Exception:  # noqa: BLE001  # the last place that can keep secrets out of a traceback
        print(visible(redactor.clean(traceback.format_exc()), keep="\n"), file=sys.stderr)
        Terminal(redactor).failure("This is a bug in tb-mqtt", "please report it with the lines above")
        return ExitCode.DEFECT
    return outcome if isinstance(outcome, int) else ExitCode.DONE
