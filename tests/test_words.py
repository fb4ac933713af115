"""Source and documentation are written in plain American English: no words of a short list."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Path prefix -> why its words stay.
EXCEPTIONS = {
    "docs/world_models.md": "a laboratory notebook that is not revised yet",
}

GAP = r"[\s#]+"  # words may be on two lines, of a comment too
STEMS = (
    "initialis|normalis|optimis|regularis|synchronis|randomis|quantis|recognis|summaris|generalis|serialis|parametris"
)
COUNTED = "steps|nats|frames|episodes|updates|seconds|rows|windows|lines|bytes|tics|dreams|samples|operations|meters"
UNITS = "step|second|minute|hour|day|update|batch|frame|episode|environment|run|line|row|column|dimension|candidate"
WORDS = {
    r"mend(s|ed|ing)?": "fix",
    r"anew": "again, or from scratch",
    rf"(go|goes|going|went|gone){GAP}on": "continue, or resume",
    r"(behaviour|colour|neighbour)\w*|grey|(centre)[ds]?|towards": "the American spelling",
    rf"(re|un|de)?({STEMS})(e[drs]?|ing|ations?)": "-ize",
    rf"({COUNTED}){GAP}an?{GAP}({UNITS})": "per",
}
PATTERNS = [(re.compile(rf"\b({words})\b"), better) for words, better in WORDS.items()]


def found(text: str) -> list[tuple[int, str, str]]:
    """Line, words and what to write instead."""
    text = text.lower()
    return [
        (text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), better)
        for pattern, better in PATTERNS
        for match in pattern.finditer(text)
    ]


def test_the_source_and_the_documentation_avoid_these_words():
    files = [ROOT / name for name in ("README.md", "CHANGELOG.md", "ARCHITECTURE.md")]
    files += sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "src" / "reverie").rglob("*.py"))
    words = {path.relative_to(ROOT).as_posix(): found(path.read_text(encoding="utf-8")) for path in files}
    assert [
        f"{path}:{line}: {text!r}: write {better}"
        for path, places in words.items()
        for line, text, better in places
        if not path.startswith(tuple(EXCEPTIONS))
    ] == []
    needed = [path for path, places in words.items() if places]
    assert [prefix for prefix in EXCEPTIONS if not any(path.startswith(prefix) for path in needed)] == [], "not needed"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a run\n# goes\n# on from here", "goes # on"),
        ("3 nats a\nstep", "nats a step"),
        ("it reinitialises", "reinitialises"),
        ("Mend it", "mend"),
        ("toward the center, after all steps an agent resumes", None),
        ("amend, a going_on flag, a precise rise, steps of an update", None),
    ],
)
def test_the_list_finds_words_across_lines_and_nothing_else(text, words):
    assert [place[1] for place in found(text)] == ([] if words is None else [words])
