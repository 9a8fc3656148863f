"""Entries of a choice by value: the behaviour of an agent with it."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow.agent.agent import Agent
from thinkslow.agent.choices import Values
from thinkslow.agent.thinking import Thinking
from thinkslow.needs import unmet
from thinkslow.testing.case import Case
from thinkslow.testing.entries import Entry, same

FEW = 3
"""Numbers of latents and steps that are enough for every rule."""


def choice_entries(case: Case) -> Iterator[Entry]:
    """Entries of choosing by value, for a model that supports it; otherwise one entry with the
    reason.
    """
    name = "values"

    def entry(rule: str, holds: bool | None, detail: str) -> Entry:
        return Entry(case.name, name, "", rule, holds, detail)

    if (reason := unmet(case.model, Values().needs)) is not None:
        yield entry("applies to the model", None, reason)
        return
    batch = {key: np.asarray(value)[None] for key, value in case.observation.items()}

    def act(choice: Values | None) -> tuple[Any, Any, Any]:
        agent = Agent(case.model, Thinking(choice=choice))
        carry = dataclasses.replace(agent.start(1), action=jnp.asarray(case.action)[None])
        return agent.act(carry, batch, np.ones(1, bool), keys=jr.split(jr.key(0), 1))

    def values(max_kl: float) -> Values:
        return Values(latents=FEW, horizon=FEW, max_kl=max_kl, scale=1.0)

    plain = act(None)[:2]
    yield entry(
        "a choice of 0 nats does not change state and action, bit for bit",
        *same(act(values(0.0))[:2], plain),
    )
    found = act(values(0.3))
    yield entry("same keys, same choice", *same(act(values(0.3))[2].chosen, found[2].chosen))
    yield entry("a choice leaves the state that is carried", *same(found[0].state, plain[0].state))
    kl = np.asarray(found[2].chosen.kl)
    yield entry("KL is within its bound", bool((kl <= 0.3 + 1e-4).all()), f"{kl.max():.3g} nats")
