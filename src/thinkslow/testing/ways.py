"""Entries of ways to think that are no term and no update: other variables, checks, and more."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow.agent import agent as engine
from thinkslow.agent.agent import Agent
from thinkslow.agent.checks import Clean, Covered, Robust
from thinkslow.agent.thinking import Thinking
from thinkslow.objectives import Anchor
from thinkslow.refinement import Random
from thinkslow.testing.case import Case
from thinkslow.testing.entries import Entry, close, same
from thinkslow.trees import all_finite

DECISIONS = 3
"""Decisions of an episode; the frame of the second one is lost."""

TINY, NEVER = 1e-9, float("inf")
"""A usual error that makes every frame bad, and a threshold that no frame exceeds."""


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to think, whose strength is a number.

    At full strength, the frame of the second decision is flagged as missing, and a check finds
    every frame suspicious; at none, no frame is.
    """

    full: Thinking
    """The settings at full strength."""
    none: Thinking | None = None
    """At none; None: the same ones."""
    base: Thinking | None = None
    """What it is at no strength; None: the base agent."""
    tolerance: float = 0.0
    """How far the beliefs may be from those of the base; 0: bit for bit."""


def _stepped(variable: Any) -> Way:
    def settings(nats: float) -> Thinking:
        return Thinking(
            {Anchor(): 1.0}, steps=2, update=Random(), max_kl=nats, variable=variable, record=False
        )

    return Way(settings(0.5), settings(0.0))


def _smoothed(nats: float) -> Thinking:
    return Thinking(lag=2, smoothing=2, smoothing_nats=nats)


WAYS: dict[str, Way] = {
    **{f"steps of the {name}": _stepped(name) for name in ("latent", "state", "memory")},
    "predict-through": Way(Thinking(missing="predict")),
    "several futures": Way(Thinking(missing="predict", futures=3)),
    # The window holds the present frame too; the programs round differently.
    "joint smoothing": Way(_smoothed(0.5), _smoothed(0.0), Thinking(lag=1), tolerance=1e-4),
    **{
        f"check {type(check).__name__}": Way(Thinking(check=check, missing="predict"))
        for check in (Robust(beta=0.1), Covered(beta=0.1))
    },
}
"""All built-in ways, in the form in which they are checked."""


def way_entries(case: Case, ways: Mapping[str, Way]) -> Iterator[Entry]:
    """Entries of each way that the model supports; of each other one, an entry with the reason."""
    for name, way in ways.items():
        yield from _entries(case, name, way)


def _entries(case: Case, name: str, way: Way) -> Iterator[Entry]:
    def entry(rule: str, holds: bool | None, detail: str = "") -> Entry:
        return Entry(case.name, name, "", rule, holds, detail)

    plain = Agent(case.model, policy=lambda m, s, key: jnp.ravel(case.policy(s, key)))
    if (reason := plain.cannot(way.full)) is not None:
        yield entry("applies to the model", None, reason)
        return

    def played(settings: Thinking, strong: bool) -> list[Any]:
        threshold, usual = (-1.0, TINY) if strong else (NEVER, 1.0)
        clean = Clean.even(case.model, threshold, usual=usual)
        agent = dataclasses.replace(plain, settings=settings, clean=clean)
        batch = {key: np.asarray(value)[None] for key, value in case.observation.items()}
        carry, out = agent.start(1), []
        for number in range(DECISIONS):
            told = {}
            if settings.missing:
                told["missing"] = np.array([strong and number == 1])
            keys, first = jr.split(jr.key(number), 1), np.array([number == 0])
            carry, action, thought = agent.act(carry, batch, first, keys=keys, **told)
            carry = dataclasses.replace(carry, action=jnp.asarray(case.action)[None])
            out.append((thought.state, action, thought.after))
        return out

    base, none = played(way.base or Thinking(), False), played(way.none or way.full, False)
    if way.tolerance:
        soft = jax.vmap(lambda belief: belief.soft())
        beliefs = [[soft(each[2]) for each in run] for run in (none, base)]
        near, detail = close(beliefs[0], beliefs[1], way.tolerance)
        yield entry("no strength is the base", near, detail)
    else:
        states = [[each[:2] for each in run] for run in (none, base)]
        yield entry("no strength does not change state and action, bit for bit", *same(*states))
    programs: Any = engine._act
    compiled = programs._cache_size()
    full = played(way.full, True)
    anew = programs._cache_size() - compiled
    yield entry("changed numbers do not compile again", not anew, f"{anew} programs")
    arrays = [x for x in jax.tree.leaves(full) if jnp.issubdtype(x.dtype, jnp.floating)]
    yield entry("numbers are finite", bool(all_finite(arrays)))
    moved = not same(*([(each[0], each[2]) for each in run] for run in (full, none)))[0]
    yield entry("full strength changes state or belief", moved)
    yield entry("same keys, same thinking", *same(played(way.full, True), full))
