"""Episodes that fail, ignore their seed, change between arms, have no end or odd rewards."""

import json
import math
from typing import Any

import numpy as np
import pytest
from evaluating import GUESSERS, guessed, rows, rows_of, score
from odd_episodes import id_of
from odd_players import Guesser

from thinkslow.cli.results import progress, show_result
from thinkslow.evaluation import Failing, evaluate, read
from thinkslow.evaluation.seeds import episode_seed

pytestmark = pytest.mark.usefixtures("environments")


def test_crashed_episodes_are_left_out_with_their_pairs_and_say_why():
    result = guessed("FailsOnce")
    crashed = [row for row in rows(result) if row["crashed"]]
    failing = [index for index in range(9) if episode_seed(0, index) % 3 == 0]
    assert {row["episode"] for row in crashed} == set(failing)
    assert all("the door is gone" in row["error"] for row in crashed)
    assert score(result)["pairs"] == 9 - len(failing)
    assert score(result)["dropped"] == len(failing)
    whole = [row for row in rows_of(result, "none") if not row["crashed"]]
    arm = result.summary["arms"][0]
    assert arm["score"]["mean"] == pytest.approx(np.mean([row["score"] for row in whole]))
    assert arm["crashed"] == len(failing)
    (note,) = result.summary["notes"]
    assert f"{2 * len(failing)} of 18 episodes" in note
    assert "the door is gone" in note


@pytest.mark.usefixtures("quick")
def test_an_environment_that_mostly_fails_ends_the_evaluation_with_its_error(tmp_path):
    with pytest.raises(Failing, match="the door is gone"):
        guessed("Fails", out=tmp_path / "out")
    assert all(one.crashed for one in read(tmp_path / "out").episodes)


@pytest.mark.usefixtures("quick")
def test_a_reward_that_is_no_number_costs_its_own_pair_alone():
    result = guessed("NanReward")
    bad = [index for index in range(9) if episode_seed(0, index) % 3 == 0]
    for row in rows(result):
        strange = row["episode"] in bad
        assert (row["score"] is None) == strange
        assert bool(row["nonfinite_first"] and "step 5" in row["nonfinite_first"]) == strange
    assert (score(result)["pairs"], score(result)["dropped"]) == (9 - len(bad), len(bad))
    (length,) = (row for row in result.comparisons if row["metric"] == "length")
    assert (length["pairs"], length["dropped"]) == (9, 0)
    assert f"{2 * len(bad)} of 18 episodes" in result.summary["notes"][0]
    json.dumps(result.summary, allow_nan=False)


@pytest.mark.usefixtures("quick")
def test_an_environment_that_ignores_its_seed_is_told_and_compared_unpaired(caplog):
    result = guessed("Unseeded")
    assert sum("ignores its seed" in line for line in caplog.messages) == 1
    assert any("ignores its seed" in note for note in result.summary["notes"])
    row = score(result)
    assert (row["paired"], row["correlation"]) == (False, None)
    base, bold = ([r["score"] for r in rows_of(result, arm)] for arm in GUESSERS)
    assert row["difference"] == pytest.approx(np.mean(bold) - np.mean(base))
    assert row["interval_low"] < row["difference"] < row["interval_high"]


@pytest.mark.usefixtures("quick")
def test_running_averages_begin_anew_with_every_arm(caplog):
    """They were said to ignore their seed, and arms were compared unpaired."""
    result = guessed("Averages")
    for said in (caplog.messages[0], result.summary["notes"][0]):
        assert "keeps something from one episode to the next, such as running averages" in said
    assert score(result)["paired"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("name", "times"), [("Warms", 1), ("Fades", 1), ("Vector", 0), ("FailsOnce", 0)]
)
def test_an_environment_that_changes_between_arms_is_told(name, times, caplog):
    """Each arm got more than the one before it, and nothing told that this was no merit."""
    result = guessed(name)
    assert sum("does not repeat an episode" in line for line in caplog.messages) == times
    notes = " ".join(result.summary["notes"])
    assert ("Every further arm begins in new processes" in notes) == bool(times)


@pytest.mark.usefixtures("quick")
def test_arms_of_an_environment_that_keeps_something_begin_alike(caplog):
    """Of two arms that do the same, the second got 36 more: the environment paid it for the first.

    It was a note beside a verdict.
    """
    alike: dict[str, Any] = {"none": Guesser(), "one": Guesser(), "other": Guesser()}
    result = evaluate(alike, id_of("Warms"), episodes=6, seed=0, batch=2)
    found = [row for row in result.comparisons if row["metric"] == "score"]
    assert [row["difference"] for row in found] == [0.0, 0.0]
    assert "In a new process it does" in caplog.messages[0]


@pytest.mark.usefixtures("quick")
def test_an_environment_that_follows_from_no_seed_does_not_in_a_new_process_either(caplog):
    result = guessed("Dices")
    (said,) = caplog.messages
    assert "draws numbers that do not follow from its seed" in said
    assert "their difference may come from this" in " ".join(result.summary["notes"])


@pytest.mark.usefixtures("quick")
def test_of_a_long_episode_the_beginning_is_compared_alone(monkeypatch, caplog):
    """Episodes that never end by themselves were not compared, or as long as they took."""
    monkeypatch.setattr("thinkslow.evaluation.play.REPEATED", 2)
    guessed("Warms")
    assert (
        sum(
            "one of none, with its seed and its first 2 actions, had rewards" in line
            for line in caplog.messages
        )
        == 1
    )
    caplog.clear()
    guessed("Vector")
    assert "does not repeat" not in caplog.text


@pytest.mark.usefixtures("quick")
def test_an_episode_without_an_end_is_cut_where_one_says(caplog):
    result = guessed("Endless", max_decisions=7, episodes=2, batch=2)
    assert all(row["cut"] and row["length"] == 7 for row in rows(result))
    assert "4 of 4 episodes were cut after 7 decisions" in " ".join(result.summary["notes"])


@pytest.mark.usefixtures("quick")
def test_names_with_markup_and_escape_codes_are_shown_as_they_are(tmp_path, capsys):
    """`[/]` ended the command with an error after the whole evaluation; a title was set."""
    name = "mine[/b][link=x]\x1b]0;hi\x07"
    arms = {"none": Guesser(), "bold[/]": Guesser(prefers=2)}
    with progress() as show:
        result = evaluate({name: arms}, id_of("Vector"), episodes=4, seed=0, batch=2, show=show)
        show(name, 1, 2)
    show_result(result.summary, tmp_path / "[/page]", quiet=False)
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert all(part in said for part in ("mine[/b]", "[link=x]", "bold[/]", "[/page]"))


@pytest.mark.usefixtures("quick")
def test_tiny_rewards_are_kept_and_compared():
    result = guessed("Tiny")
    assert all(1e-9 < row["score"] < 1e-6 for row in rows(result))
    assert score(result)["difference"] > 1e-8


@pytest.mark.usefixtures("quick")
def test_an_option_without_bound_is_recorded(tmp_path):
    """When all was played, the page could not be written."""
    environment = {"id": id_of("Reaches"), "options": {"reach": math.inf}}
    result = evaluate(GUESSERS, environment, episodes=2, seed=0, batch=2, out=tmp_path)
    assert [row["score"] for row in rows(result)] == [45.0] * 4
    result.report(tmp_path)
    told = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert told["environment"]["options"] == {"reach": math.inf}
    assert read(tmp_path).header.environment["options"] == {"reach": math.inf}
