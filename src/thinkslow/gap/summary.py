"""Statistics of measured gaps, in nats. NumPy only.

The unit is the episode, because moments of one episode are not independent: an interval is
Student's t over the means of episodes, and holds for one checkpoint. Values before and after
refinement use the same moments and the same random numbers, so changes are paired.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from thinkslow.evaluation.records import BASE
from thinkslow.evaluation.statistics import paired
from thinkslow.gap.stored import BEST, BEST_LATER, NUMBERS, Header, Row, measured
from thinkslow.plural import plural

FORMAT = 1
GROUPS = 10
"""Deciles of surprise."""
FEW = 10.0
"""Effective number of samples below which the importance-weighted bound is unreliable."""

Numbers = Float[np.ndarray, " moments"]


class Columns:
    """The moments of one agent as arrays; NaN where a number was non-finite."""

    def __init__(self, rows: Sequence[Row]):
        self.episode: Int[np.ndarray, " moments"] = np.array([row["episode"] for row in rows])
        self.surprise = _column(row["surprise"] for row in rows)
        self.effective = _column(row["effective"] for row in rows)
        self.names = [name for name in rows[0]["beliefs"] if name not in (BEST, BEST_LATER)]
        self.beliefs: dict[str, dict[str, Numbers]] = {
            name: {what: _column(row["beliefs"][name][what] for row in rows) for what in NUMBERS}
            for name in (*self.names, BEST, BEST_LATER)
        }
        self.bound = {
            int(size): _column(row["bound"][size] for row in rows) for size in rows[0]["bound"]
        }

    def __len__(self) -> int:
        return len(self.episode)

    def amortisation(self, name: str) -> Numbers:
        """The cost of a belief minus that of the best belief of its family."""
        return self.beliefs[name]["loss"] - self.beliefs[BEST]["loss"]

    def conditioning(self, name: str) -> Numbers:
        """The same cost difference under the present and later frames. Only the best belief there
        was fitted to the later frames.
        """
        return self.beliefs[name]["loss_later"] - self.beliefs[BEST_LATER]["loss_later"]

    def approximation(self, samples: int) -> Numbers:
        """The cost of the best belief of the family minus the bound with this number of samples.
        The true gap is at least as large.
        """
        return self.bound[1] - self.bound[samples]


def summarise(header: Header, rows: Sequence[Row]) -> dict[str, Any]:
    """All results, as JSON."""
    agents = []
    for facts in header.agents:
        mine = [row for row in measured(rows) if row["agent"] == facts["name"]]
        if mine:
            agents.append({**_facts(facts), **of_agent(Columns(mine), facts)})
    return {
        "format": FORMAT,
        "command": header.command,
        "environment": header.environment,
        "seed": header.seed,
        "lag": header.lag,
        "samples": header.samples,
        "sweeps": header.sweeps,
        "restarts": header.restarts,
        "versions": header.versions,
        "agents": agents,
        "notes": notes(agents, header),
    }


def _facts(facts: Mapping[str, Any]) -> Row:
    names = ("name", "training_steps", "training_seed", "source", "weights", "beta", "free_nats")
    return {name: facts.get(name) for name in names}


def of_agent(found: Columns, facts: Mapping[str, Any]) -> Row:
    """The gaps of one agent."""
    most = max(found.bound)
    free = facts.get("free_nats")
    kl = found.beliefs[BEST]["kl"]
    return {
        "moments": len(found),
        "episodes": len(np.unique(found.episode)),
        "surprise": estimate(found.surprise, found.episode),
        "below_free_nats": None if free is None else float(np.mean(kl < free)),
        "beliefs": [belief(found, name) for name in (*found.names, BEST, BEST_LATER)],
        "approximation": {
            **estimate(found.approximation(most), found.episode),
            "effective": _finite(np.nanmedian(found.effective)),
            "convergence": [
                {"samples": size, **estimate(found.approximation(size), found.episode)}
                for size in found.bound
            ],
            "last_step": estimate(
                found.approximation(most) - found.approximation(_before(found, most)), found.episode
            ),
        },
        "deciles": deciles(found),
    }


def belief(found: Columns, name: str) -> Row:
    """The gaps of one belief, and the differences from the encoder's."""
    gaps = {
        "amortisation": found.amortisation(name),
        "conditioning": found.conditioning(name),
        "next": found.beliefs[name]["next"],
    }
    before = {
        "amortisation": found.amortisation(BASE),
        "conditioning": found.conditioning(BASE),
        "next": found.beliefs[BASE]["next"],
    }
    return {
        "name": name,
        **{what: estimate(values, found.episode) for what, values in gaps.items()},
        "change": {
            what: estimate(values - before[what], found.episode) for what, values in gaps.items()
        },
        "closed": _closed(gaps["amortisation"], before["amortisation"]),
    }


def deciles(found: Columns) -> list[Row]:
    """The gaps in groups of equal size, from the least to the most surprising frames."""
    order = np.argsort(found.surprise, kind="stable")
    order = order[np.isfinite(found.surprise[order])]
    out = []
    for number, some in enumerate(np.array_split(order, min(GROUPS, len(order))), start=1):
        episode, surprise = found.episode[some], found.surprise[some]
        most = max(found.bound)
        out.append(
            {
                "decile": number,
                "moments": len(some),
                "surprise": [float(surprise.min()), float(surprise.max())],
                "amortisation": {
                    name: estimate(found.amortisation(name)[some], episode) for name in found.names
                },
                "conditioning": estimate(found.conditioning(BEST)[some], episode),
                "approximation": estimate(found.approximation(most)[some], episode),
                "next": {
                    name: estimate(
                        (found.beliefs[name]["next"] - found.beliefs[BASE]["next"])[some], episode
                    )
                    for name in found.names
                    if name != BASE
                },
            }
        )
    return out


def estimate(values: Numbers, episode: Int[np.ndarray, " moments"]) -> Row:
    """A mean over episodes with its t interval; both are None if there are no numbers.

    >>> estimate(np.array([1.0, 3.0, 2.0]), np.array([0, 0, 1]))
    {'mean': 2.0, 'interval': [2.0, 2.0]}
    """
    sound = np.isfinite(values)
    values, episode = values[sound], episode[sound]
    if not len(values):
        return {"mean": None, "interval": None}
    means = np.array([values[episode == one].mean() for one in np.unique(episode)])
    if len(means) < 2:
        return {"mean": float(means[0]), "interval": None}
    # As for training seeds: Student's t over the means of episodes, with equal weights.
    low, high = paired(means, np.arange(len(means)), seed=0).interval
    return {"mean": float(means.mean()), "interval": [float(low), float(high)]}


def notes(agents: Sequence[Row], header: Header) -> list[str]:
    """Notes that are needed to read the numbers correctly, one sentence each."""
    out = []
    for one in agents:
        name, approximation = one["name"], one["approximation"]
        if one["episodes"] < header.episodes:
            out.append(f"{name}: {one['episodes']} of {header.episodes} episodes have moments.")
        if (effective := approximation["effective"]) is not None and effective < FEW:
            out.append(
                f"{name}: of {plural(header.samples, 'sample')} {effective:.1f} count (the "
                "median moment): "
                "the importance-weighted bound has not converged, and the approximation gap is at "
                "least what is shown."
            )
        if (below := one["below_free_nats"]) and below > 0:
            out.append(
                f"{name}: at {below:.0%} of the moments the best belief lies within the "
                f"{one['free_nats']:g} free nats of training, where the encoder was not asked to "
                "come closer to the prior."
            )
    return out


def _closed(after: Numbers, before: Numbers) -> float | None:
    """The share of the encoder's gap that a belief closes."""
    sound = np.isfinite(after) & np.isfinite(before)
    whole = before[sound].sum()
    return float(1 - after[sound].sum() / whole) if sound.any() and whole > 0 else None


def _before(found: Columns, most: int) -> int:
    return max((size for size in found.bound if size < most), default=most)


def _column(values: Any) -> Numbers:
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
