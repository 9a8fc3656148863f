"""Records as data frames and CSV files, with pandas and without."""

import csv
import json
import sys
import types

import pages
import pytest

from thinkslow.cli import numbers
from thinkslow.evaluation import result, tables
from thinkslow.evaluation.result import Evaluation
from thinkslow.zoo import located

ROWS = [{"arm": "none", "score": 1.5}, {"arm": "evidence", "score": None, "psnr": 20.0}]


def test_without_pandas_a_frame_is_the_records(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert tables.frame(ROWS) == ROWS


def test_with_pandas_a_frame_is_a_data_frame(monkeypatch):
    made = types.SimpleNamespace(DataFrame=lambda rows: ("frame", rows))
    monkeypatch.setitem(sys.modules, "pandas", made)
    assert tables.frame(ROWS) == ("frame", ROWS)


def test_a_csv_file_has_every_column_and_leaves_out_what_is_not_known(tmp_path):
    path = tables.write_csv(tmp_path / "episodes.csv", ROWS)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"arm": "none", "score": "1.5", "psnr": ""},
        {"arm": "evidence", "score": "", "psnr": "20.0"},
    ]


def test_what_a_run_logged_comes_as_two_tables(tmp_path):
    lines = [
        {"episode": {"step": 4, "score": 2.0}},
        {"step": 8, "updates": 1, "loss/total": 0.5},
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"step": 9, "upd'  # a kill cut it off
    (tmp_path / "metrics.jsonl").write_text(text)
    found = tables.training(tmp_path)
    assert found == {"episodes": [{"step": 4, "score": 2.0}], "updates": [lines[1]]}
    with pytest.raises(FileNotFoundError):
        tables.training(tmp_path / "elsewhere")


def test_episodes_are_a_table_before_anything_is_compared(tmp_path, monkeypatch):
    """Comparing takes seconds, and a table of episodes waited for it."""
    made = Evaluation(pages.evaluation(tmp_path / "out", episodes=4))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with monkeypatch.context() as alone:
        alone.setattr(result, "summarise", lambda _: pytest.fail("was compared"))
        assert len(made.frame()) == 4 * len(pages.ARMS) * len(pages.AGENTS)
    assert len(made.conclusion.splitlines()) == len(pages.AGENTS)
    assert "times as much time" in made.conclusion


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    """The pages load ~/logdir/my-dreamer, which was looked for in the working folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "agent").mkdir()
    assert located("~/agent") == numbers.path("~/agent") == tmp_path / "agent"
    pages.evaluation(tmp_path / "out", episodes=4)
    assert Evaluation("~/out").folder == tmp_path / "out"
