"""Escape characters that act on a terminal instead of being shown.

Texts of devices, servers and files reach the user's terminal: a device must not be able to clear it, retitle it, forge a line of
output, or reorder what is read.
"""

from __future__ import annotations

import json
import re
from typing import Any

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
        keep: Characters to leave as they are, such as ``"\n"`` for a text of several lines.
    """
    return _ACTIVE.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def visible_json(value: Any, indent: int | None = None) -> str:
    r"""Return a value as JSON, in which active characters are escaped as ``\u001b``: a parser reads the same value."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    # Outside of strings, JSON has no active characters but the newlines of the indentation.
    return _ACTIVE.sub(lambda found: "\n" if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)
