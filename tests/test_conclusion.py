"""What an evaluation is said to show: verbs only where a corrected test allows them."""

import itertools
import re
from typing import Any

import numpy as np
import pytest
from helpers import slow
from scipy import stats

from thinkslow.evaluation import planning, statistics
from thinkslow.evaluation.report.arms import main_table
from thinkslow.evaluation.report.conclusion import P_HOLM, caption, conclusion, marked

COMMAND = "thinkslow evaluate collect-half --episodes 4 --seed 7"
VERBS = re.compile(r"\b(raised|lowered|beats?|harm)\b")

MODE = ("control-mode", 0.2, 0.9)
RANDOM = ("control-random", -0.5, 0.7)


def said(*differences: tuple, measure: str = "score", milliseconds: Any = None, **more: Any) -> str:
    """The conclusion from (arm, difference, p after Holm), or (..., baseline)."""
    comparisons = [
        {"agent": "a", "arm": arm, "metric": measure, "difference": mean, "p_value_holm": p}
        | {"interval": [mean - 0.5, mean + 0.5], "baseline": baseline[0] if baseline else "none"}
        | {"pairs": 40, "unit": "episode", "clusters": 1, "deviation": 2.0, "untested": None}
        | more
        for arm, mean, p, *baseline in differences
    ]
    times = {"none": 1.0, "sig": 3.0} if milliseconds is None else milliseconds
    arms = [
        {"agent": "a", "arm": arm, "latency_ms": {"median": ms, "mean": 2 * ms}, "score": None}
        | ({"score": {"mean": 20.0}} if arm == "none" else {})
        | ({"thought_share": 0.2} if arm.endswith("doubt") else {})
        for arm, ms in times.items()
    ]
    protocol = {"command": COMMAND}
    return conclusion({"arms": arms, "comparisons": comparisons, "protocol": protocol})


def simulated(
    rng: np.random.Generator, *, effect: float, pairs: int, seeds: int, arms: int, count: int = 1
) -> list[str]:
    """Conclusions of simulated evaluations of `arms` refinements and a control.

    All are noise around no difference from none, but for `sig`; with several training seeds
    their effects differ too. p-values are those of SciPy, floored as ours are.
    """
    names = ["sig", *(f"arm-{i}" for i in range(1, arms)), "control-mode"]
    base = rng.normal(size=(count, 2, 1, pairs))  # by evaluation, measure, arm and pair
    values = base + rng.normal(size=(count, 2, len(names), pairs))
    values[:, :, 0] += effect
    if seeds > 1:
        shared = 0.3 * rng.normal(size=(count, 2, len(names), seeds))
        values = (values.reshape(*shared.shape, -1) + shared[..., None]).mean(axis=-1)
    against = {"none": values, "control-mode": values[:, :, :-1] - values[:, :, -1:]}
    found: dict[str, Any] = {name: stats.ttest_1samp(each, 0, -1) for name, each in against.items()}
    unit = {"unit": "training seed" if seeds > 1 else "episode", "clusters": seeds, "pairs": pairs}
    conclusions = []
    for which in range(count):
        comparisons = []
        for (baseline, test), (index, measure) in itertools.product(
            found.items(), enumerate(("score", "psnr"))
        ):
            p_values = np.maximum(test.pvalue[which, index], 2.0 ** (1 - values.shape[-1]))
            means = against[baseline][which, index].mean(axis=-1)
            comparisons += [
                {"agent": "a", "arm": arm, "metric": measure, "baseline": baseline}
                | unit
                | {"difference": float(mean), "interval": [mean - 0.1, mean + 0.1]}
                | {"p_value_holm": float(p)}
                for arm, mean, p in zip(names, means, statistics.holm(p_values), strict=False)
            ]
        conclusions.append(conclusion({"arms": [], "comparisons": comparisons}))
    return conclusions


@pytest.mark.parametrize(
    ("pairs", "seeds", "arms"),
    [
        slow(20, 1, 4),
        *(
            pytest.param(*one, marks=pytest.mark.nightly)
            for one in ((20, 1, 1), (40, 1, 1), (40, 1, 4), (120, 12, 1), (120, 12, 4))
        ),
    ],
)
def test_no_effect_has_no_verb_in_95_of_100_evaluations(pairs, seeds, arms):
    # the verbs of uncorrected intervals spoke in a third of evaluations with four arms
    rng = np.random.default_rng(0)
    lines = simulated(rng, effect=0.0, pairs=pairs, seeds=seeds, arms=arms, count=400)
    assert all("No gain in score" in line or VERBS.search(line) for line in lines)
    spoken = np.mean([bool(VERBS.search(line)) for line in lines])
    assert spoken <= 0.05 + 0.022  # two deviations of 400 evaluations


@pytest.mark.parametrize(("pairs", "seeds"), [slow(40, 1), (120, 12)])
def test_a_large_effect_is_said_and_credited(pairs, seeds):
    rng = np.random.default_rng(1)
    for line in simulated(rng, effect=3.0, pairs=pairs, seeds=seeds, arms=4, count=100):
        assert re.match(r"a: sig( and arm-\d)* raised the score", line)
        assert "raised it, and by more than the best control" in line


@pytest.mark.parametrize(("pairs", "seeds"), [(4, 1), (19, 1), (120, 3), (120, 5)])
def test_too_few_pairs_or_seeds_have_no_verb_however_large_the_effect(pairs, seeds):
    # four pairs once "did harm", three training seeds "beat none and the best control"
    rng = np.random.default_rng(2)
    (line,) = simulated(rng, effect=30.0, pairs=pairs, seeds=seeds, arms=3)
    assert not VERBS.search(line)
    assert ("Too few episodes to say" in line) == (seeds == 1)
    assert (f"No test: {seeds} training seeds" in line) == (seeds > 1)


def asked(line: str) -> int:
    (number,) = re.findall(r"--episodes (\d+)`", line)
    return int(number)


def test_too_few_episodes_give_the_command_that_would_do():
    few = ("sig", 1.0, 0.5)
    assert "`thinkslow evaluate collect-half --seed 7 --episodes 20`" in said(few, pairs=4)
    needed = planning.units_needed(9.0, 2.0)  # a deviation of 9, a tenth of the score of 20
    assert needed <= asked(said(few, pairs=4, deviation=9.0)) < needed + 10
    half = asked(said(few, pairs=4, dropped=4, deviation=9.0))  # every other pair is lost
    assert 2 * needed <= half < 2 * needed + 10
    assert asked(said(few, pairs=1, deviation=None)) == 20


def test_few_training_seeds_say_how_many_are_needed():
    pooled: dict[str, Any] = {"unit": "training seed", "clusters": 8}
    three: dict[str, Any] = pooled | {"clusters": 3}
    assert "2 comparisons need 7 or more" in said(("sig", 1, 0.2), MODE, **three)
    assert "No test" not in said(("sig", 1, 0.2), MODE, **pooled)
    ten = [(f"arm-{i}", 1.0, 0.2) for i in range(10)]
    assert "10 comparisons need 9 or more" in said(*ten, **pooled)


def test_a_gain_that_beats_the_best_control_is_one_of_thinking():
    line = said(("sig", 1.0, 0.01), MODE, RANDOM, ("sig", 0.8, 0.02, "control-mode"))
    assert line.startswith("a: sig raised the score; thinking costs 3.0 times as much time.")
    assert "by more than the best control, control-mode (+0.20 [-0.30, 0.70])" in line


@pytest.mark.parametrize("against", [0.5, 0.2, -0.4])
def test_a_gain_that_a_control_also_has_is_not(against):
    line = said(("sig", 1.0, 0.01), MODE, ("sig", against, 0.06 if against > 0 else 0.01, MODE[0]))
    assert "No gain in score over the best control" in line
    assert "thinking is not shown to be the reason" in line
    assert "thinking is not shown" in said(("sig", 1.0, 0.01), MODE)  # never compared with it


def test_a_gain_without_any_control_says_so():
    assert "raised the score, and no control was played" in said(("sig", 1.0, 0.01))


@pytest.mark.parametrize("pairs", [4, 40])
def test_no_difference_at_all_is_not_called_the_largest(pairs):
    """ "The largest difference so far is that of sig, +0.00" is no sentence."""
    line = said(("sig", 0.0, 1.0), MODE, pairs=pairs)
    assert "The mean difference of sig" in line
    assert "is zero" in line
    assert "largest" not in line
    several = said(("sig", 0.0, 1.0), ("elbo", 0.0, 1.0), MODE, pairs=pairs)
    assert "of every refinement" in several


def test_a_null_gives_the_cost_and_what_would_have_been_found():
    line = said(("sig", 0.1, 0.8), ("elbo", -0.3, 0.6), MODE)
    assert line.startswith("a: No gain in score; thinking costs 3.0 times as much time.")
    assert "The largest difference is that of elbo, -0.30" in line
    smallest = planning.detectable(2.0, 40, tests=3)
    assert f"a true difference of {smallest:.2f} ({smallest / 20:.0%} of the score) with" in line


def test_equivalence_is_a_result_of_its_own_and_needs_every_refinement():
    line = said(("sig", 0.1, 0.8), p_equivalent=0.01)
    assert "a: The same score within 5%" in line
    assert "No gain in score;" in said(("sig", 0.1, 0.8), p_equivalent=0.2)
    assert "No gain in score;" in said(("sig", 0.1, 0.8), p_equivalent=None)


def test_harm_is_said_beside_a_gain_and_alone():
    alone = said(("elbo", -2.0, 0.01), ("sig", 0.1, 0.9), MODE)
    assert "a: elbo lowered the score; " in alone
    both = said(("elbo", -2.0, 0.01), ("sig", 1.0, 0.01), MODE, ("sig", 0.8, 0.01, "control-mode"))
    assert "a: sig raised the score, and elbo lowered it; " in both


def test_a_control_that_alone_gains_is_named():
    line = said(("sig", 0.1, 0.9), ("control-mode", 0.88, 0.01))
    assert (
        "the control control-mode (+0.88 [0.38, 1.38], p = 0.01) raised it without thinking" in line
    )


def test_what_does_not_survive_the_correction_has_no_verb():
    assert not VERBS.search(said(("sig", 1.0, 0.051), MODE))
    assert VERBS.search(said(("sig", 1.0, 0.049), MODE))
    assert not VERBS.search(said(("sig", 1.0, None), MODE))


def test_two_measures_are_corrected_for_each_other():
    scores, images = (
        {"agent": "a", "arm": "sig", "metric": measure, "difference": 1.0, "interval": [0.5, 1.5]}
        | {"pairs": 40, "unit": "episode", "p_value_holm": p}
        for measure, p in (("score", 0.03), ("psnr", 0.02))
    )
    line = conclusion({"arms": [], "comparisons": [scores, images]})
    assert "No gain in score;" in line
    assert "PSNR: sig (+1.00 dB [0.50, 1.50], p = 0.04) raised it" in line


def test_agents_are_corrected_for_each_other_but_not_their_pool():
    records = [
        {"agent": agent, "arm": "sig", "metric": "score", "difference": 1.0, "pairs": 200}
        | {"interval": [0.5, 1.5], "unit": unit, "clusters": clusters, "p_value_holm": 0.03}
        for agent, unit, clusters in (
            ("a", "episode", 1),
            ("b", "episode", 1),
            ("12 training seeds", "training seed", 12),
        )
    ]
    lines = conclusion({"arms": [], "comparisons": records}).split("\n")
    assert ["sig raised" in line for line in lines] == [False, False, True]
    assert "sig raised" in conclusion({"arms": [], "comparisons": records[:1]})


def test_the_cost_is_a_range_over_arms_and_that_of_a_gate_its_mean():
    times = {"none": 2.0, "sig": 3.0, "elbo": 18.0, "control-mode": 100.0}
    arms = [("sig", 0.1, 0.9), ("elbo", 0.1, 0.9), MODE]
    assert "thinking costs 1.5 to 9.0 times as much time" in said(*arms, milliseconds=times)
    gated = said(("sig-in-doubt", 0.1, 0.9), milliseconds={"none": 2.0, "sig-in-doubt": 3.0})
    assert "thinking costs 3.0 times as much time" in gated  # means: 6 of 2
    assert "what thinking costs was not measured" in said(("sig", 0.1, 0.9), milliseconds={})


def test_the_table_of_the_page_has_the_cost_of_the_headline():
    """Behind a gate it showed the median, often a decision without thinking, and "×1.0"."""
    times = {"none": (2.0, 2.0, 0.0), "sig-in-doubt": (2.0, 6.0, 0.2)}
    arms = [
        {"agent": "a", "arm": arm, "score": None, "thought_share": share}
        | {"latency_ms": {"median": median, "mean": mean}}
        for arm, (median, mean, share) in times.items()
    ]
    rows = main_table({"arms": arms, "comparisons": []}, "a").rows
    assert [row.cells[4].text for row in rows] == ["2.00 (×1.0)", "6.00 (×3.0)"]


def test_how_far_it_goes_is_said_once_and_counts_what_is_missing():
    one = said(("sig", 1.0, 0.01))
    assert one.endswith("40 paired episodes of one checkpoint: other training runs may differ.")
    pooled = said(("sig", 1.0, 0.01), unit="training seed", clusters=12, pairs=480)
    assert "480 paired episodes of 12 training seeds: each seed counts as one value" in pooled
    assert "p corrected for 3 comparisons" in said(("sig", 1.0, 0.01), MODE, RANDOM)
    assert "left out" not in one
    assert "3 pairs are left out" in said(("sig", 1.0, 0.01), dropped=3)
    assert "not paired" in said(("sig", 1.0, 0.01), paired=False)


@pytest.mark.parametrize(
    ("record", "mark"),
    [
        ({"difference": 1.0, "interval": [0.5, 1.5]}, "better"),
        ({"difference": 1.0, "interval": [0.5, 1.5], "metric": "mse"}, "worse"),  # was green
        ({"difference": -1.0, "interval": [-1.5, -0.5], "metric": "left/mse"}, "better"),
        ({"difference": 1.0, "interval": [0.5, 1.5], "metric": "length"}, "other"),
        ({"difference": -1.0, "interval": [-1.5, -0.5], "untested": None}, "worse"),
        ({"difference": 1.0, "interval": [0.5, 1.5], "untested": "few episodes"}, ""),
        ({"difference": 1.0, "interval": [-0.5, 2.5]}, ""),
        ({"difference": 1.0, "interval": None}, ""),
        ({"difference": None}, ""),
        (None, ""),
    ],
)
def test_tables_mark_intervals_without_zero_where_there_is_a_test(record, mark):
    assert marked(record and {"metric": "score", **record}) == mark


def test_the_caption_says_that_stars_are_uncorrected_and_p_is_not():
    assert "* : " not in caption("*")
    assert "not corrected" in caption("*")
    assert "corrected for the number of arms" in P_HOLM
