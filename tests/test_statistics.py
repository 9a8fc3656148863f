"""Paired statistics on distributions and degenerate inputs whose answers are known."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from thinkslow.evaluation.statistics import correlation, holm, mean_interval, paired, pairs_needed

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


@pytest.mark.parametrize(("episodes", "seeds"), [(60, 1), (6, 24)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(episodes, seeds):
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(seeds), episodes)
    hits = np.zeros(3)
    trials = 200
    for trial in range(trials):
        shared = rng.normal(size=seeds) if seeds > 1 else np.zeros(1)
        values = 0.3 + shared[clusters] + rng.normal(size=seeds * episodes)
        result = paired(values, clusters, seed=trial, resamples=500)
        win = stats.norm.cdf(0.3 / (2 if seeds > 1 else 1) ** 0.5)
        found = [result.interval, result.trimmed_interval, result.p_improve_interval]
        for kind, ((low, high), true) in enumerate(zip(found, [0.3, 0.3, win], strict=True)):
            hits[kind] += low <= true <= high
    # 95% nominal; three deviations of 200 trials are 4.6%, percentiles are known to be narrow
    assert (hits / trials > 0.89).all(), hits / trials
    assert (hits / trials < 0.996).all(), hits / trials


def test_clusters_that_differ_widen_the_interval():
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(8), 25)
    values = rng.normal(size=8)[clusters] + 0.2 * rng.normal(size=200)
    naive, honest = paired(values, seed=0), paired(values, clusters, seed=0)
    assert width(honest.interval) > 3 * width(naive.interval)
    assert honest.mean == naive.mean
    assert (honest.clusters, honest.unit) == (8, "training seed, episode")


def test_two_clusters_without_spread_inside_have_three_possible_means():
    result = paired([0.0] * 5 + [1.0] * 5, ["a"] * 5 + ["b"] * 5, seed=0)
    assert result.interval == (0.0, 1.0)  # aa and bb are a quarter of the resamples each
    assert result.mean == 0.5


def test_clusters_may_differ_in_size_and_come_in_any_order():
    values = np.array([1.0, 5.0, 1.0, 1.0, 5.0, 1.0])
    clusters = np.array([0, 7, 0, 0, 7, 0])
    result = paired(values, clusters, seed=0)
    assert result.clusters == 2
    assert result.interval == (1.0, 5.0)
    assert result.mean == pytest.approx(14 / 6)


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


def test_p_value_and_interval_tell_the_same_story():
    rng = np.random.default_rng(4)
    for shift in np.linspace(-0.6, 0.6, 13):
        result = paired(shift + rng.normal(size=40), seed=0)
        excluded = not result.interval[0] <= 0 <= result.interval[1]
        if abs(result.p_value - 0.05) > 0.002:  # the quantile interpolates, the count does not
            assert (result.p_value < 0.05) == excluded
    assert paired(np.full(20, 2.0), seed=0).p_value == pytest.approx(2 / 10_001)


def test_a_handful_of_pairs_is_never_significant_however_alike():
    # four equal differences gave p = .0002 and a star; flipping signs cannot go below 1/8
    assert paired([1.0, 1.0, 1.1, 1.0], seed=0).p_value == 1 / 8


def test_p_values_are_uniform_when_nothing_differs():
    rng = np.random.default_rng(5)
    p = [paired(rng.normal(size=50), seed=i, resamples=500).p_value for i in range(200)]
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.10  # .05 give or take three deviations
    assert 0.40 <= np.mean(np.array(p) < 0.5) <= 0.61


def test_one_pair_has_a_mean_but_no_interval():
    result = paired([2.0], seed=0)
    assert (result.mean, result.trimmed_mean, result.p_improve) == (2.0, 2.0, 1.0)
    assert all(math.isnan(x) for x in (*result.interval, *result.p_improve_interval))
    assert result.p_value == 1.0
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


def test_pairs_needed_agrees_with_the_power_of_a_paired_test():
    assert pairs_needed(0.5, 0.6, 0.05) == 628
    # a normal test with 628 pairs whose differences deviate by cv * sqrt(2 (1 - rho))
    deviation = 0.5 * math.sqrt(2 * 0.4) / math.sqrt(628)
    power = stats.norm.sf(1.96 - 0.05 / deviation)
    assert power == pytest.approx(0.80, abs=0.005)
    assert pairs_needed(0.5, 1.0, 0.05) == 2


@pytest.mark.parametrize(
    "wrong", [(-1.0, 0.0, 0.1), (1.0, 2.0, 0.1), (1.0, 0.0, 0.0), (math.nan, 0.0, 0.1)]
)
def test_impossible_plans_are_refused(wrong):
    with pytest.raises(ValueError, match="`cv` must be 0 or more"):
        pairs_needed(*wrong)


def test_errors_name_the_arm_the_rule_and_the_value():
    with pytest.raises(ValueError, match="score of arm sig: needs a list of at least one"):
        paired([], seed=0, name="score of arm sig")
    with pytest.raises(ValueError, match=r"psnr of arm sig.*2 of 3 are not.*nan at index 1"):
        paired([1.0, math.nan, math.inf], seed=0, name="psnr of arm sig")
    with pytest.raises(ValueError, match="one training seed for each of the 2 values"):
        mean_interval([1.0, 2.0], [0, 1, 2], seed=0)
    with pytest.raises(ValueError, match=r"`level` between 0 and 1; got 10000 and 95.0"):
        paired([1.0, 2.0], seed=0, level=95.0)
    with pytest.raises(ValueError, match="got 2 and 1 episodes"):
        correlation([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\]; got \[0.1, nan\]"):
        holm([0.1, math.nan])
