"""Pages, tests, and the docstrings, comments and texts of the package, avoid phrases that are hard to read.

docs/glossary.md says which words are used instead. The list is short on purpose: it has phrases that are nearly always wrong.
"""

import ast
import re
from pathlib import Path

import pytest
from documents import DOCUMENTS, ROOT
from prose_of_code import HIDDEN, of_markdown, of_python, prose_of

PARTICIPLES = "queued|sent|published|acknowledged|refused|lost|waiting|pending|received|in flight"
BANNED = {
    # Words that are no terms of the field.
    r"nobody|somebody": "the user, the caller, the platform; or a passive",
    r"whoever|for who|by who|(?<!anyone )who(?= knows)": "anyone who, the caller, the user",
    r"told(?! about)": "reported, announced, notified, known",
    r"(?:the|a|this|its) road|road of": "pipeline, path",
    r"(?:the|at|a) door": "intake, the call",
    r"guilty": "that caused the disconnect",
    r"calls? of the platform": "server-side RPC",
    r"calls? to the platform": "client-side RPC",
    r"mends?|mended": "fix",
    r"anew": "again",
    r"hears? of": "is notified of",
    r"blotted out": "redacted",
    r"keeps? (?:its|their) word": "is correct",
    # Forms of other languages.
    r"(?<!there )(?:is|are|was|were|be) no(?! longer| more than| less than| later than)": "is not a",
    r"(?<!there )(?:is|are|was|were) none(?! of|,)": "is not one, do not exist",
    r"(?:not|or),? no more": "no longer",
    r"so far(?! as)": "yet, up to now",
    r"(?:as )?of (?:now|then)": "current, currently, at that time",
    r"for ever": "forever",
    r"in vain": "without effect, forever",
    r"without a word|in silence": "silently",
    r"all the same": "anyway, nevertheless",
    r"(?:its|their) begin": "on entry, at the beginning",
    r"else than": "other than",
    r"at best\)": "a complete sentence",
    r"on (?:its|their) way": "in flight",
    r"by (?:itself|themselves)": "automatically, on its own",
    r"takes? note": "note",
    r"so many times": "this many times",
    r"stands? (?:above|beside|behind|there)": "is above, is next to",
    rf"what (?:is|was|are|were) (?:not |still |yet |un)?(?:{PARTICIPLES})": "a noun: queued data, unacknowledged messages",
    r"(?<!caller )(?<!callers )who (?:wait|call|ask|send)s?": "the caller, callers that",
}
"""Phrases, in lower case, and better wordings. A space stands for any space, also for the end of a line."""
PHRASES = [(re.compile(rf"\b(?:{phrase.replace(' ', '[ ]')})(?!\w)"), better) for phrase, better in BANNED.items()]

PACKAGE = ROOT / "python" / "tb_mqtt_client"
TESTS = ROOT / "tests"
MODULES = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")])
TEST_MODULES = sorted(path for path in TESTS.rglob("*.py") if path != Path(__file__))
"""All modules of tests but this one, which has the phrases."""


def phrases_in(prose: str) -> list[str]:
    """Return line, phrase and better wording of each banned phrase."""
    # One character for another, so that places stay.
    lines = prose.lower()
    # A phrase may continue on the next line: spaces before its first word count as one. Where a place is takes longer to find out.
    short = re.sub(r"\s+", " ", re.sub(rf"{HIDDEN}[{HIDDEN}\s]*", HIDDEN, lines))
    if not any(phrase.search(short) for phrase, _ in PHRASES):
        return []
    flat = re.sub(r"\s", " ", lines)
    places = [place for place, one in enumerate(flat) if one != " " or flat[place - 1 : place] != " "]
    text = "".join(flat[place] for place in places)
    found = []
    for phrase, better in PHRASES:
        for one in phrase.finditer(text):
            line = lines.count("\n", 0, places[one.start()]) + 1
            found.append((line, f"{one[0]!r}: better {better}"))
    return [f"{line}: {problem}" for line, problem in sorted(found)]


UNCLEAR = r"(?:The same|It has|Whether it|As there)\b"


def incomplete_docstrings(text: str) -> list[str]:
    """Return line and beginning of each docstring that needs another one to be understood."""
    # Most modules have no such words, and parsing one takes longer.
    if not re.search(rf"[\"']\s*{UNCLEAR}", text):
        return []
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ""
            if re.match(UNCLEAR, docstring):
                better = "better say what it does, in a sentence that is clear alone"
                found.append(f"{node.body[0].lineno}: {docstring[:40]!r}: {better}")
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page(path: Path) -> None:
    problems = [f"{path.relative_to(ROOT)}:{problem}" for problem in phrases_in(prose_of(path))]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("modules", [MODULES, TEST_MODULES], ids=["package", "tests"])
def test_code(modules: list[Path]) -> None:
    problems = []
    for path in modules:
        text = path.read_text()
        found = phrases_in(of_python(text)) + incomplete_docstrings(text)
        problems += [f"{path.relative_to(ROOT)}:{problem}" for problem in found]
    assert not problems, "\n".join(problems)


def test_the_package_and_the_tests_are_found() -> None:
    assert PACKAGE / "__init__.py" in MODULES
    assert TESTS / "conftest.py" in TEST_MODULES


@pytest.mark.parametrize(
    "text",
    [
        "A session that is none.",
        "Nothing is told.",
        "It waits for\never.",
        "this is\n  no time",
        "[the road of a datapoint](x.md)",
        "> what was not sent",
    ],
)
def test_a_phrase_on_a_page_is_found(text: str) -> None:
    assert len(phrases_in(of_markdown(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "`for ever`",
        "There were none",
        "```text\nfor ever\n```",
        "There is no limit",
        "It is no longer there",
        "[way](in_vain.md)",
        "retold",
    ],
)
def test_other_text_on_a_page_is_allowed(text: str) -> None:
    assert not phrases_in(of_markdown(text))


@pytest.mark.parametrize(
    "text",
    [
        '"""Wait for ever."""',
        "# It waits\n    # for ever.\n",
        'log.info("%s waits "\n         "for ever", x)',
        'f"{x} waits for ever"',
        '"""A\n\n    for\n    ever.\n    """',
    ],
)
def test_a_phrase_in_code_is_found(text: str) -> None:
    assert len(phrases_in(of_python(text))) == 1


@pytest.mark.parametrize("text", ["told = 1", '"""``for ever``"""', 'x("is", "no")', "anew()  # a comment"])
def test_names_in_code_are_allowed(text: str) -> None:
    assert not phrases_in(of_python(text))


def test_the_message_names_line_phrase_and_better_wording() -> None:
    assert phrases_in("one\ntwo for\never\n") == ["2: 'for ever': better forever"]


def test_a_docstring_that_is_not_clear_alone_is_found() -> None:
    assert len(incomplete_docstrings('def f():\n    """The same for a gateway."""\n')) == 1
