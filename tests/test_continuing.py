"""Evaluations that stop and go on, and folders of another evaluation."""

import importlib
import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from evaluating import (
    ENVIRONMENT,
    GUESSERS,
    Stopped,
    dreamer,
    guessed,
    lines,
    score,
    stopping_after,
    table,
    told,
)
from helpers import with_random_weights
from odd_episodes import id_of
from odd_players import Guesser

from thinkslow.agent.agent import Agent
from thinkslow.evaluation import Evaluation, Occupied, evaluate, read
from thinkslow.evaluation.subjects import settings
from thinkslow.storage.lock import Locked, claim

pytestmark = pytest.mark.usefixtures("environments")


@pytest.mark.usefixtures("quick")
def test_an_arm_of_other_numbers_is_another_evaluation(tmp_path):
    guessed("Vector", out=tmp_path, episodes=2)
    other = GUESSERS | {"bold": Guesser(prefers=1)}
    with pytest.raises(Occupied, match="numbers of bold"):
        evaluate(other, id_of("Vector"), episodes=2, seed=0, batch=3, out=tmp_path)


class Unready(Guesser):
    """An agent whose code fails, until it is edited."""

    def act(self, *given: Any, **named: Any) -> Any:
        if self.prefers == 2:
            raise ArithmeticError("not yet")
        return super().act(*given, **named)


@pytest.mark.usefixtures("quick")
def test_an_arm_that_failed_may_be_edited_and_played_in_the_same_folder(tmp_path):
    """Each attempt at a term of one's own needed another folder, with the base arm played again."""
    settings: dict[str, Any] = {"episodes": 2, "seed": 0, "batch": 3, "out": tmp_path}
    with pytest.raises(ArithmeticError):
        evaluate({"none": Guesser(), "mine": Unready(prefers=2)}, id_of("Vector"), **settings)
    before = read(tmp_path).episodes
    result = evaluate({"none": Guesser(), "mine": Unready(prefers=1)}, id_of("Vector"), **settings)
    assert len(result.episodes) == 4
    assert result.records.episodes[:2] == before
    with pytest.raises(Occupied, match="numbers of mine"):
        evaluate({"none": Guesser(), "mine": Unready(prefers=0)}, id_of("Vector"), **settings)


def test_an_arm_whose_code_was_edited_is_another_arm(tmp_path, monkeypatch):
    """A stopped evaluation went on with an edited term as if it were the same."""
    monkeypatch.syspath_prepend(tmp_path)

    def code(body: str, below: str = "") -> str:
        name = f"edited_{len(list(tmp_path.iterdir()))}"
        text = f"from odd_players import Guesser\n\n\nclass Mine(Guesser):\n    {body}\n{below}"
        (tmp_path / f"{name}.py").write_text(text)
        found = settings("agent", "mine", importlib.import_module(name).Mine(prefers=1))["code"]
        assert found is not None
        return found

    once = code("seen = 1")
    assert code("seen = 1", below="EPISODES = 3\n") == once
    assert code("seen = 2") != once
    assert settings("agent", "none", Agent(dreamer()))["code"] is None


@pytest.mark.usefixtures("quick")
def test_a_clock_that_jumps_changes_no_evaluation(request):
    calm = guessed("Vector", episodes=3)
    request.getfixturevalue("jumping_clock")
    jumped = guessed("Vector", episodes=3)
    assert told(jumped.episodes) == told(calm.episodes)
    assert not any(row["crashed"] for row in jumped.episodes)


@pytest.mark.usefixtures("quick")
def test_an_interrupted_evaluation_goes_on_and_ends_as_if_it_never_stopped(tmp_path):
    whole = guessed("Lengths", out=tmp_path / "whole")
    out = tmp_path / "out"
    for episodes in (3, 6, 15):
        with pytest.raises(Stopped):
            guessed("Lengths", out=out, show=stopping_after(episodes))
        found = read(out)
        assert not found.finished
        assert len(found.episodes) == episodes
    again = guessed("Lengths", out=out)
    assert told(again.episodes) == told(whole.episodes)
    assert table(again) == table(whole)
    assert len(again.records.header.sittings) == 4


@pytest.mark.usefixtures("quick")
def test_the_report_of_an_interrupted_evaluation_says_how_far_it_went(tmp_path):
    with pytest.raises(Stopped):
        guessed("Lengths", out=tmp_path, show=stopping_after(12))
    result = Evaluation(tmp_path)
    assert "12 of 18 episodes" in " ".join(result.summary["notes"])
    assert score(result)["pairs"] == 3
    assert "12 of 18 episodes" in result.report().read_text()


@pytest.mark.usefixtures("quick")
def test_a_line_that_a_kill_cut_off_is_played_again(tmp_path):
    with pytest.raises(Stopped):
        guessed("Vector", out=tmp_path, show=stopping_after(6))
    path = tmp_path / "episodes.jsonl"
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    for cut in (1, 30, len(lines[-1]) - 1):
        path.write_bytes(content[:-cut])
        assert len(read(tmp_path).episodes) == len(lines) - 1
    path.write_bytes(content[:-30])
    again = guessed("Vector", out=tmp_path)
    assert told(again.episodes) == told(guessed("Vector").episodes)


@pytest.mark.usefixtures("quick")
def test_finished_and_other_evaluations_are_never_touched(tmp_path):
    guessed("Vector", out=tmp_path, episodes=3)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(guessed("Vector", out=tmp_path, episodes=3).episodes) == 6
    with pytest.raises(Occupied, match=r"holds this evaluation.*another folder"):
        guessed("Vector", out=tmp_path, episodes=3, resume=False)
    for other, said in (
        ({"episodes": 2}, "episodes is 3, not 2"),
        ({"seed": 5}, "seed is 0, not 5"),
        ({"max_decisions": 3}, "max-decisions is None, not 3"),
    ):
        with pytest.raises(Occupied, match=f"holds another evaluation.*{said}.*another folder"):
            guessed("Vector", out=tmp_path, **{"episodes": 3, **other})
    with pytest.raises(Occupied, match=r"its environment differs \(id is"):
        guessed("Lengths", out=tmp_path, episodes=3)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "theirs", ["metrics.jsonl", "study.json", "bank.json", "moments.jsonl", "weights.safetensors"]
)
def test_the_folder_of_another_kind_of_result_is_refused(tmp_path, theirs):
    """An evaluation was written into an unfinished study, which then refused to continue."""
    (tmp_path / theirs).write_text("of days")
    with pytest.raises(Occupied, match=f"holds {theirs}, of .*another folder"):
        guessed("Vector", out=tmp_path, episodes=3)
    assert [path.name for path in tmp_path.iterdir()] == [theirs]


@pytest.mark.usefixtures("quick")
def test_a_finished_evaluation_goes_on_to_more_episodes(tmp_path):
    guessed("Lengths", out=tmp_path, episodes=4)
    longer = guessed("Lengths", out=tmp_path)
    assert told(longer.episodes) == told(guessed("Lengths").episodes)


@pytest.mark.usefixtures("quick")
def test_an_unfinished_evaluation_is_gone_on_with_only_if_that_is_wanted(tmp_path):
    with pytest.raises(Stopped):
        guessed("Vector", out=tmp_path, show=stopping_after(3))
    with pytest.raises(Occupied, match="3 of 18 episodes"):
        guessed("Vector", out=tmp_path, resume=False)


def test_an_agent_of_other_weights_is_another_evaluation(tmp_path):
    environment = {"id": ENVIRONMENT["id"], "size": 16}
    model = dreamer()
    with pytest.raises(Stopped):
        evaluate(
            {"none": Agent(model)},
            environment,
            episodes=2,
            seed=0,
            batch=1,
            out=tmp_path,
            show=stopping_after(1),
        )
    changed = with_random_weights(model, 1)
    with pytest.raises(Occupied, match=r"its agents differ \(weights of agent\)"):
        evaluate({"none": Agent(changed)}, environment, episodes=2, seed=0, batch=1, out=tmp_path)


@pytest.mark.usefixtures("quick")
def test_a_second_writer_is_refused_while_the_first_plays(tmp_path):
    lock = claim(tmp_path / "out")
    try:
        with pytest.raises(Locked, match=rf"process {os.getpid()} .*another folder"):
            guessed("Vector", out=tmp_path / "out")
    finally:
        lock.release()


KILLED = """
import sys
from odd_players import Guesser, SideBySide
from thinkslow.evaluation import evaluate, protocol
protocol.VectorEnv = SideBySide
evaluate({"none": Guesser(), "bold": Guesser(prefers=2)}, sys.argv[2], episodes=9, seed=0,
         batch=2, out=sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_killed_at_any_instant_it_ends_with_the_same_table(tmp_path):
    whole = guessed("Lengths", batch=2)
    rng, out = np.random.default_rng(0), tmp_path / "out"
    for _ in range(2):
        before = lines(out)
        command = [sys.executable, "-c", KILLED, str(out), id_of("Lengths")]
        with subprocess.Popen(command) as process:
            while process.poll() is None and lines(out) == before:
                time.sleep(0.001)
            time.sleep(0.02 * rng.random())
            process.send_signal(signal.SIGKILL)
        if read(out).finished:
            break
    if not read(out).finished:
        guessed("Lengths", batch=2, out=out)
    again = Evaluation(out)
    assert told(again.episodes) == told(whole.episodes)
    assert table(again) == table(whole)
