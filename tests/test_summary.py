"""From records of episodes to means and paired differences, on records with known answers."""

import numpy as np
import pytest

from thinkslow.agent.presets import ARMS
from thinkslow.evaluation.summary import IMAGE, PREDICTED, summarise

CHOSEN = {name: ARMS[name] for name in ("none", "evidence", "control-mode", "control-uncarried")}


def record(agent: str, arm: str, episode: int, score: float, gain: float) -> dict:
    images = dict.fromkeys(IMAGE, 1.0)
    return {
        "agent": agent, "arm": arm, "environment_seed": episode, "score": score, "length": 9,
        **images, "gain": dict.fromkeys(IMAGE, gain), "thought_share": 0.0, "belief_kl": 0.0,
        "open_loop": {steps: images for steps in PREDICTED.values()},
        "open_loop_gain": {steps: {"psnr": 2 * gain} for steps in PREDICTED.values()},
        "crashed": episode == 0,
    }  # fmt: skip


def records(agents: dict[str, float], episodes: int = 4) -> list[dict]:
    """Each arm's score is the episode's number, plus the agent's own effect under `evidence`."""
    return [
        record(agent, arm, episode, episode + effect, effect)
        for agent, own in agents.items()
        for arm in CHOSEN
        for effect in [own * (arm == "evidence")]
        for episode in range(episodes)
    ]


def summary(agents: dict[str, float], pool: bool = False) -> dict:
    latencies = {(agent, arm): [1.0, 3.0] for agent in agents for arm in CHOSEN}
    return summarise(records(agents), CHOSEN, latencies, batch=2, seed=0, pool=pool)


def difference(found: dict, agent: str, metric: str, baseline: str = "none") -> dict:
    (row,) = [
        row
        for row in found["comparisons"]
        if (row["agent"], row["arm"], row["metric"], row["baseline"])
        == (agent, "evidence", metric, baseline)
    ]
    return row


def test_a_difference_is_the_mean_over_pairs():
    found = difference(summary({"a": 0.5}), "a", "score")
    assert found["difference"] == found["interval"][0] == found["interval"][1] == 0.5
    assert (found["pairs"], found["unit"]) == (4, "episode")


def test_a_pool_speaks_of_training_seeds_and_three_allow_no_test():
    found = summary({"a": 0.0, "b": 1.0, "c": 5.0}, pool=True)
    pooled = difference(found, "3 training seeds", "score")
    assert pooled["difference"] == 2.0
    assert (pooled["unit"], pooled["clusters"], pooled["pairs"]) == ("training seed", 3, 12)
    assert pooled["untested"] == "few training seeds"
    assert pooled["p_value"] >= 0.25
    # t of 0, 1 and 5 with two degrees of freedom: 4.303 times sqrt(7) / sqrt(3)
    np.testing.assert_allclose(pooled["interval"], [2 - 6.572, 2 + 6.572], atol=1e-3)
    arm = next(a for a in found["arms"] if a["agent"] == "3 training seeds")
    assert arm["episodes"] == 12
    assert arm["score"]["mean"] == 1.5


def test_agents_of_a_pool_are_still_told_apart():
    found = summary({"a": 0.0, "b": 1.0}, pool=True)
    assert difference(found, "a", "score")["difference"] == 0.0
    assert difference(found, "b", "score")["difference"] == 1.0


def test_predictions_are_compared_on_the_same_frames():
    assert difference(summary({"a": 0.5}), "a", "psnr+3")["difference"] == 1.0


def test_predictions_that_short_episodes_lack_are_not_compared():
    rows = records({"a": 0.5})
    for row in rows:
        if row["environment_seed"] == 0:
            del row["open_loop_gain"]["8"]
    latencies = {("a", arm): [1.0] for arm in CHOSEN}
    found = summarise(rows, CHOSEN, latencies, batch=2, seed=0)
    metrics = {row["metric"] for row in found["comparisons"]}
    assert "psnr+3" in metrics
    assert "psnr+8" not in metrics


@pytest.mark.parametrize("metric", [*IMAGE, *PREDICTED])
def test_not_carrying_is_no_control_of_what_a_state_shows(metric):
    """It shows a refined state like the arm it copies: to match it was no failure to beat it."""
    found = [row for row in summary({"a": 0.5})["comparisons"] if row["metric"] == metric]
    assert {row["baseline"] for row in found} == {"none", "control-mode"}
    assert "control-uncarried" not in {row["arm"] for row in found}


def test_crashed_episodes_are_counted():
    assert all(arm["crashed"] == 1 for arm in summary({"a": 0.5})["arms"])


def test_milliseconds_of_a_pool_are_those_of_all_its_agents():
    found = summary({"a": 0.0, "b": 1.0}, pool=True)
    assert all(arm["latency_ms"]["median"] == 2.0 for arm in found["arms"])
