"""The library speaks of arguments, the command line of flags."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import thinkslow
from thinkslow.cli import evaluate, inspect, main, train
from thinkslow.cli.wording import OTHERWISE

SOURCE = Path(thinkslow.__file__).parent
FLAG = re.compile(r"(^|[\s(`])--[a-z]")
SAID = re.compile(r"`([a-z_]+)=")


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def texts(path: Path) -> tuple[str, ...]:
    """Every text of a file that is no docstring, f-strings whole."""
    return tuple(_texts(parsed(path)))


def _texts(tree: ast.Module) -> Iterator[str]:
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value for part in node.values if isinstance(part, ast.Constant))
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and id(node) not in inside | alone:
            yield str(node.value)


LIBRARY = [path for path in SOURCE.rglob("*.py") if "cli" not in path.relative_to(SOURCE).parts]


def test_the_library_names_no_flag_outside_a_whole_command():
    """Who called `thinkslow.evaluate` was told to pass `--out`."""
    wrong = [
        f"{path.relative_to(SOURCE)}: {text!r}"
        for path in LIBRARY
        for text in texts(path)
        # Flags of git, of Python and of our own commands, which are written out.
        if FLAG.search(text)
        and not {"thinkslow", "uv"} & set(re.findall(r"\w+", text))
        and text
        not in (
            "--no-optional-locks",
            "--error-unmatch",
            "--always",
            "--dirty=+",
            "--exclude",
            "--episodes",
            "--out",
            "--episodes=",
        )
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("command", [evaluate, train])
def test_what_the_library_says_to_pass_is_a_flag(command, capsys):
    """What no command takes can be said to nobody at a terminal."""
    with pytest.raises(SystemExit):
        command.parse(["--help"])
    flags = set(re.findall(r"--([a-z.-]+)", capsys.readouterr().out))
    said = {name for path in LIBRARY for text in texts(path) for name in SAID.findall(text)}
    shared = {"repeat", "wrappers", "options", "image"}
    assert shared <= said
    for name in shared:
        assert OTHERWISE.get(name, name) in flags


def test_an_error_names_the_flag_at_the_command_line(monkeypatch, capsys):
    def failing(options):
        raise ValueError('Wrap it: `wrappers=["module:Class"]`, `max_decisions=9`.')

    monkeypatch.setattr(inspect, "run", failing)
    assert main(["inspect", "agent"]) == 1
    assert "--wrapper module:Class, --max-decisions 9" in capsys.readouterr().err


QUAINT = {
    r"likeliest": "most likely",
    r"anew": "again",
    r"(?:mend|mends|mended|mending)": "fix, or repair",
    r"to the bit": "bit for bit",
    r"whoever": "the name of that person or process",
    r"(?:is|are|was|were) not finite": "non-finite",
    r"stands? in for": "replaces",
    r"(?:go|goes|going|gone) on": "continue, or run",
    r"in place of": "instead of",
    r"(?:is|are|was|were) asked (?:for|about)": "requested",
    r"as one likes|one's own": "you",
    r"what is no|that is none|of which none": "a sentence with `not`",
    r"said once": "reported once",
    r"nobody|everybody": "who or what it is",
    r"Read are|Refused are|Told is|Asked is": "the subject first",
}
"""Words that made a reader stop, and plain ones."""
FRAGMENT = re.compile(r"^(Of|Whose|Those|Told|Between)\b")
ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.py")])


SOURCES = sorted(SOURCE.rglob("*.py"))


def docstrings(path: Path) -> Iterator[str]:
    """Every text that documents a module, a class, a function or a field."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)


def quaint(text: str) -> list[str]:
    return [
        f"{found[0]!r}: say {plain}"
        for words, plain in QUAINT.items()
        if (found := re.search(rf"\b(?:{words})\b", text))
    ]


def test_a_quaint_sentence_is_found():
    assert quaint("The likeliest is said once.") == [
        "'likeliest': say most likely",
        "'said once': say reported once",
    ]
    assert not quaint("The most likely class is reported once.")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_use_the_words_of_the_field(path):
    assert not quaint(path.read_text())


def test_docstrings_help_and_messages_use_the_words_of_the_field():
    wrong = [
        f"{path.relative_to(SOURCE)}: {said}"
        for path in SOURCES
        for text in [*texts(path), *docstrings(path)]
        for said in quaint(text)
        if " " in text  # one word is a name
    ]
    assert not wrong, "\n".join(wrong)


def test_a_docstring_is_no_fragment_that_begins_with_of():
    """Help once read "Of the evaluation." and "Those percentiles."."""
    wrong = [
        f"{path.relative_to(SOURCE)}: {text[:80]!r}"
        for path in SOURCES
        for text in docstrings(path)
        if FRAGMENT.search(text)
    ]
    assert not wrong, "\n".join(wrong)


COUNTED = re.compile(
    r" (?:training |paired |free |whole |unexpected )?(?:decision|episode|step|frame|agent"
    r"|environment|action|update|parameter|member|number|value|byte|axe|pair|minute|seed|run|task|arm|classe|key"
    r"|channel|input|output|argument|instruction|array|weight|file|folder|moment|sample|core"
    r"|hypothese|comparison|convolution|block|halving|device|trace)s\b"
)
ALWAYS_MANY = re.compile(r"^([A-Z_.a-z]*[A-Z]{3,}[A-Z_]*|most|least)$")
"""A limit, which is never 1."""


def miscounted(source: str) -> Iterator[str]:
    """Counts with a noun that is always in the plural, as in "1 minutes"."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        before = ""
        for value, text in zip(node.values, node.values[1:], strict=False):
            if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                said = ast.unparse(value.value)
                found = COUNTED.match(str(text.value))
                # "1 of 1 episodes" is right.
                if found and not ALWAYS_MANY.match(said) and not before.endswith(" of "):
                    yield f"{{{said}}}{found[0]}"
            before = str(value.value) if isinstance(value, ast.Constant) else ""


def test_a_count_that_is_always_in_the_plural_is_found():
    assert list(miscounted('f"about {minutes:.0f} minutes here"')) == ["{minutes} minutes"]
    right = "f\"{plural(n, 'minute')} here, {a} of {b} episodes, over {MOST} folders\""
    assert not list(miscounted(right))


def test_counts_of_one_are_in_the_singular():
    """`study quick --dry-run` said "about 1 minutes here"."""
    wrong = [
        f"{path.relative_to(SOURCE)}: {found}"
        for path in SOURCES
        for found in miscounted(path.read_text())
    ]
    assert not wrong, "\n".join(wrong)
