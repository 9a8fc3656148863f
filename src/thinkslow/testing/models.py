"""Entries of a model: its shapes, and the behaviour of its agent without thinking."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow.agent.agent import Agent
from thinkslow.agent.thinking import Thinking
from thinkslow.objectives import Anchor
from thinkslow.refinement import Mirror, Random
from thinkslow.testing.case import Case
from thinkslow.testing.entries import Entry, same

ANCHOR = {Anchor(): 1.0}


def form_entries(case: Case) -> Iterator[Entry]:
    """What the model returns has the shapes and types that everything else needs."""
    initial = case.model.initial()
    memory, prior, posterior = jax.eval_shape(case.beliefs, case.arrays)
    latent = jax.eval_shape(lambda b: b.mode(), posterior)
    pairs = {
        "predict keeps the memory's shapes and types": (_shapes(memory), _shapes(initial.memory)),
        "prior and posterior are of one kind and shape": (_shapes(prior), _shapes(posterior)),
        "a latent has the shape of the initial one": (latent.shape, initial.latent.shape),
    }
    for rule, (found, expected) in pairs.items():
        equal = found == expected
        yield Entry(
            case.name, "", "", rule, equal, "" if equal else f"{found}, expected {expected}"
        )


def agent_entries(case: Case) -> Iterator[Entry]:
    """Thinking with no steps or 0 nats changes nothing, and thinking does not change other random
    numbers.
    """

    def policy(model: Any, state: Any, key: Any) -> Any:
        """The action, and numbers that identify the key it was drawn with."""
        action = jnp.ravel(case.policy(state, key))
        return jnp.concatenate([action, jr.normal(key, (4,), action.dtype)])

    def act(thinking: Thinking) -> tuple[Any, Any, Any]:
        agent = Agent(case.model, thinking, policy=policy)
        given = Agent(case.model, thinking, policy=lambda m, s, key: jnp.ravel(case.policy(s, key)))
        carry = dataclasses.replace(given.start(1), action=case.action[None])
        batch = {key: np.asarray(value)[None] for key, value in case.observation.items()}
        return agent.act(carry, batch, np.ones(1, bool), keys=jr.split(jr.key(0), 1))

    def entry(rule: str, holds: bool, detail: str) -> Entry:
        return Entry(case.name, "", "", rule, holds, detail)

    def drawn(nats: float) -> Thinking:
        return Thinking(ANCHOR, steps=2, update=Random(), max_kl=nats)

    plain, acted, thought = act(Thinking())
    for what, thinking in {
        "no steps": Thinking(ANCHOR, accept=True, select="best", update=Mirror()),
        "0 nats": drawn(0.0),
    }.items():
        rule = f"thinking of {what} does not change state and action, bit for bit"
        yield entry(rule, *same(act(thinking)[:2], (plain, acted)))
    _, other, moved = act(drawn(0.5))
    equal = same((moved.base, other[:, -4:]), (thought.base, acted[:, -4:]))[0]
    far = float(moved.moved[0])
    yield entry(
        "thinking leaves the random numbers of latent and action",
        equal and far > 0,
        f"equal {equal}, moved by {far:.2g} nats",
    )


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), eqx.filter(tree, _is_array))


def _is_array(x: Any) -> bool:
    return hasattr(x, "dtype")
