"""What a person or a program sees. Results go to stdout, everything else to stderr, where secrets are blotted out."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from tb_mqtt_client.cli.outcomes import CommandError, ExitCode

SHORTEST_SECRET = 4
"""What is shorter is in every other word, and no secret."""
LOG_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class Redactor:
    """Knows the secrets of this run and takes them out of texts."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def add(self, secret: object) -> None:
        """Remember a secret; ``None`` is none."""
        if secret is not None and len(str(secret)) >= SHORTEST_SECRET:
            self._secrets.add(str(secret))

    def clean(self, text: str) -> str:
        """The text with each secret replaced."""
        # The longest first: one secret may be part of another.
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


class _LogHandler(logging.Handler):
    """Log lines on a console, which keeps them apart from a progress bar."""

    def __init__(self, console: Console, redactor: Redactor) -> None:
        super().__init__()
        self._console = console
        self._redactor = redactor
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(self._redactor.clean(self.format(record)), markup=False, soft_wrap=True)


def counted(number: int, what: str) -> str:
    """``1 record``, ``1,200 records``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


class Terminal:
    """Two consoles: colour, symbols and progress only where somebody looks, plain lines elsewhere. NO_COLOR is respected."""

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
        """One line of the result, for people."""
        with _written():
            self.out.print(text, markup=False, soft_wrap=True)

    def document(self, value: Any) -> None:
        """One JSON value on one line of stdout, for programs. It is there when this returns."""
        text = json.dumps(value, ensure_ascii=False)
        try:
            text.encode(self.out.encoding)
        except UnicodeEncodeError:
            # Not every encoding has every character, and none has half of a surrogate pair: JSON has another way to write them.
            text = json.dumps(value)
        with _written():
            print(text, flush=True)

    def value(self, value: Any) -> None:
        """One JSON value of the result: on one line for programs, laid out for people."""
        if self.as_json or not self.out.is_terminal:
            self.document(value)
        else:
            with _written():
                self.out.print_json(data=value, ensure_ascii=False)

    def note(self, text: str, symbol: str = "") -> None:
        """A line for whoever looks, not part of the result."""
        if not self.quiet:
            self.err.print(self.marked(self.err, symbol, self.redactor.clean(text)), markup=False, soft_wrap=True)

    def failure(self, text: str, advice: str = "") -> None:
        """Why it ends, and what to try next."""
        self.err.print(self.marked(self.err, "bad", self.redactor.clean(text)), markup=False, soft_wrap=True)
        if advice:
            self.err.print(self.marked(self.err, "next", self.redactor.clean(advice)), markup=False, soft_wrap=True)

    def marked(self, console: Console, symbol: str, text: str) -> Text:
        """A text behind the symbol that says how it is meant: good, bad, warning, next, or none."""
        if not symbol:
            return Text(text)
        fancy, plain, style = _SYMBOLS[symbol]
        # Not every terminal can write the fancy ones.
        mark = fancy if (console.encoding or "").lower().replace("-", "").startswith("utf") else plain
        return Text.assemble((mark, style), " ", text)

    @contextmanager
    def progress(self, description: str, total: int | None, *columns: ProgressColumn) -> Iterator[Bar]:
        """A bar on stderr while the block runs, when somebody looks at it."""
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
    """A result that cannot be written ends the command; a reader that has left (``| head``) is another matter."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"The result cannot be written: {error.strerror}", ExitCode.REFUSED) from error


class Bar:
    """One bar."""

    def __init__(self, progress: Progress, description: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total)

    def reached(self, completed: int, total: int | None = None) -> None:
        """So much is done."""
        self._progress.update(self._task, completed=completed, total=total)


_SYMBOLS = {
    "good": ("✓", "+", "bold green"),
    "bad": ("✗", "x", "bold red"),
    "warning": ("!", "!", "bold yellow"),
    "skipped": ("·", "-", "dim"),
    "next": ("→", ">", "cyan"),
}
