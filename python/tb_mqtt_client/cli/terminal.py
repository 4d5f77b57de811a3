"""Output for people and for programs. Results go to stdout, everything else to stderr, where secrets are redacted.

Characters that act on a terminal are escaped in all of it (``visible.py``).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from tb_mqtt_client.cli.outcomes import CommandError, ExitCode
from tb_mqtt_client.cli.visible import visible, visible_json

SHORTEST_SECRET = 4
"""Shorter values are not redacted: they would be found in ordinary words."""
LOG_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class Redactor:
    """Knows the secrets of this run and takes them out of texts."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def add(self, secret: object) -> None:
        """Remember a secret, unless it is ``None``."""
        if secret is not None and len(str(secret)) >= SHORTEST_SECRET:
            self._secrets.add(str(secret))

    def clean(self, text: str) -> str:
        """Return a text with each secret replaced."""
        # The longest first: one secret may be part of another.
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


class _VisibleFormatter(logging.Formatter):
    """Keeps a message on one line, and escapes active characters in it and in a traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return visible(super().formatException(ei), keep="\n")


class _LogHandler(logging.Handler):
    """Prints log lines on a console, which keeps them apart from a progress bar."""

    def __init__(self, console: Console, redactor: Redactor) -> None:
        super().__init__()
        self._console = console
        self._redactor = redactor
        self.setFormatter(_VisibleFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(self._redactor.clean(self.format(record)), markup=False, soft_wrap=True)


def counted(number: int, what: str) -> str:
    """Return a number with its noun: ``1 record``, ``1,200 records``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


class Terminal:
    """Two consoles: colour, symbols and progress on a terminal, plain lines elsewhere. NO_COLOR is respected."""

    def __init__(self, redactor: Redactor, *, as_json: bool = False, quiet: bool = False, verbosity: int = 0) -> None:
        self.redactor = redactor
        self.as_json = as_json
        self.quiet = quiet
        self.out = Console(highlight=False)
        self.err = Console(stderr=True, highlight=False)
        self._show_log(verbosity)

    def _show_log(self, verbosity: int) -> None:
        logger = logging.getLogger("tb_mqtt_client")
        logger.handlers[:] = [_LogHandler(self.err, self.redactor)]
        logger.propagate = False
        logger.setLevel(logging.ERROR if self.quiet else LOG_LEVELS[min(verbosity, len(LOG_LEVELS) - 1)])

    def line(self, text: str | Text = "") -> None:
        """Print one line of the result, for people."""
        with _written():
            self.out.print(visible(text) if isinstance(text, str) else text, markup=False, soft_wrap=True)

    def document(self, value: Any) -> None:
        """Print one JSON value on one line of stdout, for programs, and flush it."""
        text = visible_json(value)
        try:
            text.encode(self.out.encoding)
        except UnicodeEncodeError:
            # Not every encoding has every character: JSON has another way to write them.
            text = json.dumps(value)
        with _written():
            print(text, flush=True)

    def value(self, value: Any) -> None:
        """Print one JSON value of the result: on one line for programs, indented for people."""
        if self.as_json or not self.out.is_terminal:
            self.document(value)
        else:
            with _written():
                self.out.print(JSONHighlighter()(Text(visible_json(value, indent=2))), soft_wrap=True)

    def note(self, text: str, symbol: str = "") -> None:
        """Print a line that is not part of the result, unless ``--quiet``."""
        if not self.quiet:
            self.err.print(self.marked(self.err, symbol, self.redactor.clean(text)), markup=False, soft_wrap=True)

    def failure(self, text: str, advice: str = "") -> None:
        """Print why the command fails, and what to try next."""
        self.err.print(self.marked(self.err, "bad", self.redactor.clean(text)), markup=False, soft_wrap=True)
        if advice:
            self.err.print(self.marked(self.err, "next", self.redactor.clean(advice)), markup=False, soft_wrap=True)

    def marked(self, console: Console, symbol: str, text: str) -> Text:
        """Return a text behind the symbol of its kind: good, bad, warning, next, or none."""
        text = visible(text)
        if not symbol:
            return Text(text)
        fancy, plain, style = _SYMBOLS[symbol]
        # Not every terminal can show the symbols.
        mark = fancy if (console.encoding or "").lower().replace("-", "").startswith("utf") else plain
        return Text.assemble((mark, style), " ", text)

    @contextmanager
    def progress(self, description: str, total: int | None, *columns: ProgressColumn) -> Iterator[Bar]:
        """Show a bar on stderr while the block runs, if stderr is a terminal."""
        shown = self.err.is_terminal and not self.quiet and not self.err.is_dumb_terminal
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            *columns,
            TimeElapsedColumn(),
            console=self.err,
            transient=True,
            disable=not shown,
        )
        with bar:
            yield Bar(bar, description, total)


@contextmanager
def _written() -> Iterator[None]:
    """Turn a failure to write the result into a ``CommandError``, but not that of a reader that has left (``| head``)."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"The result cannot be written: {error.strerror}", ExitCode.REFUSED) from error


class Bar:
    """One progress bar."""

    def __init__(self, progress: Progress, description: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total)

    def reached(self, completed: int, total: int | None = None) -> None:
        """Set how much is done, and of how much."""
        self._progress.update(self._task, completed=completed, total=total)


_SYMBOLS = {
    "good": ("✓", "+", "bold green"),
    "bad": ("✗", "x", "bold red"),
    "warning": ("!", "!", "bold yellow"),
    "skipped": ("·", "-", "dim"),
    "next": ("→", ">", "cyan"),
}
