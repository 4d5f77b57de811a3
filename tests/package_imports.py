"""Imports of each module of the package, read from the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "tb_mqtt_client"
ROOT = Path(__file__).parents[1] / "python" / PACKAGE

# From the top down: a layer imports itself and the layers after it.
LAYERS = ("one_x", "sync", "service", "common", "entities", "constants")


def modules() -> dict[str, Path]:
    """Return the path of every module by its name below the package; `""` is the `__init__` of the package itself."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str, path: Path) -> Iterator[str]:
    """Yield the full names that a module imports, also in functions, under TYPE_CHECKING and by `import_module("name")`."""
    package = [PACKAGE, *name.split(".")] if name else [PACKAGE]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *(node.module.split(".") if node.module else [])])
            # `from package import x`: x may be a module.
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and re.fullmatch(r"(importlib\.)?import_module", ast.unparse(node.func)):
            yield from (name.value for name in node.args[:1] if isinstance(name, ast.Constant))


def own_imports(name: str, path: Path) -> Iterator[str]:
    """Yield the imports from this package, by their names below it."""
    for imported in imports(name, path):
        if imported == PACKAGE:
            yield ""
        elif imported.startswith(f"{PACKAGE}."):
            yield imported.removeprefix(f"{PACKAGE}.")


def module_of(imported: str) -> str:
    """Return the module of an import: `from a.b import c` may name a module or a name in one."""
    name = imported
    while name not in MODULES and "." in name:
        name = name.rpartition(".")[0]
    return name


def part(name: str) -> str:
    """Return the folder (or the top-level module) of a module."""
    return name.partition(".")[0]


def in_module(imported: str, module: str) -> bool:
    """Return True if an import is of the module or of something in it."""
    return imported == module or imported.startswith(f"{module}.")
