"""Runs the programs that the documentation shows."""

import asyncio
import os
import re
import sys

TIMEOUT = 60


def shown(text: str, language: str) -> list[str]:
    """The blocks of one language in a Markdown text."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


async def run(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run Python with warnings as errors; give what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode == 0, output.decode()
    return output.decode()
