"""The prose of a file: what people read in it, on the lines where it is, with everything else hidden."""

import io
import re
import tokenize
from pathlib import Path

HIDDEN = "\x00"
"""Stands for a character of code. No phrase contains it, so none is found across code."""
PROSE_TOKENS = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def prose_of(path: Path) -> str:
    """Return the prose of a Markdown or Python file, with the lines of the file."""
    text = path.read_text()
    return of_python(text) if path.suffix in {".py", ".pyi"} else of_markdown(text)


def of_markdown(text: str) -> str:
    """Hide fenced blocks, code spans, and where links lead."""
    lines, fence = [], None
    for line in text.splitlines(keepends=True):
        marks = re.match(r"\s*(`{3,})", line)
        ends = fence is not None and line.strip() == fence
        if fence is None and marks:
            fence = marks[1]
        lines.append(line if fence is None else _hidden(line))
        if ends:
            fence = None
    return _without_code_spans(re.sub(r"\]\([^)\n]*\)", lambda link: _hidden(link[0]), "".join(lines)))


def of_python(text: str) -> str:
    """Hide all but comments and strings, and code spans in them. Lines of a comment or of a string continue each other."""
    source = text.splitlines(keepends=True)
    lines = [_hidden(line) for line in source]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in PROSE_TOKENS:
            (first, begin), (last, end) = token.start, token.end
            for row in range(first, last + 1):
                until = end if row == last else len(source[row - 1])
                begin = begin if row == first else 0
                lines[row - 1] = lines[row - 1][:begin] + source[row - 1][begin:until] + lines[row - 1][until:]
    return re.sub(r"[#\"']", " ", _without_code_spans("".join(lines)))


def _hidden(text: str) -> str:
    return re.sub(r"\S", HIDDEN, text)


def _without_code_spans(text: str) -> str:
    return re.sub(r"(?<!`)(`{1,2})(?!`)[^`]+(?<!`)\1(?!`)", lambda span: _hidden(span[0]), text)
