"""What code, tests and pages cite exists: sections and facts of the contract, numbers of defects, pages and their headings.

A citation of the contract has one form, `docs/platform_contract.md, section 4`. A file whose first docstring cites it may say
`section 4` alone after that.
"""

import re
from pathlib import Path

import pytest
from documents import DOCUMENTS, ROOT, read

CONTRACT = ROOT / "docs" / "platform_contract.md"
CONTRACT_TEXT = CONTRACT.read_text()
SECTIONS = {int(number) for number in re.findall(r"^## (\d+)\. ", CONTRACT_TEXT, re.MULTILINE)}
FACTS = {int(number) for number in re.findall(r"^(\d+)\. ", CONTRACT_TEXT.split("## 0.")[1].split("\n## ")[0], re.MULTILINE)}
DEFECTS = {int(number) for number in re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "defects.md").read_text(), re.MULTILINE)}

FOLDERS = {"python": ("*.py", "*.pyi"), "tests": ("*.py",), "benches": ("*.py",), "examples": ("*.py",), "rust": ("*.rs", "*.toml")}
FILES = [
    *(path for folder, kinds in FOLDERS.items() for kind in kinds for path in sorted((ROOT / folder).rglob(kind))),
    *(ROOT / name for name in ("Makefile", "pyproject.toml", "Cargo.toml")),
    *DOCUMENTS,
]

GAP = r"(?:\s|#|//[/!]?)+"
NUMBERS = rf"\d+(?:(?:,{GAP}and|,|{GAP}and|{GAP}to){GAP}\d+)*"
# A number with a dot is a section of the MQTT specification.
NAMED = re.compile(rf"(?i:\b(section|fact|defect)s?){GAP}({NUMBERS})(?![\d.]*\d)")
OTHER_DOCUMENT = re.compile(rf"(?:MQTT(?:{GAP}[\d.]+)?|RFC{GAP}\d+),{GAP}$")
OTHER_FORM = re.compile(
    rf"(?<!docs/)(?<!\]\()(?<!/)\bplatform_contract\.md|(?<![\w/])[Cc]ontract,?{GAP}(?:sections?|facts?){GAP}\d|§"
)
PAGE = re.compile(r"(?<![\w/.:-])docs/([\w/]+\.md)(?:#([\w-]+))?")


def line_of(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def wrong_numbers(text: str, *, in_contract: bool = False) -> list[tuple[int, str]]:
    """Return the line of each citation of a number that does not exist, or whose document is not named, and what is wrong."""
    known = {"section": SECTIONS, "fact": FACTS, "defect": DEFECTS}
    found = []
    # After the first citation of the contract "section 4" is clear.
    first = 0 if in_contract else text.find("docs/platform_contract.md")
    for citation in NAMED.finditer(text):
        kind, numbers = citation[1].lower(), {int(number) for number in re.findall(r"\d+", citation[2])}
        if kind == "section" and OTHER_DOCUMENT.search(text[: citation.start()][-40:]):
            continue
        if kind != "defect" and not 0 <= first < citation.start():
            found.append((line_of(text, citation.start()), f"{citation[0]!r} of which document?"))
        elif missing := numbers - known[kind]:
            found.append((line_of(text, citation.start()), f"there is no {kind} {', '.join(map(str, sorted(missing)))}"))
    return found


def missing_pages(text: str) -> list[tuple[int, str]]:
    found = []
    for page in PAGE.finditer(text):
        path = ROOT / "docs" / page[1]
        if not path.exists():
            found.append((line_of(text, page.start()), f"there is no {page[0]}"))
        elif page[2] and page[2] not in read(path).anchors:
            found.append((line_of(text, page.start()), f"docs/{page[1]} has no heading #{page[2]}"))
    return found


def shown(path: Path, found: list[tuple[int, str]]) -> list[str]:
    return [f"{path.relative_to(ROOT)}:{line}: {problem}" for line, problem in found]


def test_the_numbers_are_read() -> None:
    assert set(range(10)) == SECTIONS
    assert set(range(1, 11)) == FACTS
    assert len(DEFECTS) > 70


def test_every_number_exists() -> None:
    # Its own text counts other things too, such as ten facts.
    problems = [
        problem
        for path in FILES
        if path not in (CONTRACT, Path(__file__))
        for problem in shown(path, wrong_numbers(path.read_text()))
    ]
    assert not problems, "\n".join(problems)


def test_the_contract_refers_to_itself_correctly() -> None:
    assert not shown(CONTRACT, wrong_numbers(CONTRACT_TEXT, in_contract=True))


def test_every_page_exists() -> None:
    problems = [problem for path in FILES if path != Path(__file__) for problem in shown(path, missing_pages(path.read_text()))]
    assert not problems, "\n".join(problems)


def test_citations_of_the_contract_have_one_form() -> None:
    problems = []
    for path in FILES:
        if path == Path(__file__) or path in DOCUMENTS:
            continue
        text = path.read_text()
        problems += shown(path, [(line_of(text, one.start()), f"{one[0]!r} is not the form") for one in OTHER_FORM.finditer(text)])
    assert not problems, "write `docs/platform_contract.md, section 4`:\n" + "\n".join(problems)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('"""docs/platform_contract.md, section 10."""', "there is no section 10"),
        ('"""docs/platform_contract.md,\n    sections 2 and 11."""', "there is no section 11"),
        ("# docs/platform_contract.md, section 1, facts 3, 4 and 12", "there is no fact 12"),
        ("# docs/platform_contract.md,\n# section 12", "there is no section 12"),
        ("# Fact 3", "'Fact 3' of which document?"),
        ("# Defect 100 of SDK 2.0", "there is no defect 100"),
    ],
)
def test_a_wrong_number_is_found(text: str, problem: str) -> None:
    assert [found for _, found in wrong_numbers(text)] == [problem]


@pytest.mark.parametrize("text", ["MQTT 5, section 4.4", "MQTT 5 forbids it (section 4.4)", "RFC 8305, section 5", "defect 71"])
def test_other_documents_have_sections_too(text: str) -> None:
    assert not wrong_numbers(text)


@pytest.mark.parametrize("text", ["docs/no_such_page.md", "docs/platform_contract.md#no-such-heading"])
def test_a_missing_page_is_found(text: str) -> None:
    assert len(missing_pages(text)) == 1
    assert not missing_pages("docs/platform_contract.md#4-gateway-topics and https://example.com/docs/x.md")


@pytest.mark.parametrize("text", ["(platform_contract.md, section 1)", "(contract section 4)", "Contract,\n    # fact 1", "§4"])
def test_another_form_is_found(text: str) -> None:
    assert OTHER_FORM.search(text)
    assert not OTHER_FORM.search("docs/platform_contract.md, section 1; tests/contract, section")
