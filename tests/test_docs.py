"""What the documents say is so: links exist, commands parse, snippets and tables are in step.

`uv run python tests/test_docs.py` writes the table of arms into docs/thinking.md.
"""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import nightly, slow

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"(?<![\w/.~-])(?:src|tests|docs|benchmarks|examples|scripts|\.ci)/[\w./-]*\w")
NAME = re.compile(r"(?<![\w.])thinkslow(?:\.\w+)+(?![\w/-])")
BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SESSION = re.compile(r"^```pycon\n(.*?)^```", re.DOTALL | re.MULTILINE)
ARMS_PAGE = ROOT / "docs" / "thinking.md"
BEGIN, END = "<!-- arms: written by tests/test_docs.py -->\n", "<!-- end of arms -->\n"

if not (ROOT / "README.md").exists():
    pytest.skip("the documents are not beside the tests", allow_module_level=True)


def commands() -> list[tuple[str, str]]:
    """Every `thinkslow …` line of the console blocks, with its page."""
    found = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words and words[0] in ("$", "./uvw", "uv", "run"):
                    words.pop(0)
                if words and words[0] == "thinkslow":
                    found.append((page.name, shlex.join(words)))
    return found


def arms_table() -> str:
    """Every arm of `agent/arms/presets.py`, one line each."""
    from thinkslow import registry
    from thinkslow.agent.arms.arm import arm
    from thinkslow.agent.arms.presets import DEFAULT
    from thinkslow.objectives import ImaginedTerm

    rows = ["| arm | terms | steps | imagined | what it is |", "|---|---|---|---|---|"]
    for name, entry in registry.entries("arm").items():
        thinking = arm(name).thinking
        terms = [term for term, _ in thinking.terms]
        named = " + ".join(f"`{term.name}`" for term in terms) or "–"
        ahead = any(isinstance(term, ImaginedTerm) for term in terms)
        imagined = thinking.horizon if ahead else "–"
        mark = " ●" if name in DEFAULT else ""
        rows.append(f"| `{name}`{mark} | {named} | {thinking.steps} | {imagined} | {entry.about} |")
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_exists(page):
    gone = [
        link
        for link in LINK.findall(page.read_text())
        if not link.startswith(("http://", "https://", "#", "mailto:"))
        and not (page.parent / link.split("#")[0]).exists()
    ]
    assert not gone


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_and_every_name_of_the_package_exists(page):
    text = page.read_text()
    assert not [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    code = re.sub(r"^```toml\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for name in set(NAME.findall(code)):
        pkgutil.resolve_name(name)


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_shown_parses(page, line):
    from thinkslow.cli import COMMANDS, MODULES, main

    _, *words = shlex.split(line)
    if words[0].startswith("-") or "--help" in words:
        assert main(words) == 0
        return
    assert words[0] in COMMANDS, f"{page} shows {words[0]!r}, which is no command"
    importlib.import_module(f"thinkslow.cli.{MODULES.get(words[0], words[0])}").parse(words[1:])


def tier(page: Path) -> Any:
    """The longest sessions are of the slow tier."""
    marks = pytest.mark.slow if page.name in ("bring-your-idea.md", "python.md") else ()
    return pytest.param(page, marks=marks, id=page.name)


@pytest.mark.parametrize("page", [*map(tier, PAGES)])
def test_every_session_shown_gives_what_it_says(page):
    """One after another; those of an agent that the reader has yet to train are only compiled."""
    known = {}
    for number, block in enumerate(SESSION.findall(page.read_text())):
        test = doctest.DocTestParser().get_doctest(
            block, known, f"{page.name} {number}", None, None
        )
        if "runs/" in block:
            compile("".join(example.source for example in test.examples), page.name, "exec")
        else:
            assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0
            known |= test.globs


def misnamed(code: str) -> list[str]:
    """Names of the package that do not exist, and keywords that its functions do not take."""
    tree = ast.parse(code)
    known: dict[str, object] = {}
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("thinkslow"):
            for one in node.names:
                try:
                    found = pkgutil.resolve_name(f"{node.module}:{one.name}")
                except AttributeError:
                    try:
                        found = importlib.import_module(f"{node.module}.{one.name}")
                    except ImportError:
                        wrong.append(f"{node.module}.{one.name}")
                        continue
                known[one.asname or one.name] = found
    known["thinkslow"] = importlib.import_module("thinkslow")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not re.fullmatch(r"[\w.]+", ast.unparse(node.func)):
            continue
        root, *rest = ast.unparse(node.func).split(".")
        if root not in known:
            continue
        called: object = known[root]
        for name in rest:
            called = getattr(called, name, None)
        if not callable(called):
            wrong.append(ast.unparse(node.func))
            continue
        takes = inspect.signature(called).parameters.values()
        names = {one.name for one in takes}
        if not any(one.kind is one.VAR_KEYWORD for one in takes):
            wrong += [
                f"{ast.unparse(node.func)}({each.arg}=)"
                for each in node.keywords
                if each.arg and each.arg not in names
            ]
    return wrong


HOMES = ("", ".objectives", ".readouts", ".refinement", ".distributions")
"""Modules whose names a page may be tempted to use without an import."""


def unimported(code: str) -> set[str]:
    """Names of the package that the code uses and does not import."""
    public = set()
    for home in HOMES:
        module = importlib.import_module(f"thinkslow{home}")
        public |= set(getattr(module, "__all__", ())) | {
            name for name, one in vars(module).items() if inspect.isclass(one)
        }
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {one.asname or one.name for one in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            bound.add(node.name)
    return used & public - bound


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_shown_imports_what_it_uses_of_the_package(page):
    """The first block of docs/python.md ended in a NameError: `SIG` came from nowhere."""
    assert not [name for code in CODE.findall(page.read_text()) for name in unimported(code)]
    assert unimported("f(SIG(), evaluate)") == {"SIG", "evaluate"}


def test_a_keyword_that_is_gone_is_found():
    """docs/updates.md showed `Anytime(..., trust=0.1)` after it was renamed."""
    code = "from thinkslow.refinement import Anytime, Gone\nAnytime(f, u, d, chunk=3, trust=0.1)"
    assert misnamed(code) == ["thinkslow.refinement.Gone", "Anytime(trust=)"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_shown_uses_names_and_keywords_that_exist(page):
    assert not [found for code in CODE.findall(page.read_text()) for found in misnamed(code)]


def test_every_column_of_the_terminal_is_explained():
    """`better` of the terminal was P(improve) on the page and in its explanation."""
    from thinkslow.evaluation.report.table import NUMBERS

    page = (ROOT / "docs" / "read-a-result.md").read_text()
    assert not [name for name in NUMBERS if f"`{name}`" not in page and f"| {name}" not in page]


def test_the_documents_show_the_main_commands():
    assert {line.split()[1] for _, line in commands()} >= {"demo", "train", "evaluate", "doctor"}


def test_the_table_of_arms_is_in_step():
    text = ARMS_PAGE.read_text()
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)] == arms_table()


def test_every_member_of_a_model_and_every_term_is_in_its_table():
    from thinkslow import registry
    from thinkslow.worldmodel import WorldModel

    first = {
        name: "".join(
            line.split(" | ")[0]
            for line in (ROOT / "docs" / name).read_text().splitlines()
            if line.startswith("| `")
        )
        for name in ("python.md", "objectives.md")
    }
    members = [name for name in vars(WorldModel) if name[0] != "_"]
    assert [name for name in members if not re.search(rf"`{name}[`(]", first["python.md"])] == []
    terms = registry.entries("term")
    ours = [name for name in terms if isinstance(terms[name].make, str)]
    assert [name for name in ours if f"`{name}`" not in first["objectives.md"]] == []


def test_the_class_of_the_first_page_on_ideas_is_that_of_its_file():
    blocks = re.findall(r"```text\n(.*?)```", (ROOT / "docs/bring-your-idea.md").read_text(), re.S)
    assert blocks[0] in (ROOT / "examples" / "own_term.py").read_text()


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_an_example_shown_in_a_page_is_the_file(example):
    shown = "```python\n" + example.read_text() + "```"
    assert example.name not in NAMED or len(example.read_text().splitlines()) <= 30
    assert any(shown in page.read_text() for page in PAGES)


NAMED = ("own_gate.py", "own_term.py", "own_update.py")
"""In CI, an evaluation takes from these what it is given by name: `test_evaluate.py`."""


@pytest.mark.parametrize(
    "example",
    [nightly(p) if p.name in NAMED else slow(p) for p in sorted((ROOT / "examples").glob("*.py"))],
    ids=lambda p: p.name,
)
def test_an_example_runs(example, capsys, monkeypatch):
    if example.name == "crafter_env.py":
        pytest.importorskip("crafter")
    monkeypatch.syspath_prepend(str(example.parent))
    monkeypatch.setattr(sys, "argv", [str(example)])  # those of pytest are not its arguments
    runpy.run_path(str(example), run_name="__main__")
    out = capsys.readouterr().out
    assert out
    assert not re.search(r"\bnan\b", out)  # the first page showed "objective 128 -> nan"
    for page in PAGES:
        for shown in re.findall(
            rf"\$ uv run python examples/{example.name}\n(.*?)^```", page.read_text(), re.S | re.M
        ):
            assert out == shown


if __name__ == "__main__":
    before, rest = ARMS_PAGE.read_text().split(BEGIN)
    ARMS_PAGE.write_text(before + BEGIN + arms_table() + END + rest.split(END)[1])
