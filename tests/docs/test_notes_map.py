"""docs/notes_map.md leads to code that exists: each file, and each name in a file of its row."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from documents import ROOT

PACKAGE = ROOT / "python" / "tb_mqtt_client"
ROWS = re.findall(r"^\| (.+?) \| (.+?) \| (.*?) ?\|$", (ROOT / "docs" / "notes_map.md").read_text(), re.MULTILINE)
PLACES = [
    (statement, file, name)
    for statement, where, _ in ROWS
    for part in re.split(r"; |, (?=`\w+/)", where)
    if (file := next(iter(re.findall(r"`([\w/]+\.py)`", part)), None))
    for name in re.findall(r"`(\w+(?:\.\w+)?)`", part) or [None]
]


@cache
def names_in(path: Path) -> set[str]:
    """Return the classes and functions of a module, and `Class.name` of what a class has, its bases in the module included."""
    tree = ast.parse(path.read_text())
    members: dict[str, set[str]] = {}
    functions = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.add(node.name)
        elif isinstance(node, ast.ClassDef):
            bases = [base.id if isinstance(base, ast.Name) else ast.unparse(base).split("[")[0] for base in node.bases]
            inherited = set().union(*(members.get(base, set()) for base in bases))
            members[node.name] = inherited | set(own_names(node))
    return functions | members.keys() | {f"{name}.{one}" for name, found in members.items() for one in found}


def own_names(node: ast.ClassDef) -> list[str]:
    found = []
    for one in node.body:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(one.name)
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            found.append(one.target.id)
    return found


def missing(file: str, name: str | None) -> str | None:
    path = PACKAGE / file
    if not path.exists():
        return f"there is no {file}"
    if name is not None and name not in names_in(path):
        return f"{file} has no {name}"
    return None


def test_the_page_is_read() -> None:
    assert len(ROWS) > 70
    assert len({file for _, file, _ in PLACES}) > 15
    assert {"PatchUtils._retry_loop", "MessageService._dispatch_initial_queue_loop"} <= {name for _, _, name in PLACES}


def test_every_row_names_a_place() -> None:
    named = {statement for statement, _, _ in PLACES}
    assert {row[0] for row in ROWS} - named <= {"the notes", "area", "---"}


def test_every_place_exists() -> None:
    problems = [f"{statement}: {problem}" for statement, file, name in PLACES if (problem := missing(file, name))]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("common/no_such_file.py", None),
        ("common/async_utils.py", "FutureMap.no_such_method"),
        ("common/async_utils.py", "NoSuchClass"),
        # It is in another file.
        ("common/queue.py", "FutureMap.register"),
    ],
)
def test_a_wrong_place_is_found(file: str, name: str | None) -> None:
    assert missing(file, name)
    assert missing("common/async_utils.py", "FutureMap.register") is None
