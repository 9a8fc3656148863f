"""A world model for a finite problem, exact except for chosen errors.

The memory is the logarithm of the prior over states; the latent is a one-hot state. Like an RSSM,
the model carries one sample of the state, and its belief follows from that sample. If the soft
latent is carried, the latent is the belief itself and the memory is that of the exact filter.

Every table enters linearly in the latent, so that a soft latent gives the expectation over the
belief itself, and straight-through gradients of the evidence have no bias.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from thinkslow.distributions import Categorical, straight_through
from thinkslow.heads import Distribution
from thinkslow.toy.problem import Problem
from thinkslow.worldmodel import Observation, State, WorldModel


class Symbol(Categorical):
    """The symbol that a state shows. `logits` are of the mixture, where the latent is soft;
    log-probability and entropy are then the expectations over states."""

    expected: Float[Array, " symbols"] = eqx.field(kw_only=True)
    """E log p(x | z)."""
    ambiguity: Float[Array, ""] = eqx.field(kw_only=True)
    """E H(x | z)."""

    def log_prob(self, value: Float[Array, " symbols"]) -> Float[Array, ""]:
        return jnp.sum(value * self.expected)

    def entropy(self) -> Float[Array, ""]:
        return self.ambiguity


class Toy(WorldModel):
    """A finite problem as a world model; the observation is `{"symbol": integer}`.

    The belief is categorical over the states, exact with `reader` the logarithm of the emission.
    """

    problem: Problem
    reader: Float[Array, "states symbols"]
    """Log-likelihoods that the encoder adds to the prior."""
    acts: Float[Array, "states actions"]
    """The policy's probabilities by state."""

    @property
    def trained_beta(self) -> float:
        return 1.0

    @property
    def trained_free_nats(self) -> float:
        return 0.0

    def initial(self) -> State:
        start = self.problem.start
        return State(jnp.log(start), jnp.zeros_like(start))

    def predict(
        self, state: State, action: Float[Array, " actions"], is_first: Bool[Array, ""]
    ) -> tuple[Float[Array, " states"], Categorical]:
        moved = jnp.einsum("a,s,ast->t", action, state.latent, self.problem.dynamics)
        memory = jnp.log(jnp.where(is_first, self.problem.start, moved))
        return memory, Categorical(memory)

    def infer(self, memory: Float[Array, " states"], observation: Observation) -> Categorical:
        seen = jnp.asarray(observation["symbol"])
        if not jnp.issubdtype(seen.dtype, jnp.floating):
            seen = jax.nn.one_hot(seen, self.problem.symbols, dtype=self.reader.dtype)
        return Categorical(memory + self.reader @ seen)

    def decode(self, state: State) -> dict[str, Distribution]:
        emission = self.problem.emission
        logs = jnp.log(emission)
        return {
            "symbol": Symbol(
                jnp.log(state.latent @ emission),
                expected=state.latent @ logs,
                ambiguity=-state.latent @ jnp.sum(emission * logs, -1),
            )
        }

    def policy(self, state: State, key: PRNGKeyArray) -> Float[Array, " actions"]:
        """A sampled action, one-hot; the gradient reaches the probabilities."""
        probs = state.latent @ self.acts
        chosen = jr.categorical(key, jnp.log(probs))
        return straight_through(jax.nn.one_hot(chosen, self.problem.actions), probs)


def exact(problem: Problem) -> Toy:
    """The encoder is Bayes' rule; the policy is uniform."""
    acts = jnp.full((problem.states, problem.actions), 1 / problem.actions)
    return Toy(problem, jnp.log(problem.emission), acts)


def noisy(problem: Problem, error: float, *, seed: int = 0) -> Toy:
    """The encoder has a fixed table of normal errors in its logits, with deviation `error`.

    The amortisation gap of a moment is known: the KL from the belief of `exact` at the same memory.
    With `error` 0 the model is `exact`.
    """
    model = exact(problem)
    wrong = np.random.default_rng(seed).normal(size=model.reader.shape)
    reader = model.reader + error * jnp.asarray(wrong, model.reader.dtype)
    return eqx.tree_at(lambda m: m.reader, model, reader)


def off_manifold(problem: Problem, leak: float = 0.3) -> Toy:
    """Each state has a twin that never occurs in the world but can be imagined by the model.

    A twin moves like its state, is imagined with probability `leak`, and decodes to the symbol of
    the next state. The encoder rules twins out by 6 nats, so the decoded symbol of a twin is
    encoded as another state.
    """
    real, twin = 1 - leak, leak
    start = jnp.concatenate([real * problem.start, twin * problem.start])
    moves = jnp.concatenate([real * problem.dynamics, twin * problem.dynamics], -1)
    doubled = Problem(
        start,
        jnp.concatenate([moves, moves], 1),
        jnp.concatenate([problem.emission, jnp.roll(problem.emission, -1, 0)]),
    )
    model = exact(doubled)
    rule_out = jnp.repeat(jnp.array([0.0, 6.0]), problem.states)
    return eqx.tree_at(lambda m: m.reader, model, model.reader - rule_out[:, None])
