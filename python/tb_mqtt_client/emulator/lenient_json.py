"""A JSON parser as lenient as the platform's (docs/platform_contract.md, section 3), which keeps the text of numbers.

It accepts names without quotes, single quotes, comments, NaN and Infinity, and refuses trailing characters. The platform also
accepts strings without quotes, `;` and `=` as separators, and numbers with leading zeros; this parser does not.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

_TOKEN: Final = re.compile(
    r"""(?P<kept>"(?:[^"\\]|\\.)*")"""
    r"""|'(?P<single>(?:[^'\\]|\\.)*)'"""
    r"""|(?P<comment>/\*.*?\*/|//[^\r\n]*|\#[^\r\n]*)"""
    r"""|(?P<name>[^\W\d][\w$-]*)(?=\s*:)""",
    re.DOTALL,
)
_ESCAPED_OR_QUOTE: Final = re.compile(r"""\\.|\"""", re.DOTALL)


class Number(float):
    """A number with a fraction or an exponent. Its `text` decides how it is stored."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Number:
        number = super().__new__(cls, text)
        number.text = text
        return number


def loads(text: str) -> Any:
    """Parse a text. Raise `ValueError` if it is not valid, `RecursionError` if it is nested too deeply."""
    try:
        return _strict(text)
    except ValueError:
        return _strict(_TOKEN.sub(_as_json, text))


def _strict(text: str) -> Any:
    # With strict=False strings may contain control characters.
    return json.loads(text, parse_float=Number, parse_constant=Number, strict=False)


def _as_json(token: re.Match[str]) -> str:
    if token["kept"] is not None:
        return token["kept"]
    if token["comment"] is not None:
        return " "
    if token["name"] is not None:
        return f'"{token["name"]}"'
    return f'"{_ESCAPED_OR_QUOTE.sub(_in_double_quotes, token["single"])}"'


def _in_double_quotes(found: re.Match[str]) -> str:
    return {"\\'": "'", '"': '\\"'}.get(found[0], found[0])
