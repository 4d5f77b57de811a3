"""What the tests read in the project's Markdown: its fenced blocks, its links and the anchors of its headings."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

PART = "part"
"""Mark of a Python block that is the beginning of the next one: ```` ```python part ````"""
SHAPE = "shape"
"""Mark of a Python block that shows a form and is not a program; it is only parsed."""
OUTPUT = "text"
"""Language of what a program prints, which stands straight behind it; ``...`` stands for anything."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    document: Path
    line: int
    heading: str
    """The heading that it stands under."""
    language: str
    mark: str
    source: str
    follows: bool
    """Whether only an empty line is between it and the block before."""

    @property
    def name(self):
        return f"{self.document.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Document:
    path: Path
    blocks: list[Block]
    anchors: set[str]
    links: list[tuple[int, str]]
    """Line and target of every inline link and picture."""
    prose: str
    """Everything outside the blocks."""


def read(path):
    blocks, anchors, links, prose = [], {}, [], []
    heading, fence, between = "", None, ["the beginning"]
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if fence is not None:
            if line.strip() == fence[0]:
                _, start, language, mark, body = fence
                follows = not "".join(between).strip()
                blocks.append(Block(path, start, heading, language, mark, "".join(f"{one}\n" for one in body), follows))
                fence, between = None, []
            else:
                fence[4].append(line)
        elif opening := re.match(r"(`{3,})(\w*)\s*(.*)$", line):
            fence = (opening[1], number, opening[2], opening[3].strip(), [])
        else:
            if title := re.match(r"#+ (.+)$", line):
                heading = title[1]
                anchors[_anchor(heading, anchors)] = number
            anchors |= dict.fromkeys(re.findall(r'<a (?:id|name)="([^"]+)">', line), number)
            links += [(number, target) for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line))]
            links += [(number, target) for target in re.findall(r'(?:href|src|srcset)="([^"]+)"', line)]
            prose.append(line)
            between.append(line)
    assert fence is None, f"{path}: the block of line {fence[1]} does not end"
    return Document(path, blocks, set(anchors), links, "\n".join(prose))


def _anchor(heading, taken):
    """As GitHub makes it: lower case, letters, digits, hyphens and underscores; a number for one that is there already."""
    text = re.sub(r"[`*]|\]\([^)]*\)", "", heading).replace("[", "")
    slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
    numbers = range(len(taken) + 1)
    return next(one for one in (slug if number == 0 else f"{slug}-{number}" for number in numbers) if one not in taken)


@dataclass(frozen=True)
class Example:
    """A whole program, and what the document says that it prints (``None``: nothing is said)."""

    block: Block
    source: str
    output: str | None

    @property
    def is_a_test(self):
        """Return True if the block is a file for pytest."""
        return "def test_" in self.source


def programs(document):
    """The Python programs of a document, the parts joined to what they belong to."""
    found, parts = [], []
    for block in document.blocks:
        if block.language == "python" and block.mark == PART:
            parts.append(block.source)
        elif block.language == "python" and block.mark != SHAPE:
            found.append(Example(block, "\n".join([*parts, block.source]), None))
            parts = []
        elif block.language == OUTPUT and block.follows and found:
            found[-1] = Example(found[-1].block, found[-1].source, block.source)
    assert not parts, f"{document.path}: a part belongs to no program"
    return found
