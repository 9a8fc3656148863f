"""The notebook runs from its first cell to its last, on a small agent made here."""

import json
from pathlib import Path

import pytest
from helpers import tiny_dreamer

from thinkslow.saved import folder as saved
from thinkslow.spaces import Space

NOTEBOOK = Path(__file__).parents[1] / "examples" / "from_run_to_figure.ipynb"
if not NOTEBOOK.exists():
    pytest.skip("the examples are not beside the tests", allow_module_level=True)


def cells(kind: str) -> list[str]:
    found = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def test_every_cell_of_the_notebook_is_python_without_stored_output():
    for number, source in enumerate(cells("code")):
        compile(source, f"cell {number}", "exec")
    stored = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") for cell in stored)


@pytest.mark.slow
def test_the_notebook_makes_its_figure(tmp_path, monkeypatch):
    for package in ("matplotlib", "pandas"):
        pytest.importorskip(package, reason="the group docs has it")
    import matplotlib as mpl

    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    agent = tiny_dreamer(
        observations={"vector": Space((4,), "float32")}, actions={"action": Space((), "int32", 2)}
    )
    place = {"id": "CartPole-v1", "size": 16, "repeat": 1}
    saved.save(
        tmp_path / "agent",
        agent,
        name="tiny",
        environment=place,
        training={"steps": 0, "seed": 0, "preset": None},
    )
    first, *rest = cells("code")
    known: dict = {}
    exec(first, known)
    known |= {"RUN": str(tmp_path / "agent"), "EPISODES": 3, "OUT": str(tmp_path / "out")}
    known["ARMS"] = ["evidence", "control-mode"]
    for source in rest:
        exec(source, known)
    assert (tmp_path / "figure.pdf").stat().st_size > 1000
    assert set(known["episodes"]["arm"]) == {"none", "evidence", "control-mode"}
    assert len(known["episodes"]) == 9
