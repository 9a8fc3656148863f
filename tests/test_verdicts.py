"""Verdicts of a study from its records: effects, intervals, corrections."""

from typing import Any

import numpy as np
import pytest
from studies import PLAN

from thinkslow.evaluation import records
from thinkslow.evaluation.records import Episode, Header, Records
from thinkslow.study import planned
from thinkslow.study.verdicts import judge


def episode(arm: str, agent: str, number: int, score: float) -> Episode:
    rest = {
        name: None
        for name in records.FIELDS
        if name not in ("agent", "arm", "episode", "environment_seed", "score")
    }
    given: dict[str, Any] = rest | {
        "crashed": False,
        "cut": False,
        "nonfinite": 0,
        "first_observation": "",
        "length": 9,
    }
    return Episode(
        agent=agent, arm=arm, episode=number, environment_seed=number, score=score, **given
    )


def played(
    effects: dict[str, float],
    *,
    agents: int = 1,
    pairs: int = 40,
    seed: int = 0,
    level: float = 10,
    luck: float = 0.0,
    spread: dict[str, float] | None = None,
    by_agent: Any = None,
):
    """Records in which each arm scores the level, its effect more, and noise.

    Args:
        luck: deviation of the episodes' own level, the same in every arm and call.
        spread: of the noise of an arm; 1 for those without one.
        by_agent: what each agent adds to the effect of an arm.
    """
    rng, lucky = np.random.default_rng(seed), np.random.default_rng(99).normal(size=pairs)
    header = Header(
        protocol="",
        environment={},
        agents=[],
        arms=[],
        episodes=pairs,
        seed=0,
        batch=2,
        max_decisions=None,
        pool=False,
        versions={},
        images={},
        curves={},
        sittings=[],
    )
    own = np.zeros(agents) if by_agent is None else by_agent
    return Records(
        header,
        [
            episode(
                arm,
                f"agent {agent}",
                number,
                level
                + effect
                + (arm != "none") * own[agent]
                + luck * lucky[number]
                + (spread or {}).get(arm, 1.0) * rng.normal(),
            )
            for arm, effect in {"none": 0.0, **effects}.items()
            for agent in range(agents)
            for number in range(pairs)
        ],
    )


def verdicts(hypotheses: list[dict[str, Any]], cells: dict, **more: Any) -> list[str]:
    named = [{"name": f"H{at}", "claim": "", **one} for at, one in enumerate(hypotheses)]
    plan = planned(PLAN | {"hypotheses": named} | more, "plan.toml")
    return [one.verdict for one in judge(plan, cells)]


@pytest.mark.parametrize(
    ("effect", "expect", "verdict"),
    [
        (2.0, "more", "supported"),
        (2.0, "less", "contradicted"),
        (-2.0, "less", "supported"),
        (2.0, "same", "contradicted"),
        (0.0, "same", "supported"),
        # none, and that within 5% of the score
        (0.0, "more", "contradicted"),
    ],
)
def test_a_verdict_follows_the_effect(effect, expect, verdict):
    cells = {("ours", "clean"): played({"twice": effect}, pairs=400)}
    assert verdicts([{"effect": {"arm": "twice"}, "expect": expect}], cells) == [verdict]


def test_few_episodes_show_nothing_and_say_what_would_be_found():
    cells = {("ours", "clean"): played({"twice": 0.1}, pairs=20)}
    plan = planned(PLAN, "plan.toml")
    (one,) = judge(plan, cells)
    assert one.verdict == "not shown"
    assert one.detectable is not None
    assert 0.3 < one.detectable < 2
    assert f"{one.detectable:.3g}" in one.why


def test_a_difference_of_effects_is_judged_between_settings():
    hypothesis = {
        "effect": {"arm": "twice", "setting": "noisy"},
        "minus": {"arm": "twice", "setting": "clean"},
    }
    cells = {
        ("ours", "noisy"): played({"twice": 3.0}),
        ("ours", "clean"): played({"twice": 0.0}, seed=1),
    }
    assert verdicts([hypothesis], cells) == ["supported"]
    assert verdicts([hypothesis | {"expect": "less"}], cells) == ["contradicted"]
    same = dict.fromkeys(cells, played({"twice": 3.0}))
    assert verdicts([hypothesis], same) == ["not shown"]


def test_training_seeds_are_the_units_and_few_are_no_test():
    hypothesis = [{"effect": {"arm": "twice"}}]
    three = {("ours", "clean"): played({"twice": 3.0}, agents=3)}
    assert verdicts(hypothesis, three) == ["not shown"]
    eight = {("ours", "clean"): played({"twice": 3.0}, agents=8)}
    assert verdicts(hypothesis, eight) == ["supported"]
    assert verdicts(hypothesis, eight, looks=[5, 8, 12]) == ["supported"]
    assert verdicts(hypothesis, eight, looks=[5, 12]) == ["not shown"]


@pytest.mark.slow
def test_without_an_effect_a_study_of_four_claims_rarely_supports_one():
    """One of them at its own bound: 10% more, where an effect of more than 10% is claimed."""
    hypotheses = [{"effect": {"arm": "twice"}, "expect": each} for each in ("more", "less")]
    hypotheses.append({"effect": {"arm": "control-soft"}, "by": 0.1})
    hypotheses.append({"effect": {"arm": "control-soft", "baseline": "twice"}, "of": "spread"})
    wrong = 0
    for seed in range(60):
        effects = {"twice": 0.0, "control-soft": 1.0}
        cells = {("ours", "clean"): played(effects, pairs=12, seed=seed)}
        wrong += "supported" in verdicts(hypotheses, cells)
    assert wrong <= 8  # of 60 at 5% one expects 3, and more than 8 once in 200


@pytest.mark.slow
def test_a_claim_of_sameness_at_its_margin_is_rarely_supported_among_others():
    hypotheses = [
        {"effect": {"arm": "twice"}, "expect": "same"},
        {"effect": {"arm": "control-soft"}},
    ]
    wrong = 0
    for seed in range(60):
        cells = {("ours", "clean"): played({"twice": 0.5, "control-soft": 0.0}, seed=seed)}
        wrong += "supported" in verdicts(hypotheses, cells)
    assert wrong <= 8


@pytest.mark.parametrize(("effect", "verdict"), [(2.0, "supported"), (0.5, "contradicted")])
def test_an_effect_can_be_claimed_to_be_larger_than_a_share(effect, verdict):
    cells = {("ours", "clean"): played({"twice": effect}, pairs=400)}
    assert verdicts([{"effect": {"arm": "twice"}, "by": 0.1}], cells) == [verdict]
    worse = {("ours", "clean"): played({"twice": -effect}, pairs=400)}
    less = {"effect": {"arm": "twice"}, "by": 0.1, "expect": "less"}
    assert verdicts([less], worse) == [verdict]


def test_a_larger_spread_is_no_larger_mean():
    cells = {("ours", "clean"): played({"twice": 0.0}, pairs=200, spread={"twice": 3.0})}
    of_spread = {"effect": {"arm": "twice"}, "of": "spread"}
    assert verdicts([of_spread, {"effect": {"arm": "twice"}}], cells)[0] == "supported"
    plan = planned(PLAN | {"hypotheses": [{"name": "H", "claim": "", **of_spread}]}, "")
    (one,) = judge(plan, cells)
    assert one.difference == pytest.approx(2 * 0.8, abs=0.4)  # E|x| of a normal is .8 deviations


def test_half_of_a_loss_is_won_back_between_settings_episode_by_episode():
    """The task's own luck, the same in both settings, is no noise of such a claim."""
    regained = {
        "effect": {"arm": "twice", "setting": "noisy"},
        "minus": {"arm": "none", "setting": "clean", "baseline_setting": "noisy", "times": 0.5},
    }
    for effect, verdict in ((3.5, "supported"), (0.5, "contradicted")):
        cells = {
            ("ours", "clean"): played({"twice": 0.0}, level=10, luck=5.0),
            ("ours", "noisy"): played({"twice": effect}, level=6, luck=5.0, seed=1),
        }
        assert verdicts([regained], cells) == [verdict]
    plan = planned(PLAN | {"hypotheses": [{"name": "H", "claim": "", **regained}]}, "")
    (one,) = judge(plan, cells)
    assert (one.pairs, one.units) == (40, 40)
    assert one.difference == pytest.approx(0.5 - 0.5 * 4, abs=0.8)


@pytest.mark.slow
def test_the_interval_of_a_difference_of_effects_of_the_same_seeds_covers():
    """Training seeds differ in level and in effect, and both settings share them."""
    hypothesis = {
        "name": "H",
        "claim": "",
        "effect": {"arm": "twice", "setting": "noisy"},
        "minus": {"arm": "twice", "setting": "clean"},
    }
    plan, hits = planned(PLAN | {"hypotheses": [hypothesis]}, ""), 0
    for seed in range(200):
        shared = np.random.default_rng([1, seed]).normal(size=6)
        cells = {
            ("ours", name): played(
                {"twice": 1.0}, agents=6, pairs=3, seed=2 * seed + at, by_agent=shared
            )
            for at, name in enumerate(("clean", "noisy"))
        }
        (one,) = judge(plan, cells)
        assert one.interval is not None
        hits += one.interval[0] <= 0 <= one.interval[1]
    assert 0.9 < hits / 200 < 0.99  # a deviation is .015


def test_what_was_not_played_counts_among_the_hypotheses_that_are_corrected():
    hypotheses = [{"effect": {"arm": "twice"}}, {"effect": {"arm": "twice", "setting": "noisy"}}]
    named = [{"name": f"H{at}", "claim": "", **one} for at, one in enumerate(hypotheses)]
    plan = planned(PLAN | {"hypotheses": named}, "plan.toml")
    first, second = judge(plan, {("ours", "clean"): played({"twice": 0.5})})
    assert first.p_value is not None
    assert first.p_value_holm == pytest.approx(2 * first.p_value)
    assert (second.verdict, second.p_value) == ("not shown", None)


def test_power_is_of_five_percent_of_the_baseline():
    cells = {("ours", "clean"): played({"twice": 0.0}, pairs=60)}
    (one,) = judge(planned(PLAN, "plan.toml"), cells)
    assert one.baseline == pytest.approx(10, abs=0.5)
    assert one.deviation == pytest.approx(2**0.5, abs=0.4)
    # 0.5 of a deviation of 1.41 over 60 pairs: 2.74 standard errors, 0.74 above the bound
    assert one.power == pytest.approx(0.77, abs=0.12)
    assert one.detectable == pytest.approx(0.52, abs=0.12)


def test_pairs_that_crashed_are_left_out_and_counted():
    whole = played({"twice": 3.0})
    rows = [*whole.episodes]
    rows[0] = episode("none", "agent 0", 0, 0.0)
    object.__setattr__(rows[0], "crashed", True)
    plan = planned(PLAN, "plan.toml")
    (one,) = judge(plan, {("ours", "clean"): Records(whole.header, rows)})
    assert (one.pairs, one.dropped) == (39, 1)
