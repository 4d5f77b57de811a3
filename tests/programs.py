"""Programs of the documentation and the examples, run as their readers run them: each in a process of its own."""

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
TIMEOUT = 60
"""Seconds for a whole program: a defect must not hang the tests."""


class Program:
    """A running Python program; warnings are errors in it."""

    def __init__(self, process, errors):
        self._process = process
        self._errors = errors
        self._lines = []

    @property
    def output(self):
        """What it has printed so far, as far as it was read."""
        return "".join(self._lines)

    @property
    def errors(self):
        """What it has written to stderr: its log, and how it failed."""
        self._errors.seek(0)
        return self._errors.read().decode()

    @property
    def running(self):
        """Whether it has not ended."""
        return self._process.returncode is None

    async def printed(self, text):
        """Wait for a line with ``text``, and give it."""
        async with asyncio.timeout(TIMEOUT):
            while line := (await self._process.stdout.readline()).decode():
                self._lines.append(line)
                if text in line:
                    return line
        raise AssertionError(f"ended without printing {text!r}:\n{self.output}{self.errors}")

    async def end(self):
        """Wait for its end, which must be a good one; everything that it printed."""
        assert await self._end() == 0, self.output + self.errors
        return self.output

    async def fail(self):
        """Wait for its end, which must be a bad one; what it says about it."""
        assert await self._end() == 1, self.output
        return self.errors

    async def _end(self):
        async with asyncio.timeout(TIMEOUT):
            self._lines.append((await self._process.stdout.read()).decode())
            return await self._process.wait()

    def signal(self, number):
        """Send a signal."""
        self._process.send_signal(number)

    async def ended(self):
        """Wait for its end, however it was; its exit code, negative for the signal that killed it."""
        return await self._end()

    async def interrupt(self):
        """Press Ctrl-C and wait for its end."""
        self._process.send_signal(signal.SIGINT)
        return await self.end()


@asynccontextmanager
async def running(*arguments, folder=None, **environment):
    """Run Python with these arguments, in ``folder``, and no other ``TB_`` variables than these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TB_")}
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-W", "error"),
            *(str(argument) for argument in arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env={**inherited, "PYTHONUNBUFFERED": "1", **{name: str(value) for name, value in environment.items()}},
        )
        try:
            yield Program(process, errors)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()
