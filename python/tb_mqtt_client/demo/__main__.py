"""The program's door: says what is missing before anything is imported that needs it."""

import sys
from importlib.util import find_spec


def main() -> int:
    missing = [name for name in ("psutil", "rich") if find_spec(name) is None]
    if missing:
        print(f"The demo needs {' and '.join(missing)}: pip install 'tb-mqtt-client[demo]'", file=sys.stderr)
        return 2
    # Only now: these modules import what may be missing.
    from tb_mqtt_client.demo.program import main as program  # noqa: PLC0415

    return program()


if __name__ == "__main__":
    sys.exit(main())
