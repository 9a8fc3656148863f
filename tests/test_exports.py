"""Tables as files, TensorBoard, Weights & Biases and trackio.

The trackers are stood in for, and tried as they are where they are installed.
"""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import studies
from pages import evaluation
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

from thinkslow.cli import main, train
from thinkslow.cli.exports import Showing, of_evaluation, of_study
from thinkslow.cli.usage import Usage
from thinkslow.dreamer.training.logs import Logs
from thinkslow.evaluation import Evaluation, tables
from thinkslow.storage.events import Events

TRACKERS = ("wandb", "trackio")


class Run:
    def __init__(self, **given: Any):
        self.given, self.logged, self.ended = given, [], False

    def log(self, values: dict, step: int | None = None) -> None:
        print("a tracker says something")
        self.logged.append((values, step))

    def finish(self) -> None:
        self.ended = True


@pytest.fixture(params=TRACKERS)
def tracker(request, monkeypatch) -> tuple[str, list[Run]]:
    """The name of a package that is stood in for, and the runs that were begun."""
    begun: list[Run] = []

    def init(**given: Any) -> Run:
        begun.append(Run(**given))
        return begun[-1]

    table = lambda columns, data: {"columns": columns, "data": data}  # noqa: E731
    monkeypatch.setitem(sys.modules, request.param, SimpleNamespace(init=init, Table=table))
    return request.param, begun


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluation(tmp_path_factory.mktemp("evaluation") / "out", episodes=6)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("study") / "out"
    return studies.folder(place, studies.QUICK | {"episodes": 8})


def asking(package: str) -> Showing:
    asked: dict[str, Any] = {package: "mine"}
    return Showing(**asked)


def export(folder: Path, **asked: Any) -> None:
    """What the flags of `evaluate` do once it is played."""
    Showing(**asked).export(of_evaluation(Evaluation(folder)))


def test_a_training_run_tells_every_finite_scalar_by_decision(tracker, tmp_path):
    package, runs = tracker
    logs = Logs(tmp_path)
    logs.writers.extend(asking(package).trackers(tmp_path, {"seed": 3}))
    scalars = {"score": 2.5, "loss/total": float("nan")}
    logs.write({"step": 8} | scalars, scalars, 8)
    logs.close()
    (run,) = runs
    assert run.given["project"] == "mine"
    assert run.given["config"] == {"seed": 3}
    assert run.logged == [({"score": 2.5}, 8)]
    assert run.ended


def test_an_evaluation_is_two_tables_and_the_means_of_its_arms(tracker, evaluated):
    package, runs = tracker
    export(evaluated, **{package: "mine"})
    (run,) = runs
    summary = json.loads((evaluated / "summary.json").read_text())
    (episodes, _), (comparisons, _), (means, _) = run.logged
    assert len(episodes["episodes"]["data"]) == summary["played"]
    assert len(comparisons["comparisons"]["data"]) == len(summary["comparisons"])
    first = summary["arms"][0]
    assert means[f"{first['agent']}/{first['arm']}/score"] == first["score"]["mean"]
    assert run.ended


def test_a_study_is_three_tables(tracker, study, capsys):
    package, runs = tracker
    assert main(["report", str(study), f"--{package}", "mine", "--json"]) == 0
    (run,) = runs
    result = json.loads(capsys.readouterr().out)  # what the tracker printed is not among it
    logged = {name: value for values, _ in run.logged for name, value in values.items()}
    hypotheses = logged["hypotheses"]
    row = dict(zip(hypotheses["columns"], hypotheses["data"][0], strict=True))
    assert (row["name"], row["verdict"]) == ("H", result["hypotheses"][0]["verdict"])
    assert "partial/clean/partial-0/evidence/score" in logged
    assert len(logged["episodes"]["data"]) == 2 * 8


@pytest.mark.parametrize("package", [*TRACKERS, "pyarrow"])
def test_without_the_package_the_flag_says_how_to_install_it(package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    given = ["--parquet"] if package == "pyarrow" else [f"--{package}", "mine"]
    with pytest.raises(Usage, match="install"):
        train.parse(["CartPole-v1", "--steps", "9", *given]).check_exports()
    for command in (["report", "out"], ["study", "quick"], ["evaluate", "collect-half"]):
        assert main([*command, *given]) == 2
        assert package in capsys.readouterr().err


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars of an event file by tag, read as the format says: length, check, event, check."""
    found: dict[str, list[tuple[int, float]]] = {}
    (path,) = folder.glob("events.*")
    content = path.read_bytes()
    while content:
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard_has_a_run_for_each_arm_and_the_means_as_a_table(evaluated):
    export(evaluated, tensorboard=True)
    summary = json.loads((evaluated / "summary.json").read_text())
    arm = next(one for one in summary["arms"] if one["arm"] == "sig")
    run = evaluated / "tensorboard" / f"{arm['agent']}-sig"
    scores = events(run)["episode/score"]
    assert [step for step, _ in scores] == list(range(6))
    assert sum(score for _, score in scores) / 6 == pytest.approx(arm["score"]["mean"])
    means = events(run / "means")
    assert means["mean/score"][0][1] == pytest.approx(arm["score"]["mean"])
    assert any(tag.startswith("_hparams_") for tag in means)


def test_tensorboard_of_a_study_is_written_anew(study):
    for _ in range(2):
        assert main(["report", str(study), "--tensorboard"]) == 0
    runs = {path.name for path in (study / "tensorboard").iterdir()}
    assert runs == {"partial-clean-partial-0-none", "partial-clean-partial-0-evidence"}
    assert len(events(study / "tensorboard" / "partial-clean-partial-0-none")["episode/score"]) == 8


def test_events_that_are_not_whole_replace_none(study, monkeypatch):
    assert main(["report", str(study), "--tensorboard"]) == 0
    before = sorted(study.rglob("tensorboard/**/events.*"))
    monkeypatch.setattr(Events, "add_scalar", lambda *_: 1 / 0)
    assert main(["report", str(study), "--tensorboard"]) == 1
    assert sorted(study.rglob("tensorboard/**/events.*")) == before
    assert not list(study.glob(".*"))


def test_a_study_is_written_as_csv(study):
    assert main(["report", str(study), "--csv"]) == 0
    names, first, *_ = (study / "hypotheses.csv").read_text().splitlines()
    assert names.split(",")[:2] != first.split(",")[:2]
    assert (study / "episodes.csv").read_text().startswith("group,setting,agent,arm")


def test_parquet_holds_the_records_of_an_evaluation_and_of_a_study(evaluated, study):
    parquet = pytest.importorskip("pyarrow.parquet")
    export(evaluated, parquet=True)
    assert main(["report", str(study), "--parquet"]) == 0
    for folder in (evaluated, study):
        lines = (folder / "episodes.jsonl").read_text().splitlines()
        rows = parquet.read_table(folder / "episodes.parquet").to_pylist()
        for row, line in zip(rows, lines, strict=True):
            known = json.loads(line)
            assert {name: row[name] for name in known} == known
    result = json.loads((study / "result.json").read_text())
    table = of_study(result, study).tables["hypotheses"]
    assert parquet.read_table(study / "hypotheses.parquet").to_pylist() == [*table]


def test_parquet_takes_rows_of_other_columns(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tables.write_parquet(tmp_path / "a.parquet", [{"x": 1}, {"x": 2.5, "y": "b"}, {}])
    assert parquet.read_table(path).to_pylist() == [
        {"x": 1.0, "y": None},
        {"x": 2.5, "y": "b"},
        {"x": None, "y": None},
    ]


@pytest.mark.slow
def test_trackio_itself_takes_a_study_and_a_training_run(study, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    assert main(["report", str(study), "--trackio", "mine"]) == 0
    with_training("trackio", tmp_path)
    from trackio.sqlite_storage import SQLiteStorage  # pyright: ignore[reportMissingImports]

    assert set(SQLiteStorage.get_runs("mine")) == {study.name, "run"}


@pytest.mark.slow
def test_wandb_itself_takes_a_study_and_a_training_run(study, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    pytest.importorskip("wandb")
    assert main(["report", str(study), "--wandb", "mine"]) == 0
    with_training("wandb", tmp_path)
    for folder in (study, tmp_path / "run"):
        (log,) = folder.glob("wandb/offline-run-*/*.wandb")
        deadline = time.monotonic() + 30  # another process writes it
        while log.stat().st_size < 500 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert log.stat().st_size > 500


def with_training(package: str, folder: Path) -> None:
    (folder / "run").mkdir()
    logs = Logs(folder / "run")
    logs.writers.extend(asking(package).trackers(folder / "run", {"seed": 3}))
    for step in (8, 16):
        logs.write({"step": step}, {"score": float(step)}, step)
    logs.close()


def test_a_run_is_written_as_csv(tmp_path):
    lines = [{"episode": {"step": 4, "score": 2.0}}, {"step": 8, "updates": 1}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = ["CartPole-v1", "--steps", "9", "--csv", "--run", str(tmp_path)]
    train.write_tables(train.parse(asked))
    assert (tmp_path / "updates.csv").read_text() == "step,updates\n8,1\n"
    assert (tmp_path / "episodes.csv").read_text() == "step,score\n4,2.0\n"
