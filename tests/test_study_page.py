"""The page of a study: verdicts first, figures with their numbers, and no empty ones."""

import base64
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import studies

from thinkslow.cli import main
from thinkslow.cli.study import show_result
from thinkslow.evaluation.reading import Estimate
from thinkslow.evaluation.report.scale import Scale
from thinkslow.study import finish
from thinkslow.study.data import Data
from thinkslow.study.scatter import logarithmic, scatter
from thinkslow.study.sweeps import sweeps

SECTIONS = ["hypotheses", "effects", "return", "settings", "budgets", "power", "arms"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return studies.folder(tmp_path_factory.mktemp("study") / "out", studies.ROLLOUTS)


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return studies.folder(tmp_path_factory.mktemp("short") / "out", studies.QUICK)


def headings(page: str) -> list[str]:
    return re.findall(r'<h2 id="(\w+)"', page)


def downloads(page: str) -> dict[str, list[dict[str, str]]]:
    """Every CSV file of a page, by its name."""
    found = re.findall(
        r'download="(.*?)\.csv" href="data:text/csv;charset=utf-8;base64,(.*?)"', page
    )
    return {
        name: list(csv.DictReader(io.StringIO(base64.b64decode(text).decode())))
        for name, text in found
    }


def test_the_verdicts_come_first_each_with_its_reason(page, result):
    assert headings(page) == ["verdict", *SECTIONS, "plan", "provenance"]
    top = page[: page.index("<nav")]
    for one in result["hypotheses"]:
        assert one["name"] in top
        assert one["claim"] in top
        assert one["why"] in top.replace("&#39;", "'")
    assert [each.split()[-1] for each in re.findall(r"</span> ([a-z ]+)</strong>", top)] == [
        one["verdict"].split()[-1] for one in result["hypotheses"]
    ]


def test_what_the_plan_does_not_ask_is_left_out(short):
    page = (short / "report.html").read_text()
    assert headings(page) == [
        "verdict",
        "hypotheses",
        "effects",
        "return",
        "power",
        "arms",
        "plan",
        "provenance",
    ]
    assert "Along one setting" not in page


def test_every_figure_has_its_numbers_as_a_table_and_a_file(page, result):
    files = downloads(page)
    assert page.count("<figure") == page.count("Numbers: ") // 2 == len(files)
    (cell,) = (c for c in result["cells"] if (c["group"], c["setting"]) == ("partial", "clean"))
    rows = {row["arm"]: row for row in files["effects-score-partial-clean"]}
    for record in cell["comparisons"]:
        if (record["metric"], record["baseline"]) == ("score", "none"):
            row = rows[record["arm"]]
            assert float(row["difference"]) == record["difference"]
            assert [float(row["low"]), float(row["high"])] == record["interval"]
    costs = {row["arm"]: float(row["ms"]) for row in files["return-partial-clean"]}
    assert costs == {arm["arm"]: arm["latency_ms"]["mean"] for arm in cell["arms"]}
    assert f"{rows['evidence']['difference'][:4]}" in page


def test_rollouts_are_drawn_by_group_and_budgets_by_training_steps(page):
    files = downloads(page)
    assert [row["imagined steps (length of the rollout)"] for row in files["horizon-sig"][:3]] == [
        "1.0",
        "3.0",
        "8.0",
    ]
    assert {row["line"] for row in files["horizon-sig"]} == {
        "partial, clean",
        "informed, clean",
        "early, clean",
        "partial, dropped",
    }
    budgets = {float(row["training steps (decisions)"]) for row in files["budgets-clean"]}
    assert budgets == {12_000, 60_000}


def test_every_number_has_the_command_that_makes_it(page, folder, result):
    assert result["command"] in page
    assert page.count(f"thinkslow report {folder}") >= len(downloads(page)) + 1
    for hash in (result["plan"]["hash"], result["code"]):
        assert hash in page


def test_the_page_loads_and_runs_nothing(page):
    assert "<script" not in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!#|data:|https://arxiv.org)', page)
    ids = re.findall(r' id="(.*?)"', page)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'href="#(.*?)"', page)) <= set(ids)


def test_an_unfinished_study_says_so_and_shows_what_there_is(tmp_path):
    folder = studies.folder(tmp_path / "out", studies.QUICK, blocks=1)
    page = (folder / "report.html").read_text()
    assert "not finished" in page
    assert "H" in page


def test_a_study_of_which_nothing_was_played_has_a_page(tmp_path):
    folder = studies.folder(tmp_path / "out", studies.QUICK, blocks=0)
    page = (folder / "report.html").read_text()
    assert headings(page) == ["verdict", "plan", "provenance"]
    assert "not shown" in page


def test_names_are_escaped(tmp_path):
    claim = 'a <b>bold</b> & "quoted" claim with `code`'
    hypothesis = {**studies.QUICK["hypotheses"][0], "claim": claim, "name": "<i>H"}
    question = "<script>alert(1)</script>?"
    plan = {**studies.QUICK, "question": question, "hypotheses": [hypothesis]}
    page = (studies.folder(tmp_path / "out", plan, blocks=1) / "report.html").read_text()
    assert "<script>" not in page
    assert "<b>bold" not in page
    assert "<i>H" not in page


def test_seeds_are_pooled_and_each_is_a_dot(tmp_path):
    folder = studies.folder(tmp_path / "out", {**studies.QUICK, "episodes": 8}, seeds=6)
    page = (folder / "report.html").read_text()
    effects = page[page.index('id="effects"') : page.index('id="return"')]
    assert effects.count('class="dot"') == 6
    assert "6 training seeds" in page


def test_report_makes_a_study_anew(short, capsys):
    before = (short / "report.html").read_text()
    (short / "report.html").unlink()
    (short / "result.json").unlink()
    assert main(["report", str(short)]) == 0
    assert (short / "report.html").read_text() == before
    assert "report.html" in capsys.readouterr().out.replace("\n", "")


def test_what_limits_the_numbers_is_told_under_the_tables(short, capsys):
    """A verdict of an environment that changed between two arms stood alone in the terminal."""
    result = json.loads((short / "result.json").read_text())
    for cell in result["cells"]:
        cell["notes"] = ["It does not repeat [an episode]."]
    show_result(result)
    assert capsys.readouterr().out.count("It does not repeat [an episode].") == 1


def test_records_of_all_cells_are_lines_of_json(folder):
    rows = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    assert len(rows) == 4 * 7 * 24
    assert {(row["group"], row["setting"]) for row in rows} == {
        ("partial", "clean"),
        ("informed", "clean"),
        ("early", "clean"),
        ("partial", "dropped"),
    }


@pytest.mark.slow
def test_a_second_look_at_the_same_records_says_the_same(folder, result):
    assert json.loads(json.dumps(finish(folder))) == result


def test_series_are_of_arms_that_differ_in_one_number():
    def arm(name: str, **thinking: Any) -> dict[str, Any]:
        base = {"horizon": 3, "update": "Gradient(step_size=1000.0)", "terms": {"SIG()": 1.0}}
        return {"arm": name, "thinking": base | thinking, "gate": None, "share": None}

    found = sweeps(
        [
            arm("none", horizon=9),
            arm("sig-3"),
            arm("sig-8", horizon=8),
            arm("slow", update="Gradient(step_size=0.1)"),
            arm("adam", update="Adam(step_size=0.1)"),
            arm("control-8", horizon=16),
            {"arm": "foreign", "thinking": None},
        ]
    )
    assert [(one.setting, dict(one.arms)) for one in found] == [
        ("horizon", {"sig-3": 3.0, "sig-8": 8.0}),
        ("update.step_size", {"slow": 0.1, "sig-3": 1000.0}),
    ]
    assert found[0].name == "sig"


def test_numbers_beside_points_do_not_overlap():
    found = [("none", 2.0, Estimate(5.0, (4.0, 6.0)))] + [
        (f"control-{n}", 2.0 + 0.01 * n, Estimate(5.0 + 0.01 * n, (4.0, 6.0))) for n in range(4)
    ]
    marks = scatter("", "", "", found).marks
    places = [(4.2 * m.point.x + m.dx, 2.26 * m.point.y + m.dy) for m in marks]
    for at, (x, y) in enumerate(places):
        assert all(abs(x - a) > 10 or abs(y - b) > 9 for a, b in places[:at])


def test_a_logarithmic_axis_has_round_numbers():
    assert [tick.text for tick in logarithmic(Scale(0.3, 3.2))] == ["10", "100", "1000"]
    assert [tick.text for tick in logarithmic(Scale(0.29, 0.65))] == ["2", "3", "4"]
    assert len(logarithmic(Scale(0.31, 0.34))) >= 2


def test_what_is_not_known_is_a_dash_on_the_page_and_empty_in_the_file():
    data = Data("name", ["row", "x"], [["a", None], ["b", 1234.5678], ["c", 6e4], ["d", 1.5]])
    shown = [row.cells[0].text for row in data.table.rows]
    assert shown == ["–", "1,235", "60,000", "1.5"]  # 60,000 decisions were shown as 6e+04
    text = base64.b64decode(data.csv.partition("base64,")[2]).decode()
    assert text == "row,x\na,\nb,1234.5678\nc,60000.0\nd,1.5\n"
