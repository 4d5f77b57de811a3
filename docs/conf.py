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
import tb_mqtt_client.emulator
import tb_mqtt_client.sync

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
# The licence names no holder of a copyright.
html_show_copyright = False
# Nothing links to lists of all names and modules: the reference has a page by task, and there is a search.
html_use_index = False
html_domain_indices = False
# The one of the theme underlines imported modules as if they were links.
pygments_dark_style = "monokai"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Guides come first, and modules of the inside last.
html_search_scorer = str(ROOT / "docs" / "search_scorer.js")
# The sections of a page are in the table of contents beside it, so the sidebar has pages only.
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}

myst_heading_anchors = 4
highlight_language = "none"
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
# A line below each public name says where to import it from. Readers do not need the module that defines it.
add_module_names = False

# References to names of this package must resolve, unless they are private or type variables. Python's own documentation is not
# available offline.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!tb_mqtt_client\b).*"), ("py:.*", r".*\.(_\w+|\w*T|[A-Z])")]

NAMES = {name: f"{getattr(tb_mqtt_client, name).__module__}.{name}" for name in tb_mqtt_client.__all__ if name[0] != "_"}
IMPORTED_FROM = {
    f"{getattr(part, name).__module__}.{name}": part.__name__
    for part in (tb_mqtt_client.emulator, tb_mqtt_client.sync)
    for name in part.__all__
    if hasattr(getattr(part, name), "__module__")
} | dict.fromkeys(NAMES.values(), "tb_mqtt_client")
"""The shortest import path of each public name, by its full name."""
SOURCE_LINKS = {
    "examples": "/docs/reference/examples.rst",
    "../examples/device": "/docs/reference/examples.rst",
    "../examples/gateway": "/docs/reference/examples.rst",
    "../python/tb_mqtt_client/emulator": "/docs/reference/emulator.rst",
}
"""Targets in the repository that the guides link to, and the pages that replace them."""

DIAGRAM = re.compile(r"^```mermaid\n.*?^```$", re.MULTILINE | re.DOTALL)


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


def linked(line: str) -> str:
    """Return a line of reStructuredText in which public names and their methods are links: ``Name`` and ``Name.method``."""
    return re.sub(
        rf"``({'|'.join(NAMES)})(\.[a-z_]+)?``",
        lambda found: f":py:obj:`{found[0].strip('`')} <{NAMES[found[1]]}{found[2] or ''}>`",
        line,
    )


def link_names(_app: Any, _what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Say where a public name is imported from, and turn public names that a docstring mentions as ``Name`` into links."""
    if package := IMPORTED_FROM.get(name):
        lines[:0] = [f"``from {package} import {name.rpartition('.')[2]}``", ""]
    for index, line in enumerate(lines):
        lines[index] = linked(line)


def keep_colons(_app: Any, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Keep napoleon from reading the text before a colon, in the first line about an attribute, as the attribute's type."""
    if what in {"attribute", "data", "property"}:
        # An empty comment. Napoleon skips empty lines.
        lines[:0] = ["..", ""]


def adapt(_app: Any, document: str, source: list[str]) -> None:
    """Redirect links to files of the repository to their pages, and add content that only the site has."""
    for target, page in SOURCE_LINKS.items():
        source[0] = source[0].replace(f"]({target})", f"]({page})")
    drawings = (path.read_text() for path in sorted((ROOT / "docs" / "diagrams").glob(f"{Path(document).name}-*.svg")))
    # GitHub draws the diagrams itself.
    source[0] = re.sub(
        DIAGRAM, lambda _found: f'```{{raw}} html\n<div class="drawing" tabindex="0">{next(drawings)}</div>\n```', source[0]
    )
    if document == root_doc:
        source[0] += contents(source[0], "reference/index", "Changelog <../CHANGELOG>")
    elif document == "README":
        # Its page has the name that the index and the sidebar use.
        source[0] = source[0].replace("# tb_mqtt_client\n", "# Getting started\n", 1)
    elif document == "docs/decisions/index":
        source[0] += contents(source[0])
    elif document == "docs/reference/index":
        source[0] = linked(source[0])
    elif document == "docs/reference/examples":
        source[0] += "\n".join(example(path) for path in sorted(ROOT.glob("examples/*/*.py")))
    elif document.startswith("docs/reference/"):
        source[0] = re.sub(r"^\.\. every-module:: (.+)$", lambda found: every_module(found[1]), source[0], flags=re.MULTILINE)


def contents(index: str, *others: str) -> str:
    """Return a table of contents for the sidebar: the pages that an index lists, with its names, and others."""
    trees = []
    # Each part begins with a line in bold type. Only its list names pages as the sidebar does.
    for caption, part in re.findall(r"(?:^\*\*(.+)\*\*$)?((?:\n(?!\*\*).*)+)", index, re.MULTILINE):
        links = re.findall(r"\[([^]]+)\]\(([\w./-]+)\.md\)", "\n".join(re.findall(r"^[-|] .*$", part, re.MULTILINE)))
        entries = [f"{title[0].upper()}{title[1:]} <{page}>" for title, page in links]
        if entries:
            trees.append(["", "```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else []), "", *entries, "```", ""])
    trees[0][-2:-2] = others
    return "\n".join(line for tree in trees for line in tree)


def every_module(below: str) -> str:
    """Return a section for each module below a subpackage that no page names and no other ``every-module`` covers."""
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.rst"))
    parts = [part for part in re.findall(r"^\.\. every-module:: (.+)$", pages, re.MULTILINE) if part.startswith(f"{below}.")]
    found = []
    for path in sorted((PACKAGE / Path(*below.split("."))).rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        in_other_part = any(name.startswith(f"{part}.") for part in parts)
        if path.stem != "__init__" and not in_other_part and f".. automodule:: tb_mqtt_client.{name}\n" not in pages:
            found.append(f"{name}\n{'-' * len(name)}\n\n.. automodule:: tb_mqtt_client.{name}\n")
    return "\n".join(found)


def example(path: Path) -> str:
    """Return a section with one example program."""
    title = f"{path.parent.name}: {path.stem.replace('_', ' ')}"
    return f"\n{title}\n{'-' * len(title)}\n\n.. literalinclude:: /{path.relative_to(ROOT)}\n   :language: python\n"


def setup(app: Any) -> None:
    """Register the hooks; Sphinx calls this."""
    use_the_stub()
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    app.connect("autodoc-process-docstring", link_names)
    app.connect("source-read", adapt)
