"""``python -m tb_mqtt_client.emulator --port 1883 --device TOKEN --gateway TOKEN``"""

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

_DESCRIPTION = """\
A stand-in for ThingsBoard's MQTT endpoint, to try clients against: it answers as the platform answers, and forgets
everything when it ends. It prints what arrives, and takes commands while it runs: type help. It has no REST API;
from Python it can do more (docs/emulator.md).
"""

_EPILOG = """\
examples:
  one device, the newest platform:
    %(prog)s --device TOKEN
  a gateway of an older platform, with limits on what its devices send:
    %(prog)s --server-version 4.2 --gateway TOKEN=boiler-room --gateway-telemetry-datapoints 100:1,3000:60
  devices that register themselves:
    %(prog)s --provision KEY:SECRET

Limits are written as the platform writes them, CAPACITY:SECONDS,...; what has none is not limited. Ctrl-C ends it.
"""


async def serve(arguments: argparse.Namespace) -> None:
    """Listen until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not every platform has these; there Ctrl-C raises KeyboardInterrupt.
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
            raise ExceptionGroup("errors of commands", errors)


def _print(line: str) -> None:
    # Who reads the output may have ended; the emulator serves on.
    with suppress(BrokenPipeError):
        print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: stopped by the user. 2: it could not begin."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = _parser()
    parsed = parser.parse_args(arguments)
    for option in ("tls_key", "tls_client_ca"):
        if getattr(parsed, option) is not None and parsed.tls_certificate is None:
            parser.error(f"--{option.replace('_', '-')} goes with --tls-certificate")
    try:
        asyncio.run(serve(parsed))
    except KeyboardInterrupt:
        return 0
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


def _emulator(arguments: argparse.Namespace) -> Emulator:
    """Raises `ValueError` and `OSError` for what cannot be served."""
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
    with _named(f"--tls-certificate: {files}"):
        context.load_cert_chain(arguments.tls_certificate, arguments.tls_key)
    if arguments.tls_client_ca is not None:
        with _named(f"--tls-client-ca: {arguments.tls_client_ca}"):
            context.load_verify_locations(arguments.tls_client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


@contextmanager
def _named(what: str) -> Iterator[None]:
    """OpenSSL says what is wrong, and not with which file."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{what} cannot be used: {error.strerror or error}") from error


def _describe(emulator: Emulator, arguments: argparse.Namespace) -> None:
    scheme = "mqtts" if arguments.tls_certificate is not None else "mqtt"
    print(f"Listening on {scheme}://{emulator.host}:{emulator.port} as version {arguments.server_version}")
    for token, _ in map(_token_and_name, arguments.device + arguments.gateway):
        device = emulator.device(token)
        print(f"  {'gateway' if device.is_gateway else 'device'} {device.name!r}, access token {token!r}")
    if arguments.any_token:
        print("  a device for every other access token")
    for profile in arguments.provision:
        print(f"  devices that register themselves with the provision key {profile.partition(':')[0]!r}")
    limits = emulator.limits
    assert limits is not None
    counted = "announced only" if arguments.announce_only else "enforced"
    for title, entity in (("devices and gateways", limits.rate_limits), ("devices behind a gateway", limits.gateway_rate_limits)):
        for kind, windows in entity.reply().items():
            if windows:
                print(f"  limit of {title}: {kind} {windows}, {counted}")
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
        # int() would take "1_000" and " 5 ".
        number = int(text) if text.isascii() and text.isdecimal() else None
        if number is None or number < low or (high is not None and number > high):
            limits = f"from {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {limits}")
        return number

    return convert


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tb_mqtt_client.emulator",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=_whole(0, 65535), default=1883, help="port to listen on; 0 takes a free one (default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="do not print what arrives")
    parser.add_argument(
        "--server-version", choices=VERSIONS, default=NEWEST, help="version of the platform to act as (default: %(default)s)"
    )
    who = parser.add_argument_group("who may connect")
    who.add_argument("--device", action="append", default=[], metavar="TOKEN[=NAME]", help="a device; may be given again")
    who.add_argument("--gateway", action="append", default=[], metavar="TOKEN[=NAME]", help="a gateway; may be given again")
    who.add_argument("--any-token", action="store_true", help="make a device for every unknown access token")
    who.add_argument(
        "--provision",
        action="append",
        default=[],
        type=_provision_profile,
        metavar="KEY:SECRET[:STRATEGY]",
        help=f"let devices register themselves; strategies: {', '.join(STRATEGIES)} (default: the first)",
    )
    limits = parser.add_argument_group("limits")
    for scope, whose in (("", "of a device, and a gateway's own"), ("gateway-", "of all devices behind one gateway")):
        for kind in ("messages", "telemetry-messages", "telemetry-datapoints"):
            limits.add_argument(f"--{scope}{kind}", metavar="N:S,...", help=f"{kind.replace('-', ' ')} {whose}")
    limits.add_argument("--announce-only", action="store_true", help="announce the limits to clients, and do not enforce them")
    limits.add_argument(
        "--max-payload-size",
        type=_whole(1),
        default=65536,
        metavar="BYTES",
        help="remaining length of a packet (default: %(default)s)",
    )
    limits.add_argument("--max-devices", type=_whole(0), metavar="N", help="devices that there may be (default: any number)")
    limits.add_argument(
        "--history", type=_whole(0), default=1000, metavar="N", help="telemetry records kept a device (default: %(default)s)"
    )
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--tls-certificate", metavar="FILE", help="serve TLS with this certificate (PEM)")
    tls.add_argument("--tls-key", metavar="FILE", help="its private key, if it is not in the same file")
    tls.add_argument(
        "--tls-client-ca", metavar="FILE", help="ask clients for certificates of this authority; one of another ends the handshake"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
