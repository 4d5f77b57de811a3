"""Programs of this package with options of their own, which are passed on unchanged."""

from __future__ import annotations

from importlib.util import find_spec

import click

from tb_mqtt_client.cli.outcomes import CommandError, ExitCode

# The programs parse their own options, --help too.
_AS_IT_IS = {"ignore_unknown_options": True, "help_option_names": []}


@click.command(context_settings=_AS_IT_IS, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> int:
    """Send this machine's metrics to a built-in emulator or to a server (demo --help)."""
    if find_spec("psutil") is None:
        raise CommandError("The demo needs more than the other commands: pip install 'tb-mqtt-client[demo]'", ExitCode.USAGE)
    # Imported here because its dependencies may be missing.
    from tb_mqtt_client.demo.program import main  # noqa: PLC0415

    return main(arguments)


@click.command(context_settings=_AS_IT_IS, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def emulator(arguments: tuple[str, ...]) -> int:
    """Run an emulator of ThingsBoard's MQTT endpoint (emulator --help)."""
    from tb_mqtt_client.emulator.__main__ import main  # noqa: PLC0415  # the other commands do not need it

    return main(arguments)
