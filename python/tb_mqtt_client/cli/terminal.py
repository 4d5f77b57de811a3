"""Output for people and for programs: results go to stdout, everything else to stderr, where secrets are redacted.

Texts from devices, servers and files reach the user's terminal. Characters that act on a terminal are escaped in all
output, so that a device cannot clear the terminal, change its title, forge a line of output, or reorder text.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.secrets import Redactor

LOG_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
"""The log levels by the number of ``-v`` options."""

_ACTIVE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: escape sequences begin with one of them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks, embeddings, overrides and isolates of direction
    "\u2028\u2029"  # separators of lines and paragraphs
    "\ufeff"  # invisible
    "\ud800-\udfff"  # halves of a surrogate pair, which no encoding can write
    "]"
)


def visible(text: str, keep: str = "") -> str:
    r"""Return a text in which active characters are escaped as in Python, such as ``\x1b``, ``\n`` and ``\u202e``.

    Args:
        text: Any text.
        keep: Characters to leave unchanged, such as ``"\n"`` for a text of several lines.
    """
    return _ACTIVE.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def visible_json(value: Any, indent: int | None = None) -> str:
    r"""Return a value as JSON, in which active characters are escaped as ``\u001b``; a parser reads the same value.

    Args:
        value: Any JSON value.
        indent: Spaces per level of nesting. ``None``: one line.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    # The newlines of the indentation are the only active characters outside of strings.
    return _ACTIVE.sub(lambda found: "\n" if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


class _VisibleFormatter(logging.Formatter):
    """Escapes active characters in messages, which then fit on one line, and in tracebacks."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return visible(super().formatException(ei), keep="\n")


class _LogHandler(logging.Handler):
    """Prints log lines on a console, so that they do not overwrite a progress bar."""

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
    """Prints to stdout and stderr: colour, symbols and progress on a terminal, plain lines elsewhere.

    NO_COLOR is respected.
    """

    def __init__(self, redactor: Redactor, *, as_json: bool = False, quiet: bool = False, verbosity: int = 0) -> None:
        self.redactor = redactor
        self.as_json = as_json
        self.quiet = quiet
        self.out: Console = Console(highlight=False)
        self.err: Console = Console(stderr=True, highlight=False)
        self._show_log(verbosity)

    def _show_log(self, verbosity: int) -> None:
        logger = logging.getLogger("tb_mqtt_client")
        logger.handlers[:] = [_LogHandler(self.err, self.redactor)]
        logger.propagate = False
        logger.setLevel(logging.ERROR if self.quiet else LOG_LEVELS[min(verbosity, len(LOG_LEVELS) - 1)])

    def line(self, text: str | Text = "") -> None:
        """Print one line of the result for people."""
        with _written():
            self.out.print(visible(text) if isinstance(text, str) else text, markup=False, soft_wrap=True)

    def document(self, value: Any) -> None:
        """Print the result for programs: one JSON value on one line of stdout, which is flushed."""
        self.documents([value])

    def documents(self, values: Iterable[Any]) -> None:
        """Print JSON values, each on a line of stdout, which is flushed after the last one."""
        lines = []
        for value in values:
            text = visible_json(value)
            try:
                text.encode(self.out.encoding)
            except UnicodeEncodeError:
                # The encoding lacks some of the characters, so all of them are escaped as JSON allows.
                text = json.dumps(value)
            lines.append(f"{text}\n")
        with _written():
            print("".join(lines), end="", flush=True)

    def value(self, value: Any) -> None:
        """Print a result that is a JSON value: on one line for programs, indented for people."""
        if self.as_json or not self.out.is_terminal:
            self.document(value)
        else:
            with _written():
                self.out.print(JSONHighlighter()(Text(visible_json(value, indent=2))), soft_wrap=True)

    def note(self, text: str, symbol: str = "") -> None:
        """Print a remark on stderr, unless ``--quiet`` is set.

        Args:
            text: The remark.
            symbol: One of ``good``, ``bad``, ``warning``, ``skipped`` and ``next``, or empty for a line without a symbol.
        """
        if not self.quiet:
            self.err.print(self.marked(self.err, symbol, self.redactor.clean(text)), markup=False, soft_wrap=True)

    def failure(self, text: str, advice: str = "") -> None:
        """Print the reason of a failure on stderr and, if there is advice, what to try next."""
        self.err.print(self.marked(self.err, "bad", self.redactor.clean(text)), markup=False, soft_wrap=True)
        if advice:
            self.err.print(self.marked(self.err, "next", self.redactor.clean(advice)), markup=False, soft_wrap=True)

    def marked(self, console: Console, symbol: str, text: str) -> Text:
        """Return a text after the symbol of its kind (see ``note``), as the console can show it."""
        text = visible(text)
        if not symbol:
            return Text(text)
        fancy, plain, style = _SYMBOLS[symbol]
        # Symbols need a Unicode encoding; other terminals get plain characters.
        mark = fancy if (console.encoding or "").lower().replace("-", "").startswith("utf") else plain
        return Text.assemble((mark, style), " ", text)

    @contextmanager
    def progress(self, description: str, total: int | None, *columns: ProgressColumn) -> Iterator[Bar]:
        """Show a progress bar while the block runs, if stderr is a terminal and ``--quiet`` is not set.

        Args:
            description: The text before the bar.
            total: The amount of work; ``None`` if it is not known.
            *columns: What to show after the bar.
        """
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
    """Turn a failure to write the result into a ``CommandError``, except if the reader has exited (``| head``)."""
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
        """Draw how much of the total is completed."""
        self._progress.update(self._task, completed=completed, total=total)


_SYMBOLS = {
    "good": ("✓", "+", "bold green"),
    "bad": ("✗", "x", "bold red"),
    "warning": ("!", "!", "bold yellow"),
    "skipped": ("·", "-", "dim"),
    "next": ("→", ">", "cyan"),
}
