"""``python -m tb_mqtt_client``, and the script ``tb-mqtt``: says what is missing before anything is imported that needs it."""

import sys
from importlib.util import find_spec


def main() -> int:
    if any(find_spec(name) is None for name in ("click", "rich", "cryptography")):
        print("The command line needs more than the library does: pip install 'tb-mqtt-client[cli]'", file=sys.stderr)
        return 2
    # Only now: these modules import what may be missing.
    from tb_mqtt_client.cli.program import main as program  # noqa: PLC0415

    return program()


if __name__ == "__main__":
    sys.exit(main())
