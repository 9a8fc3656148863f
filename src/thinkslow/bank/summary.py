"""Statistics of a bank: arms, gates, critic and imagination. NumPy only.

The unit is the episode: moments of one episode are not independent. Intervals of means are
Student's t over the means of episodes; intervals of correlations are bootstrap percentiles over
episodes. Both hold for one checkpoint.

True advantages are means of few futures, and noisy. A choice by one future is judged by the others,
so noise alone gives no gain. Correlations are reported raw, and divided by the square root of the
reliability (Spearman's correction), which is estimated from the correlation between futures.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from thinkslow.bank.judging import Choices, opened
from thinkslow.evaluation.statistics import paired

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Shares of the decisions in which a gate opens."""
RESAMPLES = 1000
LEAST = 0.2
"""Least correlation of imagined and true advantages for values to guide actions."""

Row = dict[str, Any]


def summarise(choices: Choices) -> dict[str, Any]:
    """All statistics of a bank, as JSON."""
    gains = {arm: gain(choices, arm) for arm in choices.shifts}
    whole = {
        arm: each
        if arm not in choices.doubts
        else each * opened(choices.doubts[arm], choices.shares[arm])[:, None]
        for arm, each in gains.items()
    }
    out: dict[str, Any] = {
        "moments": len(choices.episode),
        "episodes": len(np.unique(choices.episode)),
        "futures": choices.returns.shape[-1],
        "base": base(choices) if choices.shifts else None,
        "arms": {
            arm: {
                "gain": estimate(each.mean(1), choices.episode),
                "changed": changed(choices, arm),
                "gated": arm in choices.doubts,
            }
            for arm, each in whole.items()
        },
        "calibration": {
            arm: calibration(choices, arm) for arm in choices.imagined if arm not in choices.doubts
        },
        "critic": critic(choices),
        "gates": {
            arm: gates(choices, each)
            for arm, each in gains.items()
            if arm in choices.imagined and arm not in choices.doubts
        },
    }
    return out


def base(choices: Choices) -> Row:
    """How much worse the base agent's action is than the best action, on single decisions."""
    q, futures = choices.returns, choices.returns.shape[-1]
    own = (choices.base[:, :, None] * q).sum(1)
    best = []
    for future in range(futures):
        others = np.delete(q, future, -1).mean(-1)
        best.append(np.take_along_axis(q[..., future], others.argmax(1)[:, None], 1)[:, 0])
    regret = np.mean(best, 0) - own.mean(1)
    return {
        "value": estimate(own.mean(1), choices.episode),
        "regret": estimate(regret, choices.episode),
        "spread": float(np.ptp(q.mean(-1), 1).mean()),
        "reliability": reliability(advantages(choices)),
    }


def gain(choices: Choices, arm: str) -> Float[np.ndarray, "moments futures"]:
    """The gain of an arm's actions over the base agent's, by future."""
    return (choices.shifts[arm][:, :, None] * choices.returns).sum(1)


def changed(choices: Choices, arm: str) -> float:
    """Share of the decisions in which an arm takes another action, under the same noise."""
    other = choices.changed[arm]
    if arm in choices.doubts:
        other = other * opened(choices.doubts[arm], choices.shares[arm])
    return float(other.mean())


def advantages(
    choices: Choices, policy: Float[np.ndarray, "moments actions"] | None = None
) -> Float[np.ndarray, "moments actions futures"]:
    """True advantages over the mean of a policy, by default the base agent's own draws."""
    q, policy = choices.returns, choices.base if policy is None else policy
    return q - (policy[:, :, None] * q).sum(1, keepdims=True)


def calibration(choices: Choices, arm: str) -> Row:
    """How well imagined advantages agree with those of play."""
    imagined, policy = choices.imagined[arm], choices.policy[arm]
    true = advantages(choices, policy)
    found = {"r": _r(imagined, true), "r_corrected": _corrected(imagined, true)}
    rng, episodes = np.random.default_rng(0), np.unique(choices.episode)
    rows = {one: np.flatnonzero(choices.episode == one) for one in episodes}
    draws: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(RESAMPLES):
        chosen = np.concatenate([rows[one] for one in rng.choice(episodes, len(episodes))])
        draws["r"].append(_r(imagined[chosen], true[chosen]))
        draws["r_corrected"].append(_corrected(imagined[chosen], true[chosen]))
    ends = {
        f"{name}_interval": np.nanpercentile(each, [2.5, 97.5]).tolist()
        for name, each in draws.items()
        if np.isfinite(each).any()
    }
    best = np.take_along_axis(true.mean(-1), imagined.argmax(1)[:, None], 1)[:, 0]
    slope = float((imagined * true.mean(-1)).sum() / max(np.square(imagined).sum(), 1e-12))
    low, high = ends.get("r_corrected_interval", (-math.inf, math.inf))
    verdict = "go" if low > LEAST else "no-go" if high < LEAST else "open"
    return {
        **{name: _finite(value) for name, value in found.items()},
        **ends,
        "reliability": reliability(true),
        "slope": slope,
        "best_imagined": estimate(best, choices.episode),
        "verdict": verdict,
        "least": LEAST,
    }


def critic(choices: Choices) -> Row | None:
    """How well the critic's value agrees with the return of its own policy over the next
    decisions.
    """
    sound = np.isfinite(choices.value) & np.isfinite(choices.lived)
    if sound.sum() < 3:
        return None
    value, lived = choices.value[sound], choices.lived[sound]
    spread = np.var(value)
    slope = float(np.mean((value - value.mean()) * lived)) / spread if spread > 0 else math.nan
    return {
        "r": _finite(np.corrcoef(value, lived).item(1)) if spread > 0 else None,
        "slope": _finite(slope),
        "bias": estimate(value - lived, choices.episode[sound]),
        "value": float(value.mean()),
        "lived": float(lived.mean()),
        "moments": int(sound.sum()),
    }


def gates(choices: Choices, gains: Float[np.ndarray, "moments futures"]) -> Row:
    """The share of an arm's gain that remains behind gates of every share: oracle, chance,
    scores.
    """
    mean = gains.mean(1)
    curves: dict[str, list[Row]] = {name: [] for name in ("oracle", "random", *choices.scores)}
    futures = gains.shape[1]
    for share in SHARES:
        parts = []
        for future in range(futures):  # chosen by the other futures, evaluated on this one
            others = np.delete(gains, future, 1).mean(1)
            parts.append(np.where(opened(others, share) & (others > 0), gains[:, future], 0.0))
        kept = {"oracle": np.mean(parts, 0), "random": share * mean}
        kept |= {
            name: np.where(opened(doubt, share), mean, 0.0)
            for name, doubt in choices.scores.items()
        }
        for name, each in kept.items():
            curves[name].append({"share": share, **estimate(each, choices.episode)})
            if name in choices.scores:  # the paired question: better than chance of equal share?
                apart = estimate(each - share * mean, choices.episode)
                curves[name][-1]["above_chance"] = apart
    return curves


def estimate(values: Float[np.ndarray, " moments"], episode: Int[np.ndarray, " moments"]) -> Row:
    """A mean over episodes with its interval and p-value."""
    names = np.unique(episode)
    means = np.array([values[episode == one].mean() for one in names])
    if len(means) < 2:
        return {"mean": float(means.mean()), "interval": None, "p": None}
    # As for training seeds: Student's t over the means of episodes, with equal weights.
    found = paired(means, np.arange(len(means)), seed=0)
    return {
        "mean": found.mean,
        "interval": [float(end) for end in found.interval],
        "p": found.p_value,
    }


def reliability(true: Float[np.ndarray, "moments actions futures"]) -> float | None:
    """Share of the variance of mean true advantages that is not noise of the futures.

    From the mean correlation between two futures, stepped up to all of them (Spearman-Brown).
    """
    futures = true.shape[-1]
    flat = true.reshape(-1, futures)
    if futures < 2 or not (flat.std(0) > 0).all():
        return None
    one = float(np.corrcoef(flat.T)[np.triu_indices(futures, 1)].mean())
    return _finite(futures * one / (1 + (futures - 1) * one))


def _r(imagined: np.ndarray, true: np.ndarray) -> float:
    first, second = imagined.ravel(), true.mean(-1).ravel()
    if not (np.ptp(first) > 0 and np.ptp(second) > 0):
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def _corrected(imagined: np.ndarray, true: np.ndarray) -> float:
    share = reliability(true)
    if share is None or share <= 0:
        return math.nan
    return _r(imagined, true) / math.sqrt(share)


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
