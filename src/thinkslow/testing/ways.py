"""Entries of ways to think that are no term and no update: other variables, checks, and more."""

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow.agent import agent as engine
from thinkslow.agent.agent import Agent
from thinkslow.agent.checks import Clean, Covered, Robust
from thinkslow.agent.gates import Gated, GateScore, Surprise, gated
from thinkslow.agent.thinking import Thinking
from thinkslow.needs import unmet
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
    """A way to think, at full strength and at none.

    At full strength, the frame of the second decision is flagged as missing, a check finds every
    frame suspicious, and a gate opens for every decision. At none, no frame is missing or
    suspicious, and the gate stays closed.
    """

    full: Thinking
    """The settings at full strength."""
    none: Thinking | None = None
    """At none; None: the same ones."""
    base: Thinking | None = None
    """What it is at no strength; None: the base agent."""
    tolerance: float = 0.0
    """How far the beliefs may be from those of the base; 0: bit for bit."""
    gate: GateScore | None = None
    """The score of a gate before the thinking."""
    numeric: bool = True
    """Whether its strength is a number, whose change compiles nothing."""


def _drawn(**settings: Any) -> Thinking:
    """Random steps."""
    return Thinking({Anchor(): 1.0}, steps=2, update=Random(), record=False, **settings)


def _stepped(variable: Any) -> Way:
    def settings(nats: float) -> Thinking:
        return _drawn(variable=variable, max_kl=nats)

    return Way(settings(0.5), settings(0.0))


def _smoothed(nats: float) -> Thinking:
    return Thinking(lag=2, smoothing=2, smoothing_nats=nats)


WAYS: dict[str, Way] = {
    **{f"steps of the {name}": _stepped(name) for name in ("latent", "state", "memory")},
    "predict-through": Way(Thinking(missing="predict")),
    "several futures": Way(Thinking(missing="predict", futures=3)),
    "fixed lag": Way(Thinking(lag=2), Thinking(), numeric=False),
    "particles": Way(Thinking(particles=4), Thinking(), numeric=False),
    # The window holds the present frame too; the programs round differently.
    "joint smoothing": Way(_smoothed(0.5), _smoothed(0.0), Thinking(lag=1), tolerance=1e-4),
    **{
        f"check {type(check).__name__}": Way(Thinking(check=check, missing="predict"))
        for check in (Robust(beta=0.1), Covered(beta=0.1))
    },
    "gate": Way(_drawn(max_kl=0.5), gate=Surprise()),
}
"""All built-in ways, in the form in which they are checked."""


def way_entries(case: Case, ways: Mapping[str, Way]) -> Iterator[Entry]:
    """Entries of each way that the model supports; of each other one, an entry with the reason."""
    for name, way in ways.items():
        yield from _entries(case, name, way)


def _entries(case: Case, name: str, way: Way) -> Iterator[Entry]:
    def entry(rule: str, holds: bool | None, detail: str = "") -> Entry:
        return Entry(case.name, name, "", rule, holds, detail)

    plain = Agent(
        case.model,
        members=case.members,
        policy=lambda m, s, key: jnp.ravel(case.policy(s, key)),
    )
    reason = plain.cannot(way.full)
    if reason is None and way.gate is not None:
        reason = unmet(case.model, way.gate.needs, case.members)
    if reason is not None:
        yield entry("applies to the model", None, reason)
        return

    played = partial(_played, case, plain)
    base = played(way.base or Thinking(), None, strong=False)
    none = played(way.none or way.full, way.gate, strong=False)
    if way.tolerance:
        soft = jax.vmap(lambda belief: belief.soft())
        beliefs = [[soft(each[2]) for each in run] for run in (none, base)]
        near, detail = close(beliefs[0], beliefs[1], way.tolerance)
        yield entry("no strength is the base", near, detail)
    else:
        states = [[each[:2] for each in run] for run in (none, base)]
        yield entry("no strength does not change state and action, bit for bit", *same(*states))
    compiled = compilations()
    full = played(way.full, way.gate, strong=True)
    if way.numeric:
        anew = compilations() - compiled
        yield entry("changed numbers do not compile again", not anew, f"{anew} programs")
    arrays = [x for x in jax.tree.leaves(full) if jnp.issubdtype(x.dtype, jnp.floating)]
    yield entry("numbers are finite", bool(all_finite(arrays)))
    moved = not same(*([(each[0], each[2]) for each in run] for run in (full, none)))[0]
    yield entry("full strength changes state or belief", moved)
    yield entry("same keys, same thinking", *same(played(way.full, way.gate, strong=True), full))


def _played(
    case: Case, agent: Agent, settings: Thinking, gate: GateScore | None, *, strong: bool
) -> list[Any]:
    """State, action and refined belief of every decision of an episode."""
    threshold, usual = (-1.0, TINY) if strong else (NEVER, 1.0)
    clean = Clean.even(case.model, threshold, usual=usual)
    player: Any = dataclasses.replace(agent, settings=settings, clean=clean)
    if gate is not None:
        player = Gated(player, gate, -NEVER if strong else NEVER)
    batch = {key: np.asarray(value)[None] for key, value in case.observation.items()}
    carry, out = player.start(1), []
    if gate is not None:
        opening = player.opening_above(0.0)  # one that never opens compiles no thinking
        opening.warm(carry, batch, np.ones(1, bool), keys=jr.split(jr.key(0), 1))
    for number in range(DECISIONS):
        told = {}
        if settings.missing:
            told["missing"] = np.array([strong and number == 1])
        keys, first = jr.split(jr.key(number), 1), np.array([number == 0])
        carry, action, thought = player.act(carry, batch, first, keys=keys, **told)
        carry = dataclasses.replace(carry, action=jnp.asarray(case.action)[None])
        out.append((thought.state, action, thought.after))
    return out


def compilations() -> int:
    """How many programs of decisions this process has compiled, of plain and of gated agents."""
    programs: tuple[Any, ...] = (engine._act, gated._look, gated._think_again)
    return sum(program._cache_size() for program in programs)
