"""Run the command line as users do: in its own process, connected to the emulator through real sockets."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass

TIMEOUT = 60


@dataclass(frozen=True)
class Run:
    """The exit code and the output of a command."""

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
    """Runs ``tb-mqtt`` in an environment that contains no settings except those of the test."""

    def __init__(self):
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("TB_", "PYTEST"))}
        # A fixed width, so that no output depends on the terminal in which the tests run.
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
    """Wait until a process that was started has ended, and return its ``Run``."""
    try:
        async with asyncio.timeout(TIMEOUT):
            out, err = await process.communicate(data)
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    return Run(process.returncode, (out or b"").decode(), err.decode())
