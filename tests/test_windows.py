"""The protocol `paired-v2`: windows from common snapshots, against whole episodes."""

import dataclasses
from typing import Any

import jax
import jax.random as jr
import pytest
from pages import whole_episode

from thinkslow import evaluate
from thinkslow.agent.agent import Agent
from thinkslow.agent.thinking import Thinking
from thinkslow.evaluation import records, windows
from thinkslow.evaluation.blocks import Failing
from thinkslow.evaluation.summary import agreement

PLAYED: dict[str, Any] = {"episodes": 6, "seed": 3, "batch": 3, "max_decisions": 30}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Windows so short that an episode has several."""
    monkeypatch.setattr(windows, "EVERY", 4)


def of(found, arm: str) -> list[tuple]:
    return [
        (one["episode"], one["score"], one["length"], one["crashed"], one["first_observation"])
        for one in found.episodes
        if one["arm"] == arm
    ]


def tossing(agent: Agent, number: int) -> Agent:
    """Chooses by a coin. Another number is another coin: an effect of zero in the mean."""

    def policy(model: Any, state: Any, key: Any) -> Any:
        return jax.nn.one_hot(jr.bernoulli(jr.fold_in(key, number)).astype(int), 2)

    return Agent(agent.model, policy=policy, about=agent.about)


class Stop(Exception):
    pass


def test_snapshots_that_cannot_be_brought_back_are_the_reason_that_is_told(cart, tmp_path):
    """An episode without a decision has no median of milliseconds: an IndexError was all."""
    environment = {"id": "CartPole-v1", "wrappers": ["gymnasium.wrappers:NormalizeObservation"]}
    arms = {"none": cart, "same": cart.having(Thinking())}
    with pytest.raises(Failing, match="same: NotReplayed"):
        evaluate(arms, environment, out=tmp_path, protocol="paired-v2", **PLAYED)
    lost = [one for one in records.read(tmp_path).episodes if one.arm == "same"]
    assert {(one.crashed, one.length, one.latency_ms) for one in lost} == {(True, 0, None)}


@pytest.mark.slow
def test_windows_and_whole_episodes_agree_and_windows_are_less_noisy(cart, tmp_path):
    base = tossing(cart, 0)
    arms = {"none": base, "same": base.having(Thinking()), "other": tossing(cart, 1)}
    whole = evaluate(arms, "CartPole-v1", out=tmp_path / "v1", **PLAYED)
    found = evaluate(arms, "CartPole-v1", out=tmp_path / "v2", protocol="paired-v2", **PLAYED)
    assert found.records.header.protocol == "paired-v2"
    assert of(found, "none") == of(whole, "none")
    # From a snapshot, under the same random numbers, the base agent does what it did.
    assert of(found, "same") == of(found, "none")
    assert of(found, "other") != of(found, "none")
    rows = {row["arm"]: row for row in found.summary["agreement"]}
    assert rows["same"]["difference"] == 0
    assert rows["same"]["agree"]
    assert rows["other"]["episodes"] == 3  # one block of two
    assert rows["other"]["agree"]
    assert any("windows score" in note for note in found.summary["notes"])
    intervals = [
        next(
            row["interval"]
            for row in one.summary["comparisons"]
            if (row["arm"], row["metric"], row["baseline"]) == ("other", "score", "none")
        )
        for one in (whole, found)
    ]
    assert max(low for low, _ in intervals) < min(high for _, high in intervals)

    def stop(what: str, done: int, total: int) -> None:
        if "other, window 2" in what:
            raise Stop

    part = tmp_path / "part"
    with pytest.raises(Stop):
        evaluate(arms, "CartPole-v1", out=part, protocol="paired-v2", show=stop, **PLAYED)
    for name in (records.EPISODES, records.WHOLE):
        with (part / name).open("a") as file:
            file.write('{"agent"')  # what a kill cut off
    again = evaluate(arms, "CartPole-v1", out=part, protocol="paired-v2", **PLAYED)
    for arm in arms:
        assert sorted(of(again, arm)) == sorted(of(found, arm))
    assert len(again.records.whole) == len(found.records.whole) == 6
    (part / records.WHOLE).unlink()  # as after a kill between the windows and these
    assert not records.read(part).finished
    again = evaluate(arms, "CartPole-v1", out=part, protocol="paired-v2", **PLAYED)
    assert len(again.records.whole) == 6


def test_a_bias_of_windows_is_found_and_said():
    """Whole episodes that score 3 more than windows of the same seeds do not agree with them."""
    windowed = [whole_episode("one", "arm", number, 5.0 + number % 3) for number in range(9)]
    whole = [dataclasses.replace(one, score=(one.score or 0) + 3) for one in windowed]
    (row,) = agreement(windowed, whole, seed=0)
    assert row["difference"] == pytest.approx(-3.0)
    assert row["agree"] is False
    (row,) = agreement(windowed, windowed[:1], seed=0)
    assert row["agree"] is None


@pytest.mark.usefixtures("untyped")
def test_an_arm_that_cannot_begin_at_a_snapshot_is_refused(cart, tmp_path):
    arms = {"none": cart, "lag": cart.having(Thinking(lag=2))}
    with pytest.raises(ValueError, match=r"lag cannot begin .*paired-v1"):
        evaluate(arms, "CartPole-v1", protocol="paired-v2", out=tmp_path / "a", **PLAYED)
    with pytest.raises(ValueError, match="paired-v1, paired-v2; got 'paired-v3'"):
        evaluate({"none": cart}, "CartPole-v1", protocol="paired-v3", out=tmp_path, **PLAYED)  # pyright: ignore
    with pytest.raises(ValueError, match="`real_time_ms` must be None; got 5"):
        evaluate(
            {"none": cart},
            "CartPole-v1",
            protocol="paired-v2",
            real_time_ms=5.0,
            out=tmp_path,
            **PLAYED,
        )
