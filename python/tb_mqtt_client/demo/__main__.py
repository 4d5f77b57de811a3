"""Run ``python -m tb_mqtt_client.demo``, after a check that the packages of the extra are installed."""

import sys
from importlib.util import find_spec


def main() -> int:
    """Run the demo and return its exit code, or 2 if a package of the extra ``demo`` is missing."""
    missing = [name for name in ("psutil", "rich") if find_spec(name) is None]
    if missing:
        print(f"The demo needs {' and '.join(missing)}: pip install {' '.join(missing)}", file=sys.stderr)
        return 2
    # Imported after the check because these modules import the packages that may be missing.
    from tb_mqtt_client.demo.program import main as program  # noqa: PLC0415

    return program()


if __name__ == "__main__":
    sys.exit(main())
