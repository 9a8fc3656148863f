"""Who may import whom, read from the source: the direction is part of the design."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "thinkslow"
# A module imports from groups further right only (or from its own group).
ORDER = [
    {"report"}, {"evaluate"}, {"summary"}, {"agent"}, {"decision"}, {"refine"}, {"objectives"},
    {"worldmodel"}, {"distributions"}, {"nets"},
]  # fmt: skip
# `refine > objectives` is by type only; neither may import the agent.


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it, by their first name."""
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


def files(module: str) -> list[Path]:
    return [*(SOURCE / module).rglob("*.py"), *SOURCE.glob(f"{module}.py")]


@pytest.mark.parametrize("level", range(len(ORDER)))
def test_imports_go_one_way(level):
    above = set().union(*ORDER[:level])
    for module in ORDER[level]:
        found = files(module)
        assert found, f"{module} is gone: mend ORDER"
        for path in found:
            assert not imported(path) & above, f"{path.name} imports upwards"


@pytest.mark.parametrize(
    "module",
    [
        "agent",
        "decision",
        "gates",
        "deadline",
        "refine",
        "objectives",
        "worldmodel",
        "distributions",
        "nets",
        "store",
        "atomic",
        "parameters",
    ],
)
def test_the_engine_does_not_know_dreamer_environments_or_the_command_line(module):
    outer = {"dreamer", "envs", "cli", "importers", "zoo", "evaluate", "report", "arms"}
    for path in files(module):
        assert not imported(path) & outer


@pytest.mark.parametrize("module", ["thinkslow", "thinkslow.envs", "thinkslow.spaces"])
def test_what_runs_in_an_environments_process_does_not_import_jax(module):
    check = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
