"""Links between the documents lead to files and headings that exist."""

import pytest
from documents import DOCUMENTS, ROOT, read


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(path):
    broken = []
    for line, target in read(path).links:
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        if not linked.exists():
            broken.append(f"{line}: there is no file {name}")
        elif anchor and anchor not in read(linked).anchors:
            broken.append(f"{line}: {linked.name} has no heading #{anchor}")
    assert not broken


def test_the_index_names_every_guide():
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for _, target in read(index).links}
    assert not [path.name for path in index.parent.glob("*.md") if path != index and path not in linked]
