"""Interactive shells complete ``tb-mqtt`` after the line that docs/cli.md names.

zsh and fish are optional programs (Debian's packages zsh and fish).
"""

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "--no-rcs", "--interactive"],
    "fish": ["fish", "--no-config", "--interactive"],
}
PREPARATION = {"bash": "", "zsh": "autoload -Uz compinit && compinit -u -d zcompdump\n", "fish": ""}
"""What the configuration of the shell does before the documented line."""
TIMEOUT = 60


class Terminal:
    """A shell on a pseudo-terminal."""

    def __init__(self, shell, folder):
        self._screen, slave = pty.openpty()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("TB_", "_TB_"))}
        environment |= {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TERM": "xterm",
            "PS1": "$ ",
            "LC_ALL": "C.UTF-8",
        }
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
        self._process = subprocess.Popen(
            SHELLS[shell],
            cwd=folder,
            env=environment,
            start_new_session=True,
            # fish needs it as its controlling terminal.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
            **streams,
        )
        os.close(slave)
        self._shown = ""

    def type(self, text):
        os.write(self._screen, text.encode())

    def wait_for(self, text):
        """Wait until a text is shown, after the one of the last call."""
        end = time.monotonic() + TIMEOUT
        while text not in self._shown:
            ready, _, _ = select.select([self._screen], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} was not shown: {self._shown!r}"
            shown = os.read(self._screen, 65536).decode(errors="replace")
            if "\x1b[c" in shown:
                # The shell asks which kind of terminal this is, and waits for the answer.
                os.write(self._screen, b"\x1b[?1;2c")
            # Colours and movements of the cursor.
            self._shown += re.sub(r"\x1b(?:\[[0-9;?>]*[A-Za-z]|[=>]|\][^\x07]*\x07|\(B)", "", shown)
        self._shown = self._shown.partition(text)[2]

    def close(self):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._screen)


@pytest.fixture
def terminal(request, tmp_path):
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: apt-get install {shell}")
    program = tmp_path / "tb-mqtt"
    # Commands are completed by the program, and only shown when they are run.
    program.write_text(
        f'#!/bin/sh\nif [ -n "$_TB_MQTT_COMPLETE" ]; then exec {sys.executable} -m tb_mqtt_client "$@"; fi\necho "arguments: $*"\n'
    )
    program.chmod(0o755)
    (tmp_path / "certificate.pem").touch()
    # Backslashes protect the bars in the cells of a table.
    [line] = re.findall(rf"^\| {shell}\b[^|]*\| `(.+?)` \| `~", DOCUMENT, re.MULTILINE)
    preparation = PREPARATION[shell] + line.replace("\\|", "|")
    terminal = Terminal(shell, tmp_path)
    try:
        # The output of echo differs from the line that is typed.
        terminal.type(f'{preparation}\necho "rea""dy"\n')
        terminal.wait_for("ready")
        yield terminal
    finally:
        terminal.close()


@pytest.mark.parametrize("terminal", SHELLS, indirect=True)
def test_commands_options_and_values_are_completed(terminal):
    for typed, completed in (
        ("dem", "demo"),
        ("store ins", "store inspect"),
        ("doctor --mqtt-v", "doctor --mqtt-version"),
        ("doctor --mqtt-version 3", "doctor --mqtt-version 3.1.1"),
        ("emulator --any", "emulator --any-token"),
        ("emulator --server-version 4.2.", "emulator --server-version 4.2.1"),
        ("emulator --tls-certificate cert", "emulator --tls-certificate certificate.pem"),
        ("demo --dur", "demo --duration"),
    ):
        terminal.type(f"tb-mqtt {typed}\t\n")
        terminal.wait_for(f"arguments: {completed}\r\n")
