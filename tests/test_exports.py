"""Weights & Biases and CSV, with a stand-in for the package wandb."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from thinkslow.cli import exports, main, train
from thinkslow.cli.common import Usage
from thinkslow.dreamer.training.logs import Logs


class Run:
    def __init__(self, **given: Any):
        self.given, self.logged, self.summary, self.ended = given, [], {}, False

    def log(self, values: dict, step: int | None = None) -> None:
        self.logged.append((values, step))

    def finish(self) -> None:
        self.ended = True


@pytest.fixture
def runs(monkeypatch) -> list[Run]:
    begun: list[Run] = []

    def init(**given: Any) -> Run:
        begun.append(Run(**given))
        return begun[-1]

    table = lambda columns, data: {"columns": columns, "data": data}  # noqa: E731
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Table=table))
    return begun


def test_a_training_run_tells_every_finite_scalar_by_decision(runs, tmp_path):
    logs = Logs(tmp_path)
    logs.writers.append(exports.Wandb("mine", tmp_path, {"seed": 3}))
    scalars = {"score": 2.5, "loss/total": float("nan")}
    logs.write({"step": 8} | scalars, scalars, 8)
    logs.close()
    (run,) = runs
    assert run.given["project"] == "mine"
    assert run.given["config"] == {"seed": 3}
    assert run.logged == [({"score": 2.5}, 8)]
    assert run.ended


def test_an_evaluation_is_two_tables_and_the_means_of_its_arms(runs):
    arm = {"agent": "a", "arm": "none", "score": {"mean": 4.0}, "belief_kl": 0.5, "psnr": None}
    result = SimpleNamespace(
        folder=Path("out/mine"), episodes=[{"score": 1.0}, {"length": 2}], comparisons=[],
        summary={"arms": [arm]},
    )  # fmt: skip
    exports.log_evaluation("mine", result)
    (run,) = runs
    table = run.logged[0][0]["episodes"]
    assert table == {"columns": ["score", "length"], "data": [[1.0, None], [None, 2]]}
    assert run.summary == {"a/none/score": 4.0, "a/none/belief_kl": 0.5}
    assert run.ended


def test_without_the_package_the_flag_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(Usage, match="install"):
        train.parse(["CartPole-v1", "--steps", "9", "--wandb", "mine"]).check_wandb()
    assert main(["report", "out", "--wandb", "mine"]) == 2
    assert "wandb" in capsys.readouterr().err


def test_a_run_is_written_as_csv(tmp_path):
    lines = [{"episode": {"step": 4, "score": 2.0}}, {"step": 8, "updates": 1}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    train.write_tables(tmp_path)
    assert (tmp_path / "updates.csv").read_text() == "step,updates\n8,1\n"
    assert (tmp_path / "episodes.csv").read_text() == "step,score\n4,2.0\n"
