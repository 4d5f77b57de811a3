"""Importing the package only defines names: it sets no policy or logger class, and opens no socket, thread or process."""

import subprocess
import sys

# Runs in a new interpreter, in which no other module has imported the package.
PROGRAM = """
import asyncio, importlib, logging, pkgutil, signal, sys, threading, warnings

events = []
WATCHED = ("socket.", "subprocess.", "os.system", "os.fork", "os.posix_spawn", "_thread.start_new_thread", "urllib.")
sys.addaudithook(lambda event, args: events.append(event) if event.startswith(WATCHED) else None)

def state():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the policy is deprecated since Python 3.14
        policy = type(asyncio.get_event_loop_policy())
    root = logging.getLogger()
    return {
        "event-loop policy": policy,
        "logger class": logging.getLoggerClass(),
        "root logger": (root.level, list(root.handlers), list(root.filters)),
        "levels of the package's loggers": {
            name: logger.level
            for name, logger in logging.root.manager.loggerDict.items()
            if name.startswith("tb_mqtt_client") and isinstance(logger, logging.Logger) and logger.level
        },
        "exception hook": sys.excepthook,
        "signal handlers": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "threads": threading.active_count(),
        "warning filters": list(warnings.filters),
    }

before = state()
import tb_mqtt_client

names = [] if sys.argv[1] == "package" else [
    module.name
    for module in pkgutil.walk_packages(tb_mqtt_client.__path__, "tb_mqtt_client.")
    if not module.name.endswith("__main__")  # programs
]
for name in names:
    importlib.import_module(name)

after = state()
changed = [what for what in before if before[what] != after[what]]
if changed or events:
    sys.exit(f"changed: {changed}; did: {sorted(set(events))}")
print(len(names))
"""


def run(what: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, what], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_only_defines_names():
    run("package")


def test_defect_16_importing_every_module_only_defines_names():
    assert int(run("every module")) > 10
