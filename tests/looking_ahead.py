"""Objectives over imagined futures, compiled, for the modules that test them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from helpers import Line, push

from thinkslow import objectives
from thinkslow.agent.agent import Agent
from thinkslow.readouts import Mode
from thinkslow.worldmodel import Moment, State, WorldModel, perceive


def lookahead(*given: Any, **settings: Any) -> Any:
    """The objective, compiled: operation by operation it takes ten times as long."""
    return jax.jit(objectives.lookahead(*given, **settings))


@jax.jit
def perceived(model: Any, state: State, action: jax.Array, seen: dict[str, Any]) -> Moment:
    """What is believed at a step within an episode."""
    return perceive(model, state, action, jnp.array(False), seen)


class At(NamedTuple):
    """What `lookahead` is given first."""

    model: Any
    policy: Any
    moment: Any
    """A `Moment`, of beliefs of the model's own kind."""
    seen: dict[str, Any]


def line(model: WorldModel | None = None) -> At:
    model = model or Line(jnp.array(0.8))
    seen = {"seen": jnp.array([1.0, -1.0])}
    action = jnp.array([0.3, 0.1])
    return At(model, push, perceived(model, model.initial(), action, seen), seen)


def dreaming(dreamer: Any) -> At:
    rng = np.random.default_rng(0)
    seen = {"image": jnp.asarray(rng.integers(256, size=(16, 16, 3)).astype(np.uint8))}
    state = State(
        jnp.asarray(np.float32(rng.normal(size=32))), jnp.asarray(np.eye(8, dtype="f4")[:6])
    )
    return At(
        dreamer, dreamer.policy, perceived(dreamer, state, jnp.array([0.0, 1.0, 0.0]), seen), seen
    )


def policy_keys(key: jax.Array, horizon: int) -> list[jax.Array]:
    """The keys that one future gives the policy: documented by this test alone."""
    _, future_key = jr.split(key)
    (rollout_key,) = jr.split(future_key, 1)
    _, roll_key, _ = jr.split(rollout_key, 3)
    return [jr.split(k)[0] for k in jr.split(roll_key, horizon)]


def objective_of(terms: Any) -> Any:
    """Loss and terms where the belief begins."""
    at = line()
    objective = lookahead(*at, terms, horizon=1, latent=Mode())
    return objective(at.moment.posterior, jr.key(0))


def pushed(model: Any, state: State, key: jax.Array) -> jax.Array:
    return push(state, key)


def decided(agent: Agent, seen: Mapping[str, Any], times: int = 1) -> Any:
    """What an agent thinks when it has seen the same so many times."""
    carry, thought = agent.start(1), None
    batch = jax.tree.map(lambda x: x[None], dict(seen))
    for time in range(times):
        keys = jr.split(jr.key(time), 1)
        carry, _, thought = agent.act(carry, batch, np.array([time == 0]), keys=keys)
    return thought
