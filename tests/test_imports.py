"""Who may import whom, read from the source: the direction is part of the design."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import thinkslow

SOURCE = Path(__file__).parents[1] / "src" / "thinkslow"
ABOVE = {
    "__main__": "cli",
    "cli": "gap bank study evaluation loading dreamer saved importers zoo agent weights registry "
    "names envs storage consent",
    "gap": "evaluation dreamer saved agent refinement envs storage needs distributions trees "
    "worldmodel",
    "bank": "evaluation dreamer saved agent objectives envs storage needs heads",
    "study": "evaluation loading zoo dreamer saved agent registry envs storage",
    "evaluation": "dreamer saved agent refinement registry envs storage toy worldmodel needs "
    "heads distributions spaces trees",
    "loading": "zoo importers dreamer saved agent registry storage consent",
    "zoo": "registry storage",
    "importers": "dreamer saved weights registry storage spaces",
    "dreamer": "saved agent objectives weights registry envs storage worldmodel readouts needs "
    "heads distributions spaces trees",
    "saved": "objectives weights registry storage spaces consent",
    "testing": "agent refinement objectives worldmodel readouts needs distributions trees",
    "agent": "refinement objectives worldmodel readouts needs registry names heads distributions "
    "spaces trees",
    "refinement": "needs distributions trees",
    "objectives": "worldmodel readouts needs heads distributions trees",
    "toy": "worldmodel heads distributions spaces",
    "worldmodel": "readouts heads distributions spaces trees",
    "readouts": "needs distributions",
    "needs": "heads distributions trees",
    "envs": "spaces registry consent",
    "registry": "names",
    "names": "",
    "heads": "distributions",
    "distributions": "",
    "storage": "",
    "spaces": "",
    "weights": "",
    "trees": "",
    "consent": "",
    "plural": "",
    "settings": "",
    "standard_streams": "",
    "ending": "",
    "memory": "",
    "cores": "",
}
"""Every folder and module of the package, from the outermost inwards, and what it may import."""
ANYWHERE = {"plural", "settings", "standard_streams", "ending", "memory", "cores"}
"""What every part may import: how messages count, how settings are checked, closed streams, the
signals that end a job, memory that the system gets back, the cores of the process.
"""


def imported(path: Path) -> set[str]:
    """Parts of the package that a file imports, anywhere in it, by their first name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert not getattr(node, "level", 0), f"{path} imports relatively"
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("thinkslow.")}
    return found


def parts() -> dict[str, list[Path]]:
    """Every folder and module of the package, with its files."""
    folders = {path.parent.name: [*path.parent.rglob("*.py")] for path in SOURCE.glob("*/*.py")}
    modules = {path.stem: [path] for path in SOURCE.glob("*.py") if path.stem != "__init__"}
    return folders | modules


def test_every_part_of_the_package_has_its_place():
    assert set(parts()) == set(ABOVE)
    order = list(ABOVE)
    for part, allowed in ABOVE.items():
        for other in allowed.split():
            assert order.index(other) > order.index(part), f"{part} may not import {other}"


@pytest.mark.parametrize("part", ABOVE)
def test_imports_go_one_way(part):
    for path in parts()[part]:
        wrong = imported(path) - {part, *ABOVE[part].split()} - ANYWHERE
        assert not wrong, f"{path.relative_to(SOURCE)} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize(
    "package", ["", *(f".{name}" for name in ABOVE if (SOURCE / name).is_dir())]
)
def test_every_public_name_of_a_package_is_there(package):
    """Names that are loaded when asked for had moved to another module."""
    module = importlib.import_module(f"thinkslow{package}")
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name) is not None


def test_a_module_is_there_without_an_import_of_its_own(monkeypatch):
    """`thinkslow.testing.check` worked only where something else had imported it."""
    monkeypatch.delattr(thinkslow, "toy", raising=False)
    assert thinkslow.toy.__name__ == "thinkslow.toy"
    assert not hasattr(thinkslow, "no.such")
    with pytest.raises(AttributeError, match="evaluat"):
        _ = thinkslow.evaluat


@pytest.mark.parametrize("part", ABOVE)
def test_durations_are_measured_by_a_clock_that_does_not_jump(part):
    """The clock of the day is set while programs run; it is for dates alone."""
    dates = [SOURCE / "storage" / "events.py"]  # which TensorBoard shows
    for path in set(parts()[part]) - set(dates):
        found = re.findall(r"\btime\.time(?:_ns)?\(|datetime\.\w*now\(", path.read_text())
        assert not found, f"{path.relative_to(SOURCE)} calls {found[0]}...); use time.monotonic()"


@pytest.mark.parametrize("part", ABOVE)
def test_a_home_folder_is_expanded_in_one_place(part):
    """`thinkslow.save`, `gap` and `bank` in Python wrote into a folder that is called `~`."""
    for path in set(parts()[part]) - {SOURCE / "storage" / "paths.py"}:
        assert "expanduser" not in path.read_text(), f"{path}: use thinkslow.storage.paths.expanded"
