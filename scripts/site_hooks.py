"""What turns the documents of the repository into a site (mkdocs.yml names this file).

The documents are written for GitHub: they link to files beside docs/, and their mathematics is
TeX between dollar signs. For the site the files that they link to are taken along, mathematics
becomes MathML, which browsers draw without a script, and the page of commands is written from
their help.
"""

import contextlib
import functools
import html
import importlib
import io
import json
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
BESIDE = ("CONTRIBUTING.md", "CHANGELOG.md")
NOTEBOOK, FIGURE = "examples/from_run_to_figure.ipynb", "from-run-to-figure.md"
LINK = re.compile(r"(\]\()\.\./([\w./-]+)(#[\w-]+)?\)")
MATHS = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_config(config: Any) -> Any:
    """A page that no section of mkdocs.yml names comes last in the reference, by its heading."""
    named = set(re.findall(r"[\w-]+\.md", str(config.nav)))
    reference = next(part["Reference"] for part in config.nav if "Reference" in part)
    for page in sorted(ROOT.glob("docs/*.md")):
        if page.name not in named:
            heading = page.read_text().partition("\n")[0].removeprefix("# ")
            reference.append({heading: page.name})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what is linked to from outside of docs/, and the page of commands."""
    for name in BESIDE:
        files.append(File.generated(config, name, content=(ROOT / name).read_text()))
    linked = {
        found[1]
        for page in ROOT.glob("docs/*.md")
        for _, *found in (("", *match) for match in LINK.findall(page.read_text()))
    }
    for name in sorted(linked - set(BESIDE)):
        if (ROOT / name).is_file() and name not in ("README.md",):
            files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    files.append(File.generated(config, "commands.md", content=commands()))
    files.append(File.generated(config, FIGURE, content=cells(ROOT / NOTEBOOK)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of the repository as links of the site."""
    if page.file.src_uri == "api.md":
        markdown += further(markdown)
    if page.file.src_uri in BESIDE:
        return re.sub(r"\]\(docs/", "](", markdown)
    return LINK.sub(_inside, markdown)


def _inside(match: re.Match) -> str:
    before, name, anchor = match.groups()
    name = {"README.md": "index.md", NOTEBOOK: FIGURE}.get(name, name)
    return f"{before}{name}{anchor or ''})"


def on_page_content(content: str, **_: Any) -> str:
    """TeX as MathML."""
    return MATHS.sub(lambda match: _mathml(match[2], block=match[1] == "div"), content)


@functools.cache
def _mathml(text: str, *, block: bool) -> str:
    """One formula, as arithmatex leaves it: TeX between brackets."""
    tex = html.unescape(text.strip())[2:-2]
    return convert(tex, display="block" if block else "inline")


def further(markdown: str) -> str:
    """Entries of public names that the page does not show yet, after those that it does."""
    shown = set(re.findall(r"^::: ([\w.]+)$", markdown, re.MULTILINE))
    known = {name.rpartition(".")[2] for name in shown}
    lines = []
    for module in dict.fromkeys(name.rpartition(".")[0] for name in sorted(shown)):
        home = importlib.import_module(module)
        for name in getattr(home, "__all__", ()):
            if name not in known and callable(getattr(home, name)):
                lines += ["", f"::: {module}.{name}"]
    return "\n".join(["", "", "## Further names", *lines, ""]) if lines else ""


def cells(notebook: Path) -> str:
    """A notebook as a page: its text, and its code."""
    parts = []
    for cell in json.loads(notebook.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    first, *rest = parts
    return "\n\n".join([first, f"The notebook: [{NOTEBOOK}]({NOTEBOOK}).", *rest]) + "\n"


def commands() -> str:
    """The help of every command, as a page."""
    from thinkslow.cli import COMMANDS, main, overview

    parts = ["# Commands", "```text", overview(), "```"]
    for name in COMMANDS:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            main([name, "--help"])
        parts += [f"## thinkslow {name}", "```text", said.getvalue().rstrip(), "```"]
    return "\n".join(parts) + "\n"
