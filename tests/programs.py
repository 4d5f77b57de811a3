"""Finds and runs the programs that the documentation shows."""

import asyncio
import re
import sys

TIMEOUT = 60


def shown(document: str) -> list[tuple[str, str]]:
    """The Python programs of a Markdown text, each with the output that stands right below it, or an empty one."""
    return re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", document, re.MULTILINE | re.DOTALL)


async def run(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run Python with warnings as errors, in this environment unless another is given; give what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()
