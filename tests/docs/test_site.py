"""The sources of `make docs`: each diagram has a current drawing, a page has one name, and the reference is complete."""

import hashlib
import re

import pytest
from documents import ROOT

import tb_mqtt_client

DOCS = ROOT / "docs"
DIAGRAMS = [
    (f"{page.stem}-{number}", source)
    for page in sorted(DOCS.glob("*.md"))
    for number, source in enumerate(re.findall(r"^```mermaid\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL), 1)
]
REFERENCE = (DOCS / "reference" / "index.rst").read_text()


@pytest.mark.parametrize(("name", "source"), DIAGRAMS, ids=[name for name, _ in DIAGRAMS])
def test_diagram_has_a_drawing_of_its_source(name, source):
    drawing = (DOCS / "diagrams" / f"{name}.svg").read_text()
    assert f'data-source="{hashlib.sha256(source.encode()).hexdigest()}"' in drawing, "run make diagrams"


def test_no_drawing_is_left_over():
    assert {path.stem for path in DOCS.glob("diagrams/*.svg")} == {name for name, _ in DIAGRAMS}


def test_drawings_load_nothing_and_follow_the_colours_of_the_page():
    for path in DOCS.glob("diagrams/*.svg"):
        text = path.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"@import|https?:", text), path.name
        assert not re.search(r'(fill|stroke)="#', text), path.name


def test_index_names_each_page_as_its_heading_does():
    links = re.findall(r"^- \[([^]]+)\]\(([\w./-]+\.md)\)", (DOCS / "index.md").read_text(), re.MULTILINE)
    headings = {page: re.search(r"^# (.+)$", (DOCS / page).read_text(), re.MULTILINE)[1] for _, page in links}
    # The README's heading is the name of the package.
    assert {page: title for title, page in links if page != "../README.md"} == {
        page: heading for page, heading in headings.items() if page != "../README.md"
    }


def test_reference_by_task_names_every_public_name():
    named = set(re.findall(r"``(\w+)(?:\.\w+)?``", REFERENCE))
    assert {name for name in tb_mqtt_client.__all__ if not name.startswith("_")} <= named


def test_reference_by_task_names_existing_methods():
    for name, method in re.findall(r"``([A-Z]\w+)\.(\w+)``", REFERENCE):
        assert callable(getattr(getattr(tb_mqtt_client, name), method)), f"{name}.{method}"


def test_the_search_knows_the_pages_that_it_puts_last():
    project = re.search(r"project = /\^\((.+)\)\$/;", (DOCS / "search_scorer.js").read_text())[1]
    outside, below = project.removesuffix(")").split(r"|docs\/(")
    pages = [*outside.split("|"), *(f"docs/{name}" for name in below.split("|"))]
    assert not [page for page in pages if not (ROOT / f"{page}.md").exists()]
