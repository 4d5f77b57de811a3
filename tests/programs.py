"""Run programs of the documentation and the examples as a user does: each in its own process."""

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
TIMEOUT = 60
"""Seconds for a whole program, so that a defect cannot block the tests."""


class Program:
    """A running Python program, in which warnings are errors."""

    def __init__(self, process, errors):
        self._process = process
        self._errors = errors
        self._lines = []

    @property
    def output(self):
        """Return the output that was read."""
        return "".join(self._lines)

    @property
    def errors(self):
        """Return the text that it wrote to stderr: its log, and the traceback if it failed."""
        self._errors.seek(0)
        return self._errors.read().decode()

    @property
    def running(self):
        """Return True until the end of the program was noticed."""
        return self._process.returncode is None

    async def printed(self, text):
        """Wait for a line that contains ``text``, and return it."""
        async with asyncio.timeout(TIMEOUT):
            while line := (await self._process.stdout.readline()).decode():
                self._lines.append(line)
                if text in line:
                    return line
        raise AssertionError(f"ended without printing {text!r}:\n{self.output}{self.errors}")

    async def end(self):
        """Wait until it ends with exit code 0, and return its output."""
        assert await self._end() == 0, self.output + self.errors
        return self.output

    async def fail(self):
        """Wait until it ends with exit code 1, and return its stderr."""
        assert await self._end() == 1, self.output
        return self.errors

    async def _end(self):
        async with asyncio.timeout(TIMEOUT):
            self._lines.append((await self._process.stdout.read()).decode())
            return await self._process.wait()

    def signal(self, number):
        """Send a signal to the program."""
        # Popen.send_signal polls the process, and could take its exit code before asyncio reads it.
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    async def ended(self):
        """Wait until it ends, and return its exit code: negative for the signal that killed it."""
        return await self._end()

    async def interrupt(self):
        """Send SIGINT, as Ctrl-C does, and wait until it ends with exit code 0. Return its output."""
        self.signal(signal.SIGINT)
        return await self.end()


@asynccontextmanager
async def running(*arguments, folder=None, **environment):
    """Run Python with ``arguments`` in ``folder``, with no ``TB_`` variables other than those of ``environment``."""
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
