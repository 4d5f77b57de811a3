"""Run the emulator from the command line: ``python -m tb_mqtt_client.emulator --device TOKEN``."""

from __future__ import annotations

import argparse
import asyncio
import io
import signal
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from tb_mqtt_client.emulator.console import Console, EventPrinter, counted
from tb_mqtt_client.emulator.limits import RateLimits, SessionLimits
from tb_mqtt_client.emulator.platform import NEWEST, VERSIONS
from tb_mqtt_client.emulator.provisioning import STRATEGIES
from tb_mqtt_client.emulator.server import Emulator

PROGRAM = "python -m tb_mqtt_client.emulator"
_DESCRIPTION = """\
Emulate ThingsBoard's MQTT endpoint, for trying clients. The emulator behaves like the platform and keeps
everything in memory only. It prints connections and publishes as they arrive, and reads commands while it runs: type
help for a list. It has no REST API. The Python API can do more (docs/emulator.md).
"""

_EPILOG = """\
examples:
  one device, the newest platform version:
    %(prog)s --device TOKEN
  a gateway, an older platform version, and a limit on the datapoints of its sub-devices:
    %(prog)s --server-version 4.2 --gateway TOKEN=boiler-room --gateway-telemetry-datapoints 100:1,3000:60
  devices that provision themselves:
    %(prog)s --provision KEY:SECRET

Limits have the platform's form CAPACITY:SECONDS,...; without an option there is no limit. Press Ctrl-C to stop.
"""


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows event loops have no signal handlers; Ctrl-C raises KeyboardInterrupt there.
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with _emulator(arguments) as emulator:
        _describe(emulator, arguments)
        errors: list[Exception] = []
        printer = EventPrinter(_print)
        console = Console(emulator, _print, errors.append)
        if not arguments.quiet:
            emulator.on_event = printer
        console.open()
        if sys.stdin is not None and sys.stdin.isatty():
            _print("Type help for commands.")
        await stopped.wait()
        emulator.on_event = None
        printer.close()
        await console.close()
        counters = emulator.counters
        _print(f"Stopped after {counted(counters.connections, 'session')} and {counted(counters.datapoints, 'datapoint')}")
        if errors:
            raise ExceptionGroup("errors in commands", errors)


def _print(line: str) -> None:
    # The reader of a pipe may have exited; the emulator keeps serving.
    with suppress(BrokenPipeError):
        print(line, flush=True)


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Run the command and return its exit code: 0 when stopped by the user, 2 when the emulator could not start.

    Args:
        arguments: The arguments, without the program's name. ``None``: those of the process.
        program: The name in the help and in errors.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = argument_parser(program)
    parsed = parser.parse_args(arguments)
    for option in ("tls_key", "tls_client_ca"):
        if getattr(parsed, option) is not None and parsed.tls_certificate is None:
            parser.error(f"--{option.replace('_', '-')} requires --tls-certificate")
    try:
        asyncio.run(serve(parsed))
    except KeyboardInterrupt:
        return 0
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


def _emulator(arguments: argparse.Namespace) -> Emulator:
    """Create the emulator that the arguments describe.

    Raises:
        ValueError: A limit, name or token is not valid, or a certificate file cannot be used.
    """
    emulator = Emulator(
        host=arguments.host,
        port=arguments.port,
        version=arguments.server_version,
        limits=SessionLimits(
            rate_limits=RateLimits(arguments.messages, arguments.telemetry_messages, arguments.telemetry_datapoints),
            gateway_rate_limits=RateLimits(
                arguments.gateway_messages, arguments.gateway_telemetry_messages, arguments.gateway_telemetry_datapoints
            ),
        ),
        enforce_limits=not arguments.announce_only,
        max_payload_size=arguments.max_payload_size,
        max_devices=arguments.max_devices,
        accept_any_token=arguments.any_token,
        history_limit=arguments.history,
        ssl_context=_tls_context(arguments),
    )
    for token, name in map(_token_and_name, arguments.device):
        emulator.add_device(token, name)
    for token, name in map(_token_and_name, arguments.gateway):
        emulator.add_gateway(token, name)
    for profile in arguments.provision:
        key, secret, *strategy = profile.split(":")
        emulator.add_provision_profile(key, secret, strategy=strategy[0] if strategy else STRATEGIES[0])
    return emulator


def _tls_context(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    if arguments.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    files = " and ".join(filter(None, [arguments.tls_certificate, arguments.tls_key]))
    with _naming(f"--tls-certificate: {files}"):
        context.load_cert_chain(arguments.tls_certificate, arguments.tls_key)
    if arguments.tls_client_ca is not None:
        with _naming(f"--tls-client-ca: {arguments.tls_client_ca}"):
            context.load_verify_locations(arguments.tls_client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


@contextmanager
def _naming(files: str) -> Iterator[None]:
    """Add the option and the files to an error, because OpenSSL does not name the file."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{files} cannot be used: {error.strerror or error}") from error


def _describe(emulator: Emulator, arguments: argparse.Namespace) -> None:
    scheme = "mqtts" if arguments.tls_certificate is not None else "mqtt"
    print(f"Listening on {scheme}://{emulator.host}:{emulator.port} as version {arguments.server_version}")
    for token, _ in map(_token_and_name, arguments.device + arguments.gateway):
        device = emulator.device(token)
        print(f"  {'gateway' if device.is_gateway else 'device'} {device.name!r}, access token {token!r}")
    if arguments.any_token:
        print("  every other access token creates a device")
    for profile in arguments.provision:
        print(f"  devices may provision themselves with the provision key {profile.partition(':')[0]!r}")
    limits = emulator.limits
    assert limits is not None
    enforcement = "announced only" if arguments.announce_only else "enforced"
    for title, entity in (
        ("devices and gateways", limits.rate_limits),
        ("the sub-devices of a gateway", limits.gateway_rate_limits),
    ):
        for kind, windows in entity.reply().items():
            if windows:
                print(f"  limit for {title}: {kind} {windows}, {enforcement}")
    sys.stdout.flush()


def _token_and_name(text: str) -> tuple[str, str | None]:
    token, separator, name = text.partition("=")
    return token, name if separator else None


def _provision_profile(text: str) -> str:
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts) or (len(parts) == 3 and parts[2] not in STRATEGIES):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY:SECRET or KEY:SECRET:STRATEGY; strategies: {', '.join(STRATEGIES)}")
    return text


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    def convert(text: str) -> int:
        # int() would also accept "1_000" and " 5 ".
        number = int(text) if text.isascii() and text.isdecimal() else None
        if number is None or number < low or (high is not None and number > high):
            allowed = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {allowed}")
        return number

    return convert


def argument_parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of the command.

    Args:
        program: The name in the help and in errors.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=_whole(0, 65535), default=1883, help="port to listen on; 0 picks a free port (default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="do not print connections and publishes")
    parser.add_argument(
        "--server-version", choices=VERSIONS, default=NEWEST, help="platform version to emulate (default: %(default)s)"
    )
    clients = parser.add_argument_group("devices and gateways")
    clients.add_argument("--device", action="append", default=[], metavar="TOKEN[=NAME]", help="add a device; repeatable")
    clients.add_argument("--gateway", action="append", default=[], metavar="TOKEN[=NAME]", help="add a gateway; repeatable")
    clients.add_argument("--any-token", action="store_true", help="create a device, not a gateway, for each unknown access token")
    clients.add_argument(
        "--provision",
        action="append",
        default=[],
        type=_provision_profile,
        metavar="KEY:SECRET[:STRATEGY]",
        help=f"let devices provision themselves; strategies: {', '.join(STRATEGIES)} (default: the first)",
    )
    limits = parser.add_argument_group("limits")
    for scope, sender in (("", "of a device, or of a gateway itself"), ("gateway-", "of all sub-devices of one gateway together")):
        for kind in ("messages", "telemetry-messages", "telemetry-datapoints"):
            limits.add_argument(f"--{scope}{kind}", metavar="N:S,...", help=f"{kind.replace('-', ' ')} {sender}")
    limits.add_argument("--announce-only", action="store_true", help="announce the limits to clients without enforcing them")
    limits.add_argument(
        "--max-payload-size",
        type=_whole(1),
        default=65536,
        metavar="BYTES",
        help="largest remaining length of a packet (default: %(default)s)",
    )
    limits.add_argument(
        "--max-devices", type=_whole(0), metavar="N", help="largest number of devices, sub-devices included (default: unlimited)"
    )
    limits.add_argument(
        "--history",
        type=_whole(0),
        default=1000,
        metavar="N",
        help="telemetry records to keep for each device (default: %(default)s)",
    )
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--tls-certificate", metavar="FILE", help="serve TLS with this certificate (PEM)")
    tls.add_argument("--tls-key", metavar="FILE", help="private key of the certificate, if it is in another file")
    tls.add_argument(
        "--tls-client-ca", metavar="FILE", help="request client certificates from this authority; others fail the handshake"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
