"""The command line as people run it: a process of its own, against the emulator on real sockets."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass

TIMEOUT = 60


@dataclass(frozen=True)
class Run:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


class CommandLine:
    """Runs ``tb-mqtt`` with nothing of the surroundings but what a test gives."""

    def __init__(self):
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("TB_", "PYTEST"))}
        # No test waits for a server that tells no limits, and none depends on the width of a terminal.
        self.environment |= {"COLUMNS": "100", "PYTHONWARNINGS": "error"}

    async def start(self, *arguments, env=None, **pipes):
        pipes = {"stdin": asyncio.subprocess.DEVNULL, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE} | pipes
        command = [sys.executable, "-m", "tb_mqtt_client", *arguments]
        return await asyncio.create_subprocess_exec(*command, env=self.environment | (env or {}), **pipes)

    async def __call__(self, *arguments, env=None, input=None, cwd=None):
        pipes = {"cwd": cwd} if input is None else {"cwd": cwd, "stdin": asyncio.subprocess.PIPE}
        process = await self.start(*arguments, env=env, **pipes)
        data = input.encode() if isinstance(input, str) else input
        return await finished(process, data)


async def finished(process, data=None):
    """Wait for a process that was started."""
    try:
        async with asyncio.timeout(TIMEOUT):
            out, err = await process.communicate(data)
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    return Run(process.returncode, (out or b"").decode(), err.decode())
