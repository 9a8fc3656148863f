"""Paired statistics on distributions and degenerate inputs whose answers are known."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers import nightly, slow
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from thinkslow.evaluation import student
from thinkslow.evaluation.planning import detectable, fewest_units, look, units_needed
from thinkslow.evaluation.statistics import (
    correlation,
    equivalence,
    holm,
    interaction,
    mean_interval,
    paired,
)

numbers = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))
samples = st.lists(numbers, min_size=2, max_size=30)


def width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


def assert_near(found: npt.ArrayLike, expected: npt.ArrayLike) -> None:
    """Equal but for sums taken in another order."""
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-9, atol=1e-9)


def test_every_field_on_a_sample_worked_by_hand():
    result = paired([-10.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 95.0], seed=0)
    assert result.mean == 12.5
    assert result.trimmed_mean == 2.5  # of 1, 2, 3, 4: two fall off either end
    assert result.p_improve == (6 + 0.5) / 8
    assert (result.pairs, result.clusters, result.unit) == (8, 1, "episode")
    assert result.interval[0] < 12.5 < result.interval[1]
    assert result.trimmed_interval[0] < 2.5 < result.trimmed_interval[1]


def test_the_bootstrap_of_the_mean_has_its_known_deviation():
    values = np.random.default_rng(1).normal(size=200)
    interval = paired(values, seed=0).interval
    # a resampled mean deviates by std / sqrt(n); 2.5% between two runs of 10,000 resamples
    np.testing.assert_allclose(width(interval), 2 * 1.96 * values.std() / 200**0.5, rtol=0.03)


def test_intervals_of_one_checkpoint_cover_about_as_often_as_they_say():
    rng = np.random.default_rng(2)
    hits = np.zeros(3)
    trials = 200
    for trial in range(trials):
        result = paired(0.3 + rng.normal(size=60), seed=trial, resamples=500)
        found = [result.interval, result.trimmed_interval, result.p_improve_interval]
        true = [0.3, 0.3, stats.norm.cdf(0.3)]
        hits += [low <= x <= high for (low, high), x in zip(found, true, strict=True)]
    # 95% nominal; three deviations of 200 trials are 4.6%, percentiles are known to be narrow
    assert (hits / trials > 0.89).all(), hits / trials
    assert (hits / trials < 0.996).all(), hits / trials


@pytest.mark.parametrize(
    ("seeds", "between"),
    [
        (3, 1.0),
        slow(8, 0.3),
        slow(5, 1.0),
        slow(12, 0.3),
        *(nightly(*one) for one in ((3, 0.3), (5, 0.3), (8, 1.0), (12, 1.0))),
    ],
)
def test_few_training_seeds_cover_95_percent_and_reject_5_percent_at_most(seeds, between):
    # percentiles of a two-level bootstrap covered 77% here (three seeds, equal deviations)
    rng = np.random.default_rng(seeds)
    trials, episodes = 1_000, 20
    clusters = np.repeat(np.arange(seeds), episodes)
    effects = between * rng.normal(size=(trials, seeds))[:, clusters]
    values = effects + rng.normal(size=(trials, len(clusters)))
    results = [paired(each, clusters, seed=0) for each in values]
    cover = np.mean([r.interval[0] <= 0 <= r.interval[1] for r in results])
    reject = np.mean([r.p_value < 0.05 for r in results])
    # exact in theory; .023 is more than three deviations of 1,000 trials
    assert cover == pytest.approx(0.95, abs=0.023)
    assert reject == (0 if seeds < 6 else pytest.approx(0.05, abs=0.023))
    assert {r.untested for r in results} == {"few training seeds" if seeds < 6 else None}


def test_few_seeds_also_cover_the_chance_to_improve():
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(5), 30)
    true = stats.norm.cdf(0.3 / 1.25**0.5)  # a seed's effect deviates by a half
    hits = []
    for _ in range(1_000):
        values = 0.3 + 0.5 * rng.normal(size=5)[clusters] + rng.normal(size=150)
        result = paired(values, clusters, seed=0)
        found = [result.p_improve_interval, result.trimmed_interval]
        hits.append([low <= x <= high for (low, high), x in zip(found, [true, 0.3], strict=True)])
    np.testing.assert_allclose(np.mean(hits, axis=0), 0.95, atol=0.023)  # .946 of many


def test_the_interval_of_training_seeds_is_the_t_interval_of_their_means():
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(8), 25)
    values = rng.normal(size=8)[clusters] + 0.2 * rng.normal(size=200)
    naive, honest = paired(values, seed=0), paired(values, clusters, seed=0)
    assert width(honest.interval) > 3 * width(naive.interval)
    assert (honest.clusters, honest.unit) == (8, "training seed")
    test: Any = stats.ttest_1samp(values.reshape(8, 25).mean(axis=1), 0)
    assert_near(honest.interval, test.confidence_interval(0.95))
    assert honest.p_value == pytest.approx(max(test.pvalue, 2**-7))
    assert honest.mean == pytest.approx(naive.mean)


def test_an_effect_without_noise_is_no_more_certain_than_its_seeds_allow():
    # the floor of 3 seeds of 40 episodes was 2^-119
    results = [paired(np.ones(40 * n), np.arange(40 * n) % n, seed=0) for n in (2, 3, 5, 6, 12)]
    assert [r.p_value for r in results] == [1 / 2, 1 / 4, 1 / 16, 1 / 32, 1 / 2**11]
    few = "few training seeds"
    assert [r.untested for r in results] == [few, few, few, None, None]


def test_training_seeds_count_alike_whatever_their_size_and_order():
    values = np.array([1.0, 5.0, 1.0, 1.0, 5.0, 1.0])
    clusters = np.array([0, 7, 0, 0, 7, 0])
    result = paired(values, clusters, seed=0)
    assert (result.clusters, result.mean, result.p_improve) == (2, 3.0, 1.0)
    assert_near(result.interval, 3 + np.array([-1, 1]) * stats.t.ppf(0.975, 1) * 2)


@pytest.mark.parametrize("value", [0.1, -3.7, 0.0])
@pytest.mark.parametrize("clusters", [None, [0, 0, 1, 1, 2]])
def test_equal_differences_give_intervals_of_no_width(value, clusters):
    result = paired([value] * 5, clusters, seed=0)
    assert result.mean == result.trimmed_mean == value
    assert result.interval == result.trimmed_interval == (value, value)
    assert result.p_improve == (np.sign(value) + 1) / 2
    assert width(result.p_improve_interval) == 0


def test_no_difference_at_all_is_no_evidence():
    result = paired(np.zeros(20), seed=0)
    assert (result.p_value, result.p_improve) == (1.0, 0.5)


def test_the_p_value_of_episodes_is_that_of_a_t_test():
    values = 0.3 + np.random.default_rng(4).normal(size=40)
    result = paired(values, seed=0)
    test: Any = stats.ttest_1samp(values, 0)
    assert result.p_value == pytest.approx(test.pvalue)
    assert result.deviation == pytest.approx(values.std(ddof=1))
    assert paired(np.full(20, 2.0), seed=0).p_value == 2.0**-19


def test_a_handful_of_pairs_is_never_significant_however_alike():
    # four equal differences gave p = .0002 and a star; flipping signs cannot go below 1/8
    result = paired([1.0, 1.0, 1.1, 1.0], seed=0)
    assert (result.p_value, result.untested) == (1 / 8, "few episodes")
    assert paired([1.0] * 6, seed=0).untested is None


@pytest.mark.parametrize("pairs", [slow(10), 50])
def test_p_values_are_uniform_when_nothing_differs(pairs):
    # at 20 pairs the tails of the bootstrap rejected 8%
    rng = np.random.default_rng(5)
    p = np.array([paired(x, seed=0, resamples=10).p_value for x in rng.normal(size=(1_000, pairs))])
    for below in (0.05, 0.5):
        assert np.mean(p < below) == pytest.approx(
            below, abs=3 * (below * (1 - below) / 1e3) ** 0.5
        )


def test_one_pair_has_a_mean_but_no_interval():
    result = paired([2.0], seed=0)
    assert (result.mean, result.trimmed_mean, result.p_improve) == (2.0, 2.0, 1.0)
    assert all(math.isnan(x) for x in (*result.interval, *result.p_improve_interval))
    assert (result.p_value, result.untested) == (1.0, "few episodes")
    assert math.isnan(result.deviation)
    assert all(math.isnan(x) for x in mean_interval([2.0], seed=0).interval)


@settings(max_examples=40, deadline=None)
@given(samples, st.integers(1, 4))
def test_swapping_the_arms_mirrors_everything(values, seeds):
    clusters = np.arange(len(values)) % seeds
    there = paired(np.array(values), clusters, seed=1, resamples=200)
    back = paired(-np.array(values), clusters, seed=1, resamples=200)
    assert_near(back.mean, -there.mean)
    assert_near(back.trimmed_mean, -there.trimmed_mean)
    assert_near(back.interval, np.negative(there.interval)[::-1])
    mirrored = np.negative(there.trimmed_interval)[::-1]
    assert_near(back.trimmed_interval, mirrored)
    assert back.p_improve == pytest.approx(1 - there.p_improve)
    mirrored = 1 - np.array(there.p_improve_interval)[::-1]
    assert_near(back.p_improve_interval, mirrored)
    assert back.p_value == pytest.approx(there.p_value, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(samples)
def test_trimmed_mean_is_that_of_scipy(values):
    expected = stats.trim_mean(values, 0.25)
    result = paired(values, seed=0, resamples=50)
    assert_near(result.trimmed_mean, expected)


def test_resampled_trimmed_means_are_those_of_explicit_resamples():
    values = np.random.default_rng(6).standard_t(2, size=23)
    rng = np.random.default_rng(0)  # the stream that `paired(seed=0)` draws pairs from
    drawn = values[(rng.random((4_000, 1, 23)) * 23).astype(int)[:, 0]]
    expected = np.quantile(stats.trim_mean(drawn, 0.25, axis=1), [0.025, 0.975])
    result = paired(values, seed=0, resamples=4_000)
    np.testing.assert_allclose(result.trimmed_interval, expected, rtol=1e-9)
    np.testing.assert_allclose(result.interval, np.quantile(drawn.mean(1), [0.025, 0.975]))


def test_the_seed_alone_decides_the_interval():
    values = np.random.default_rng(7).normal(size=30)
    assert paired(values, seed=3) == paired(values, seed=3)
    assert paired(values, seed=3).interval != paired(values, seed=4).interval


def test_an_arms_own_mean_has_the_interval_of_its_values():
    values, clusters = np.random.default_rng(8).normal(size=30), np.arange(30) % 3
    alone, difference = mean_interval(values, clusters, seed=1), paired(values, clusters, seed=1)
    assert (alone.mean, alone.interval) == (difference.mean, difference.interval)
    assert (alone.episodes, alone.clusters) == (30, 3)


def test_correlation_is_that_of_numpy_and_undefined_without_variance():
    a, b = np.random.default_rng(9).normal(size=(2, 50))
    assert correlation(a, a + b) == pytest.approx(np.corrcoef(a, a + b)[0, 1])
    assert correlation(a, -2 * a) == pytest.approx(-1.0)
    assert correlation(a, np.full(50, 0.1)) is None
    assert correlation([1.0], [2.0]) is None


def test_holm_on_a_worked_example():
    # Sorted .005 .01 .03 .04 times 4 3 2 1 is .02 .03 .06 .04; the last may not fall below .06.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1.0, 1.0])
    assert holm([0.03]) == 0.03
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_lies_between_nothing_and_bonferroni(p_values):
    p, adjusted = np.array(p_values), holm(p_values)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, len(p) * p) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 11, 48, 999])
def test_students_t_is_that_of_scipy(df):
    for t in (0.0, 0.3, 1.0, 2.5, 12.0, 1e3):
        assert student.within(t, df) == pytest.approx(1 - 2 * stats.t.sf(t, df), abs=1e-13)
    for p in (0.001, 0.2, 0.5, 0.8, 0.975, 0.9995):
        assert student.quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-9, abs=1e-9)
    for t in (0.0, 3.3, 5.0, 20.0, 1e10, np.inf):  # a difference from 1 has no digits at 20
        assert student.outside(t, df) == pytest.approx(2 * stats.t.sf(t, df), rel=1e-9)


def test_a_small_p_value_is_that_of_the_test_and_not_its_least():
    values = np.random.default_rng(0).normal(3.5, 3.6, 120)
    p = paired(values, seed=0).p_value
    assert p == pytest.approx(stats.ttest_1samp(values, 0)[1], rel=1e-9)
    assert p > 2.0**-119


def samples_of(rng: np.random.Generator, trials: int, units: int, effect: float) -> np.ndarray:
    return effect + rng.normal(size=(trials, units))


@pytest.mark.parametrize("units", [8, 40])
def test_what_is_detectable_is_found_in_four_of_five_evaluations(units):
    effect = detectable(1.0, units)
    assert units_needed(1.0, effect) == units
    values = samples_of(np.random.default_rng(10), 1_000, units, effect)
    found = [paired(x, seed=0, resamples=1).p_value <= 0.05 for x in values]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)  # three deviations


def test_more_tests_and_fewer_units_ask_for_larger_effects():
    assert fewest_units() == 6  # 2^-5 is below .05, 2^-4 above
    assert fewest_units(4) == 8
    assert math.isinf(detectable(1.0, 7, tests=4))
    assert detectable(1.0, 20, tests=4) > detectable(1.0, 20)
    assert units_needed(0.0, 1.0, tests=4) == 8


@pytest.mark.parametrize("wrong", [(-1.0, 0.1), (1.0, 0.0), (math.nan, 0.1), (1.0, math.nan)])
def test_impossible_plans_are_refused(wrong):
    with pytest.raises(ValueError, match=r"`deviation`.*`effect`.*got"):
        units_needed(*wrong)


def equivalent(rng: np.random.Generator, *, effect: float, seeds: int | None) -> float:
    """Share of 400 evaluations that call a refinement equal to a base of mean 20."""
    said = []
    for _ in range(400):
        base = 20 + 4 * rng.normal(size=120)
        clusters = None if seeds is None else np.arange(120) % seeds
        shared = 0 if clusters is None else rng.normal(size=120)[clusters] * 0.5
        refined = base + effect + shared + 2 * rng.normal(size=120)
        said.append(equivalence(base, refined, clusters).p_value <= 0.05)
    return float(np.mean(said))


@pytest.mark.parametrize("seeds", [None, slow(8)])
def test_equivalence_is_found_where_it_holds_and_not_at_its_margin(seeds):
    rng = np.random.default_rng(12)
    assert equivalent(rng, effect=0.0, seeds=seeds) > 0.9
    # a difference of exactly the margin, 5% of 20, in either direction: 5% of false claims
    for effect in (-1.0, 1.0):
        assert equivalent(rng, effect=effect, seeds=seeds) == pytest.approx(0.05, abs=0.033)


def test_equivalence_has_a_margin_for_negative_scores_and_none_around_zero():
    base = np.linspace(-21, -19, 40)
    assert equivalence(base, base + 0.1).p_value < 0.001
    assert equivalence(base, base + 2.0).p_value > 0.999
    assert equivalence(base, base).margin == pytest.approx(1.0)
    assert equivalence(base + 20, base + 20).p_value >= 0.5
    assert equivalence([1.0] * 3, [1.0] * 3).p_value == 1 / 8  # three pairs allow no less


def test_an_interaction_is_welchs_test_with_degrees_of_freedom_rounded_down():
    rng = np.random.default_rng(13)
    first, second = 1 + rng.normal(size=9), 3 * rng.normal(size=12)
    result = interaction(first, second)
    welch: Any = stats.ttest_ind(first, second, equal_var=False)
    df = math.floor(welch.df)
    assert result.difference == pytest.approx(first.mean() - second.mean())
    assert result.p_value == pytest.approx(2 * stats.t.sf(abs(welch.statistic), df))
    half = stats.t.ppf(0.975, df) * result.difference / welch.statistic
    assert_near(result.interval, result.difference + np.array([-1, 1]) * half)


@pytest.mark.parametrize("deviations", [(1.0, 1.0), (0.3, 2.0)])
def test_interactions_cover_95_percent_with_few_training_seeds(deviations):
    rng = np.random.default_rng(14)
    labels = np.repeat(np.arange(5), 4)
    hits = []
    for _ in range(1_000):
        first, second = (d * rng.normal(size=5)[labels] + rng.normal(size=20) for d in deviations)
        low, high = interaction(first, second, labels, labels).interval
        hits.append(low <= 0 <= high)
    assert 0.927 < np.mean(hits) < 0.985  # rounding down is on the safe side


def test_an_interaction_of_three_seeds_each_is_no_test():
    seeds = [0, 1, 2]
    result = interaction([5.0] * 3, [1.0] * 3, seeds, seeds)
    assert (result.interval, result.p_value) == ((4.0, 4.0), 0.1)
    assert (result.untested, result.unit) == ("few training seeds", "training seed")
    assert interaction([5.0] * 4, [1.0] * 4).untested is None
    with pytest.raises(ValueError, match="training seeds"):
        interaction([1.0, 2.0], [1.0, 2.0], [0, 1], None)
    with pytest.raises(ValueError, match=r"2 values or more; got \[1, 2\]"):
        interaction([1.0], [1.0, 2.0])


def test_three_looks_together_reject_5_percent_at_most():
    rng = np.random.default_rng(15)
    z = np.cumsum(rng.normal(size=(40_000, 12)), axis=1) / np.sqrt(np.arange(1, 13))
    at = [5, 8, 12]
    crossed = 2 * stats.norm.sf(np.abs(z[:, [n - 1 for n in at]])) < [look(n) for n in at]
    assert 0.045 < crossed.any(axis=1).mean() < 0.053  # .0485; a deviation is .001
    with pytest.raises(ValueError, match="5, 8, 12; got 3"):
        look(3)


def test_errors_name_the_arm_the_rule_and_the_value():
    with pytest.raises(ValueError, match=r"score of arm sig"):
        paired([], seed=0, name="score of arm sig")
    with pytest.raises(ValueError, match=r"psnr of arm sig.*2 of 3 are not.*nan at index 1"):
        paired([1.0, math.nan, math.inf], seed=0, name="psnr of arm sig")
    with pytest.raises(ValueError, match=r"training seed.*\(2,\); got \(3,\)"):
        mean_interval([1.0, 2.0], [0, 1, 2], seed=0)
    with pytest.raises(ValueError, match=r"`level`.*got 95\.0"):
        paired([1.0, 2.0], [0, 1], seed=0, level=95.0)
    with pytest.raises(ValueError, match=r"`resamples`.*got 0"):
        paired([1.0, 2.0], seed=0, resamples=0)
    with pytest.raises(ValueError, match="got 2 and 1 episode"):
        correlation([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\]; got \[0.1, nan\]"):
        holm([0.1, math.nan])
