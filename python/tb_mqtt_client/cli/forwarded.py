"""Commands of ``tb-mqtt`` that are programs with argparse: they print their own help, and shells complete their options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem


class Forwarded(click.Command):
    """Passes all arguments to a program."""

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[str]], int],
        parser: Callable[[], argparse.ArgumentParser | None],
        **attributes: Any,
    ) -> None:
        """Create a command.

        Args:
            name: The name of the command.
            run: Runs the program with its arguments, and returns the exit code.
            parser: Returns the parser of the program; ``None`` if the program cannot be imported.
            attributes: Further attributes of ``click.Command``.
        """
        arguments = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED, shell_complete=self._values)
        super().__init__(
            name,
            context_settings={"ignore_unknown_options": True, "help_option_names": []},
            add_help_option=False,
            callback=run,
            params=[arguments],
            **attributes,
        )
        self._parser = parser

    def _actions(self) -> list[argparse.Action]:
        parser = self._parser()
        # argparse has no public list of a parser's options.
        return [] if parser is None else parser._actions

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the options that begin with ``incomplete``."""
        return [
            CompletionItem(option, help=action.help)
            for action in self._actions()
            for option in action.option_strings
            if option.startswith(incomplete)
        ]

    def _values(self, ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the values of the option before ``incomplete``."""
        before = ctx.params.get("arguments") or ("",)
        for action in self._actions():
            if before[-1] in action.option_strings:
                if action.metavar == "FILE":
                    return [CompletionItem(incomplete, type="file")]
                return [CompletionItem(value) for value in action.choices or () if value.startswith(incomplete)]
        return []
