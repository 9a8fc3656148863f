"""From records of episodes to means and differences, on records with known answers."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from pages import whole_episode

from thinkslow.evaluation import statistics
from thinkslow.evaluation.metrics import METRICS, image_columns
from thinkslow.evaluation.records import Header, Records
from thinkslow.evaluation.summary import flat, summarise

ARMS = ("none", "evidence", "control-mode", "control-uncarried")
COMPARED = [name for name, metric in METRICS.items() if metric.effect is not None]
OF_STATES = [name for name in COMPARED if METRICS[name].of_states]


def episode(agent: str, arm: str, number: int, score: float | None, gain: float = 0.0, **more: Any):
    images = {c: gain if "gain" in c else 1.0 for c in image_columns()}
    latencies = {"latency_ms_mean": 3.0, "latency_ms_p10": 1.0, "latency_ms_p90": 5.0}
    facts = {"environment_seed": 100 + number, "length": 9, "images": images, **latencies}
    return whole_episode(agent, arm, number, score, latency=2.0, **facts | more)


def records(agents: dict[str, float], episodes: int = 4, **changes: Any) -> Records:
    """Each arm's score is the episode's number, plus the agent's own effect under `evidence`."""
    played = [
        episode(agent, arm, number, number + effect, effect)
        for agent, own in agents.items()
        for arm in ARMS
        for effect in [own * (arm == "evidence")]
        for number in range(episodes)
    ]
    settings: dict[str, Any] = {
        "protocol": "paired-v1",
        "environment": {"id": "some/Env-v0", "size": 64, "repeat": 1},
        "agents": [{"name": agent} for agent in agents],
        "episodes": episodes,
        "seed": 0,
        "arms": [{"agent": agent, "arm": arm} for agent in agents for arm in ARMS],
        "batch": 2,
        "max_decisions": None,
        "pool": False,
        "versions": {},
        "curves": {},
        "images": {agent: ["image"] for agent in agents},
        "sittings": [],
    }
    return Records(Header(**settings | changes), played)


def without(found: Records, *places: int, **changes: Any) -> Records:
    """The records with some changed, or left out if nothing changes."""
    kept = [
        dataclasses.replace(one, **changes) if at in places else one
        for at, one in enumerate(found.episodes)
        if changes or at not in places
    ]
    return dataclasses.replace(found, episodes=kept)


def difference(
    found: dict, agent: str = "a", metric: str = "score", baseline: str = "none"
) -> dict[str, Any]:
    (row,) = [
        row
        for row in found["comparisons"]
        if (row["agent"], row["arm"], row["metric"], row["baseline"])
        == (agent, "evidence", metric, baseline)
    ]
    return row


def test_a_difference_is_the_mean_over_pairs():
    found = difference(summarise(records({"a": 0.5})))
    assert found["difference"] == found["interval"][0] == found["interval"][1] == 0.5
    assert (found["pairs"], found["dropped"], found["unit"]) == (4, 0, "episode")


def test_a_pool_speaks_of_training_seeds_and_three_allow_no_test():
    found = summarise(records({"a": 0.0, "b": 1.0, "c": 5.0}, pool=True))
    pooled = difference(found, "3 training seeds")
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
    found = summarise(records({"a": 0.0, "b": 1.0}, pool=True))
    assert difference(found, "a")["difference"] == 0.0
    assert difference(found, "b")["difference"] == 1.0


def test_images_are_compared_by_their_gain_on_the_same_frames():
    found = summarise(records({"a": 0.5}))
    assert difference(found, metric="psnr")["difference"] == 0.5
    assert difference(found, metric="psnr_ahead_3")["difference"] == 0.5


def test_pairs_are_joined_by_seed_and_not_by_place():
    found = records({"a": 0.5})
    shuffled = np.random.default_rng(0).permutation(len(found.episodes))
    other = dataclasses.replace(found, episodes=[found.episodes[at] for at in shuffled])
    for metric in COMPARED:
        one, two = (difference(summarise(each), metric=metric) for each in (found, other))
        assert one["difference"] == two["difference"]
        assert one["pairs"] == two["pairs"]


def test_what_an_arm_has_not_played_yet_is_no_pair_of_its():
    found = summarise(without(records({"a": 0.5}), 4, 6))  # two of `evidence`
    assert (difference(found)["difference"], difference(found)["pairs"]) == (0.5, 2)
    assert difference(found)["dropped"] == 0
    assert "14 of 16 episodes" in found["notes"][0]
    assert not found["finished"]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_value_that_is_no_number_costs_its_own_pair_of_its_own_measure(value):
    found = summarise(without(records({"a": 0.5}), 5, score=value))
    assert (difference(found)["pairs"], difference(found)["dropped"]) == (3, 1)
    assert difference(found)["difference"] == 0.5
    assert difference(found, metric="length")["pairs"] == 4
    arm = next(arm for arm in found["arms"] if arm["arm"] == "evidence")
    assert arm["score"]["episodes"] == 3
    json.dumps(found, allow_nan=False)


def test_an_episode_too_short_to_look_ahead_costs_its_own_pair():
    short = {c: None if "ahead_8" in c else 0.25 for c in image_columns()}
    found = summarise(without(records({"a": 0.25}), 4, images=short))
    assert difference(found, metric="psnr_ahead_8")["pairs"] == 3
    assert difference(found, metric="psnr_ahead_8")["dropped"] == 1
    assert difference(found, metric="psnr_ahead_3")["pairs"] == 4


def test_without_images_there_are_no_comparisons_of_images():
    found = records({"a": 0.5}, images={"a": []})
    found = without(found, *range(16), images=dict.fromkeys(image_columns()))
    assert {row["metric"] for row in summarise(found)["comparisons"]} == {"score", "length"}


def test_a_crashed_episode_is_neither_a_score_nor_a_pair():
    found = records({"a": 0.0})
    found = without(found, 5, 6, crashed=True, error="KeyError: 'map'", score=-1000.0)
    found = summarise(found)
    assert (difference(found)["difference"], difference(found)["pairs"]) == (0.0, 2)
    assert difference(found)["dropped"] == 2
    arm = next(arm for arm in found["arms"] if arm["arm"] == "evidence")
    assert (arm["episodes"], arm["crashed"], arm["score"]["mean"]) == (4, 2, 1.5)
    assert "2 of 16 episodes" in found["notes"][0]
    assert "KeyError: 'map'" in found["notes"][0]


def test_where_every_episode_crashed_there_is_no_verdict_and_no_error():
    found = summarise(without(records({"a": 0.5}), 4, 5, 6, 7, crashed=True))
    row = difference(found)
    assert (row["difference"], row["interval"], row["p_value"], row["pairs"]) == (None,) * 3 + (0,)
    assert row["dropped"] == 4


def test_cut_episodes_are_counted_and_told():
    found = summarise(without(records({"a": 0.5}, max_decisions=9), 4, 5, 8, cut=True))
    assert [arm["cut"] for arm in found["arms"]] == [0, 2, 1, 0]
    assert "3 of 16 episodes were cut after 9 decisions" in found["notes"][0]


def test_seeds_that_all_begin_alike_are_told():
    """A world that was the same for every seed counted as many, without a word."""
    every = range(16)
    alike = summarise(without(records({"a": 0.5}), *every, first_observation="one"))
    assert "whatever its seed" in alike["notes"][0]
    assert difference(alike)["paired"]
    assert not summarise(records({"a": 0.5}))["notes"]


def test_seeds_that_begin_otherwise_are_no_pairs():
    found = without(records({"a": 0.5}), 4, 5, 6, 7, first_observation="another")
    found = summarise(found)
    row = difference(found)
    assert (row["paired"], row["difference"], row["correlation"]) == (False, 0.5, None)
    # scores 0.5 to 3.5 against 0 to 3: of 16 pairs of episodes, 10 win
    assert row["p_improve"] == 10 / 16
    welch = statistics.interaction([0.5, 1.5, 2.5, 3.5], [0.0, 1.0, 2.0, 3.0])
    assert tuple(row["interval"]) == welch.interval
    assert row["p_value"] == welch.p_value
    assert "ignores its seed" in found["notes"][0]
    controls = [r for r in found["comparisons"] if r["arm"] == "control-mode"]
    assert all(r["paired"] for r in controls)


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e6])
def test_rewards_added_in_another_order_are_no_difference_and_tiny_rewards_are(size):
    rewards = size * np.random.default_rng(1).normal(size=1000)
    one, other = float(sum(rewards)), float(sum(np.sort(rewards)))
    assert one != other
    found = records({"a": 0.0})
    swapped = {4 + at: other for at in range(4)} | {at: one for at in range(4)}
    for at, score in swapped.items():
        found = without(found, at, score=score, rewards_size=float(np.abs(rewards).sum()))
    row = difference(summarise(found))
    assert (row["difference"], row["p_improve"]) == (0.0, 0.5)
    for at in range(4, 8):
        found = without(found, at, score=one + size)
    row = difference(summarise(found))
    assert row["difference"] == pytest.approx(size, rel=1e-3)
    assert row["p_improve"] == 1.0


@pytest.mark.parametrize("metric", OF_STATES)
def test_not_carrying_is_no_control_of_what_a_state_shows(metric):
    """It shows a refined state like the arm it copies: to match it was no failure to beat it."""
    found = [
        row for row in summarise(records({"a": 0.5}))["comparisons"] if row["metric"] == metric
    ]
    assert {row["baseline"] for row in found} == {"none", "control-mode"}
    assert "control-uncarried" not in {row["arm"] for row in found}


def test_images_of_their_own_names_are_compared_apart():
    found = records({"a": 0.5}, images={"a": ["left", "right"]})
    names = {f"{image}/{c}": 0.5 for image in ("left", "right") for c in image_columns()}
    found = dataclasses.replace(
        found,
        episodes=[dataclasses.replace(e, images={**e.images, **names}) for e in found.episodes],
    )
    metrics = {row["metric"] for row in summarise(found)["comparisons"]}
    assert {"psnr", "left/psnr", "right/psnr_ahead_8"} <= metrics


def test_missed_deadlines_are_a_share_of_the_decisions():
    found = records({"a": 1.0}, 2)
    late = [
        dataclasses.replace(one, late_share=share)
        for one, share in zip(found.episodes, [None] * 2 + [0.25, 0.75] + [None] * 4, strict=True)
    ]
    timed = [arm | {"deadline_ms": 20.0} for arm in found.header.arms]
    header = dataclasses.replace(found.header, arms=timed)
    out = summarise(dataclasses.replace(found, header=header, episodes=late))
    assert [arm["late_share"] for arm in out["arms"]] == [None, 0.5, None, None]
    assert any("50%" in note and "20 ms" in note for note in out["notes"])


def test_milliseconds_are_medians_over_episodes_and_the_mean_over_decisions():
    found = without(records({"a": 0.5}), 0, latency_ms=8.0, latency_ms_mean=9.0, length=27)
    arm = summarise(found)["arms"][0]
    assert arm["latency_ms"] == {"mean": 6.0, "median": 2.0, "p10": 1.0, "p90": 5.0, "batch": 2}


def test_comparisons_are_flat_for_a_data_frame():
    rows = flat(summarise(records({"a": 0.5}))["comparisons"])
    assert rows[0]["interval_low"] == rows[0]["interval_high"] == 0.5
    for row in rows:
        assert all(isinstance(cell, str | int | float | bool | None) for cell in row.values())


def test_the_command_of_a_result_is_that_which_ended_it():
    """The page named 8 episodes, and a folder that was moved, beside what was played later."""
    sittings = [{"command": "first", "machine": "a"}, {"command": "second", "machine": "b"}]
    protocol = summarise(records({"a": 1.0}, sittings=sittings))["protocol"]
    assert (protocol["command"], protocol["machine"]) == ("second", "a")


def test_an_evaluation_that_went_on_elsewhere_or_by_other_code_says_so():
    """Arms were compared in milliseconds of two machines, and nothing said it."""
    first = {"machine": "8 cores", "revision": "a1"}
    for other, said in (
        (first, []),
        ({}, []),  # as older records have it
        ({"machine": "1 core", "revision": "a1"}, ["different machines (8 cores; 1 core)"]),
        ({"machine": "8 cores", "revision": "b2"}, ["different revisions (a1, b2)"]),
    ):
        notes = summarise(records({"a": 1.0}, sittings=[first, other]))["notes"]
        found = [note for note in notes if "different" in note]
        assert len(found) == len(said)
        assert all(part in note for part, note in zip(said, found, strict=True))
