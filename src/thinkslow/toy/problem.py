"""Finite partially observable problems: a few states, symbols and actions, three tables.

A hidden Markov model is a problem with one action. Every probability is positive, so no logarithm
is infinite and no belief is certain.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

FLOOR = 0.01
"""Share of the uniform distribution in every row of every table."""


class Problem(eqx.Module):
    """The tables of a problem: start, transitions and emissions."""

    start: Float[Array, " states"]
    """p(s_0)."""
    dynamics: Float[Array, "actions states states"]
    """p(s' | s, a), by action, from, to."""
    emission: Float[Array, "states symbols"]
    """p(x | s)."""

    @property
    def states(self) -> int:
        return self.emission.shape[0]

    @property
    def symbols(self) -> int:
        return self.emission.shape[1]

    @property
    def actions(self) -> int:
        return self.dynamics.shape[0]


def hidden_markov(states: int = 8, symbols: int = 5, *, seed: int = 1) -> Problem:
    """A random hidden Markov model that stays in its state with probability 0.3.

    Rows are Dirichlet draws with concentration 0.4 (dynamics) and 0.3 (emission). The documents use
    the default problem: one sample of the state instead of a belief loses 0.8 nats per step.

    >>> problem = hidden_markov()
    >>> problem.states, problem.symbols, problem.actions
    (8, 5, 1)
    """
    rng = np.random.default_rng(seed)
    moves = 0.7 * rng.dirichlet(np.full(states, 0.4), states) + 0.3 * np.eye(states)
    emission = rng.dirichlet(np.full(symbols, 0.3), states)
    return _problem(np.full(states, 1 / states), moves[None], emission)


def ring(states: int = 8, *, slip: float = 0.3, noise: float = 0.3) -> Problem:
    """A walk on a ring: action 0 steps back, action 1 steps forward; both may slip and stay.

    The symbol is the parity of the state, wrong with probability `noise`. State 0 has its own
    symbol. Without memory, the other even states cannot be distinguished.

    >>> ring().actions
    2
    """
    eye = np.eye(states)
    back, forth = np.roll(eye, -1, 1), np.roll(eye, 1, 1)
    moves = np.stack([slip * eye + (1 - slip) * move for move in (back, forth)])
    parity = np.arange(states) % 2
    emission = np.zeros((states, 3))
    emission[np.arange(states), parity] = 1 - noise
    emission[np.arange(states), 1 - parity] = noise
    emission[0] = (noise / 2, noise / 2, 1 - noise)
    return _problem(np.full(states, 1 / states), moves, emission)


def family(problem: Problem, members: int, *, spread: float, seed: int = 0) -> list[Problem]:
    """Plausible versions of a problem: its tables mixed with a share `spread` of random ones.

    With `spread` 0 every member is the problem itself; with 1 they share its start only.
    """
    rng = np.random.default_rng(seed)

    def near(table: Array) -> Float[Array, "..."]:
        other = rng.dirichlet(np.ones(table.shape[-1]), table.shape[:-1])
        return (1 - spread) * table + spread * jnp.asarray(other, table.dtype)

    return [
        Problem(problem.start, near(problem.dynamics), near(problem.emission))
        for _ in range(members)
    ]


def simulate(
    problem: Problem, actions: Int[Array, " time"], *, key: PRNGKeyArray
) -> tuple[Int[Array, " time"], Int[Array, " time"]]:
    """True states and symbols of one episode. `actions[0]` leads to the start and is ignored."""

    def step(state: Array, inputs: tuple) -> tuple[Array, tuple[Array, Array]]:
        time, action, key = inputs
        move_key, show_key = jr.split(key)
        row = jnp.where(time == 0, problem.start, problem.dynamics[action, state])
        state = jr.categorical(move_key, jnp.log(row))
        return state, (state, jr.categorical(show_key, jnp.log(problem.emission[state])))

    inputs = (jnp.arange(len(actions)), actions, jr.split(key, len(actions)))
    return jax.lax.scan(step, jnp.zeros((), int), inputs)[1]


def _problem(start: np.ndarray, dynamics: np.ndarray, emission: np.ndarray) -> Problem:
    def floored(table: np.ndarray) -> Float[Array, "..."]:
        return jnp.asarray((1 - FLOOR) * table + FLOOR / table.shape[-1], jnp.float32)

    return Problem(floored(start), floored(dynamics), floored(emission))
