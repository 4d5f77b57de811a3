"""The examples that run until Ctrl-C also end cleanly on SIGTERM, which systemd and Docker send."""

import asyncio
import signal

import pytest

from programs import EXAMPLES

ENDLESS = sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.glob("*/*.py") if "until Ctrl-C" in path.read_text())


def test_endless_examples_are_found():
    assert len(ENDLESS) >= 6


@pytest.mark.parametrize("name", ENDLESS)
async def test_example_ends_cleanly_on_sigterm(emulator, example, name):
    connecting = asyncio.Event()
    emulator.on_connect = lambda _: connecting.set()
    async with example(name) as program, asyncio.timeout(60):
        await connecting.wait()
        program.signal(signal.SIGTERM)
        await program.end()
