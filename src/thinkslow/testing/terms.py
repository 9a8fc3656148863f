"""Entries of terms: all in a few compiled programs, each judged separately."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow.distributions import Categorical
from thinkslow.readouts import Soft
from thinkslow.testing.case import Case, Given, Traced
from thinkslow.testing.entries import Entry, close
from thinkslow.trees import cast
from thinkslow.worldmodel import State


def term_entries(case: Case, values: Traced, at: Any) -> Iterator[Entry]:
    weights = {name: jnp.float32(1.5 - i) for i, name in enumerate(values.terms)}
    given = (weights, case.given(at), at[2], jr.key(1))
    total, compiled = values.found(*given)
    with jax.disable_jit():
        _, eager = values.found(*given)
    expected = sum(float(weights[name] * compiled[name]) for name in weights)
    # A sum of a few float32 numbers, relative to the largest of them.
    size = 1 + max(abs(float(weights[name] * compiled[name])) for name in weights)
    yield Entry(
        case.name,
        "+".join(values.terms),
        "",
        "the objective is the weighted sum of its terms",
        bool(abs(float(total) - expected) <= 1e-5 * size),
        f"{total} against {expected}",
    )
    analytic, numeric = _slopes(case, values)
    heads = jax.eval_shape(case.model.decode, State(at[0], at[2].mode()))
    classes = [name for name, head in heads.items() if isinstance(head, Categorical)]
    for term in values.terms:
        yield Entry(
            case.name,
            term,
            "",
            "compiled is as eager",
            *close(compiled[term], eager[term], 1e-4),
        )
        rule = "gradient is that of finite differences"
        if term.startswith(("sig", "elbo")) and classes:
            reason = f"an imagined class (`{classes[0]}`) has a straight-through gradient"
            yield Entry(case.name, term, "", rule, None, reason)
            continue
        # Central differences in float64: 1e-10 of the third derivative, 1e-11 of rounding.
        good = bool(np.isclose(analytic[term], numeric[term], rtol=1e-5, atol=1e-7))
        yield Entry(
            case.name,
            term,
            "",
            rule,
            good,
            f"{analytic[term]} against {numeric[term]}",
        )


def _slopes(case: Case, values: Traced) -> tuple[dict[str, Any], dict[str, Any]]:
    """The derivative along one direction, on the soft latent, with fixed actions, in float64."""
    with jax.enable_x64(True):
        given = (case.arrays, case.members, dict(case.observation), case.action)
        arrays, members, seen, action = cast(jax.tree.map(jnp.asarray, given), jnp.float64)
        wide = dataclasses.replace(case, observation=seen, action=action)

        @jax.jit
        def both(arrays: Any, members: Any) -> tuple[Any, Any]:
            at, held = wide.beliefs(arrays), wide.start(arrays)

            def policy(state: State, key: Any) -> Any:
                return case.policy(held, key).astype(jnp.float64)

            belief = jax.tree.map(lambda x: x + 0.3 * _wave(x, 1.0), at[2])
            way = jax.tree.map(lambda x: _wave(x, 2.0), belief)
            weights = dict.fromkeys(values.terms, 1.0)
            here = Given(arrays, members, seen, at)
            objective = wide.objective(values.objects, weights, here, policy=policy, latent=Soft())

            def along(length: Any) -> Any:
                there = jax.tree.map(lambda x, d: x + length * d, belief, way)
                return objective(there, jr.key(0))[1]

            step = 1e-5
            ends = jax.vmap(along)(jnp.array([step, -step]))
            numeric = jax.tree.map(lambda x: (x[0] - x[1]) / (2 * step), ends)
            return jax.jvp(along, (0.0,), (1.0,))[1], numeric

        return jax.tree.map(float, both(arrays, members))


def _wave(x: Any, phase: float) -> Any:
    """A direction without symmetries."""
    return jnp.sin(phase + jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
