"""Sphinx configuration: the guides as they are, and an API reference from the docstrings. `make docs` builds them."""

import __future__

import pkgutil
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import tb_mqtt_client

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "tb_mqtt_client"

project = "tb_mqtt_client"
release = tb_mqtt_client.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# The source folder is the repository, so that links between the README and the guides work on GitHub and here.
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**"]
exclude_patterns = ["docs/_build"]
root_doc = "docs/index"
html_theme = "furo"
html_title = f"tb_mqtt_client {release}"
html_copy_source = False

myst_heading_anchors = 4
# GitHub renders diagrams; these pages show their source.
highlight_language = "none"
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True

# References to names of this package must resolve, unless they are private or type variables. Python's own documentation is not
# available offline.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!tb_mqtt_client\b).*"), ("py:.*", r".*\.(_\w+|\w*T|[A-Z])")]

NAMES = {name: f"{getattr(tb_mqtt_client, name).__module__}.{name}" for name in tb_mqtt_client.__all__ if name[0] != "_"}
SOURCE_LINKS = {
    "examples": "/docs/reference/examples.rst",
    "../examples/device": "/docs/reference/examples.rst",
    "../examples/gateway": "/docs/reference/examples.rst",
    "../python/tb_mqtt_client/emulator": "/docs/reference/emulator.rst",
}
"""Targets in the repository that the guides link to, and the pages that replace them."""


def use_the_stub() -> None:
    """Let autodoc find the docstrings of the native core, which are in its stub.

    All other modules are imported first, because the stub has no values.
    """
    for layer in ("constants", "entities", "common", "service", "sync"):
        for module in pkgutil.walk_packages([str(PACKAGE / layer)], f"tb_mqtt_client.{layer}."):
            import_module(module.name)
    stub = ModuleType("tb_mqtt_client._native")
    path = PACKAGE / "_native.pyi"
    # A stub names classes before it defines them.
    exec(compile(path.read_text(), path, "exec", __future__.annotations.compiler_flag), stub.__dict__)
    stub.__file__ = str(path)
    sys.modules[stub.__name__] = stub


def link_names(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Turn public names that a docstring mentions as ``Name`` into links."""
    known = "|".join(NAMES)
    for index, line in enumerate(lines):
        lines[index] = re.sub(rf"``({known})``", lambda found: f":py:class:`~{NAMES[found[1]]}`", line)


def adapt(_app: Any, document: str, source: list[str]) -> None:
    """Redirect links to files of the repository to their pages, and add content that only the site has."""
    for target, page in SOURCE_LINKS.items():
        source[0] = source[0].replace(f"]({target})", f"]({page})")
    if document == root_doc:
        source[0] += contents(source[0], "reference/index", "../CHANGELOG")
    elif document == "docs/decisions/index":
        source[0] += contents(source[0])
    elif document == "docs/reference/examples":
        source[0] += "\n".join(example(path) for path in sorted(ROOT.glob("examples/*/*.py")))
    elif document.startswith("docs/reference/"):
        source[0] = re.sub(r"^\.\. every-module:: (.+)$", lambda found: every_module(found[1]), source[0], flags=re.MULTILINE)


def contents(index: str, *others: str) -> str:
    """Return a table of contents for the sidebar: the pages in the order in which an index names them, then the others."""
    pages = dict.fromkeys(re.findall(r"\]\(([\w./-]+)\.md\)", index))
    return "\n".join(["", "```{toctree}", ":hidden:", "", *pages, *others, "```", ""])


def every_module(below: str) -> str:
    """Return directives for the modules below a subpackage that no page names and no other ``every-module`` covers."""
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.rst"))
    parts = [part for part in re.findall(r"^\.\. every-module:: (.+)$", pages, re.MULTILINE) if part.startswith(f"{below}.")]
    found = []
    for path in sorted((PACKAGE / Path(*below.split("."))).rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        in_other_part = any(name.startswith(f"{part}.") for part in parts)
        if path.stem != "__init__" and not in_other_part and f".. automodule:: tb_mqtt_client.{name}\n" not in pages:
            found.append(f".. automodule:: tb_mqtt_client.{name}\n")
    return "\n".join(found)


def example(path: Path) -> str:
    """Return a section with one example program."""
    title = f"{path.parent.name}: {path.stem.replace('_', ' ')}"
    return f"\n{title}\n{'-' * len(title)}\n\n.. literalinclude:: /{path.relative_to(ROOT)}\n   :language: python\n"


def setup(app: Any) -> None:
    """Register the hooks; Sphinx calls this."""
    use_the_stub()
    app.connect("autodoc-process-docstring", link_names)
    app.connect("source-read", adapt)
