"""When to think: how doubtful a moment is, and an agent that thinks only in doubt.

A closed gate has to cost nothing. Under `vmap` a conditional becomes a selection and saves no
work, so the choice is made between two compiled programs: the first decides for the whole batch
without thinking and scores each moment; the second decides again, thinking, for the environments
in doubt alone, gathered into a batch whose size is the next power of two. A moment without doubt
is the base agent's, bit for bit; one in doubt is the thinking agent's, but for the rounding of
another batch size.

Scores come without a scale. `calibrate` turns recorded ones into the threshold of a budget: think
in so large a share of the decisions.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from thinkslow.agent.agent import Agent, Wrapped
from thinkslow.agent.decision import Carry, Thought, decide
from thinkslow.agent.thinking import Knobs, Thinking
from thinkslow.objectives import parameter_information_gain
from thinkslow.objectives.members import Members
from thinkslow.worldmodel import Observation, State, WorldModel

Score: TypeAlias = Literal[
    "surprise", "entropy", "novelty", "sensitivity", "disagreement", "random"
]

SCORES: dict[Score, str] = {
    "surprise": "Bayesian surprise, KL(posterior || prior), nats",
    "entropy": "entropy of the posterior, nats",
    "novelty": "by how many nats the history predicts worse than none: above 0, it misleads",
    "sensitivity": "how often two latents of the belief choose different actions",
    "disagreement": "nats by which plausible parameters differ on the prior; needs an ensemble",
    "random": "a uniform number: the control of every gate, at an equal rate",
}
"""What a gate may go by."""

LATENTS = 8
"""Latents that `sensitivity` compares."""


class Gated(Wrapped):
    """An agent that thinks where `score` is above `threshold`; used like an `Agent`.

    `threshold` may change between decisions: nothing compiles again.

    **Errors:** `ValueError` for an unknown score, an agent without refinement steps, one that
    uses more of the past (its carry would have to be kept while the gate is closed), or a score
    that needs an ensemble where there is none.
    """

    def __init__(self, agent: Agent, score: Score, threshold: float):
        thinking = agent.thinking
        if score not in get_args(Score):
            raise ValueError(f"`score` must be one of {', '.join(SCORES)}; got {score!r}.")
        if not thinking.steps or thinking.lag or thinking.particles > 1:
            raise ValueError(
                "A gate opens for refinement: `steps` must be 1 or more, `lag` 0 and `particles` "
                f"1; got {thinking.steps}, {thinking.lag} and {thinking.particles}."
            )
        if score == "disagreement" and agent.members is None:
            raise ValueError(
                "`disagreement` compares plausible parameters and this agent has none. Fit them: "
                "thinkslow ensemble AGENT."
            )
        self.agent, self.score, self.threshold = agent, score, threshold

    def act(
        self,
        carry: Carry,
        observation: Mapping[str, Array | np.ndarray],
        is_first: Bool[Array | np.ndarray, " batch"],
        *,
        keys: Key[Array, " batch"],
    ) -> tuple[Carry, Float[Array, "batch action"], Thought]:
        """One decision for a batch, as `Agent.act`; the iterates of refinement are not kept.

        One compiled call if no environment is in doubt, two if any is. A score that is not a
        number opens no gate. Compiles the thinking program once for each power of two up to the
        batch, when it is first needed or by `warm`.
        """
        given = self.agent.given(carry, observation, is_first, keys)
        first = _look(*given, self.agent.policy, self.score)
        doubtful = np.flatnonzero(np.asarray(first[2].doubt) > self.threshold)
        if not len(doubtful):
            return first
        # Repeats fill the batch; equal rows are written twice.
        return self._again(given, first, np.resize(doubtful, _size(len(doubtful))))

    def warm(
        self, carry: Carry, observation: Mapping[str, Array | np.ndarray],
        is_first: Bool[Array | np.ndarray, " batch"], *, keys: Key[Array, " batch"],
    ) -> None:  # fmt: skip
        given = self.agent.given(carry, observation, is_first, keys)
        first = _look(*given, self.agent.policy, self.score)
        for size in {_size(count) for count in range(1, len(keys) + 1)}:
            jax.block_until_ready(self._again(given, first, np.zeros(size, int)))

    def _again(self, given: tuple, first: tuple, chosen: np.ndarray) -> tuple:
        return _think_again(*given, *self.agent.structure, first, chosen)


def _size(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def calibrate(scores: npt.ArrayLike, share: float) -> float:
    """The threshold above which `share` of recorded scores lie.

    Scores that are not numbers are left out.

    **Errors:** `ValueError` for a share outside (0, 1], or no scores.

    >>> calibrate([1.0, 2.0, 3.0, 4.0, 5.0], 0.4)
    3.0
    """
    values = np.asarray(scores, float).ravel()
    values = values[~np.isnan(values)]
    if not 0 < share <= 1:
        raise ValueError(f"`share` must be above 0 and at most 1; got {share}.")
    if not len(values):
        raise ValueError("`scores` must hold at least one number to calibrate by; got none.")
    if share == 1:
        return float("-inf")
    return float(np.quantile(values, 1 - share, method="inverted_cdf"))


def doubt(
    score: Score,
    model: WorldModel,
    policy: Callable[[State, PRNGKeyArray], Array],
    thought: Thought,
    observation: Observation,
    *,
    members: Members | None = None,
    key: PRNGKeyArray,
) -> Float[Array, ""]:
    """How doubtful one moment is, by one of `SCORES`.

    `novelty` is KL(q || p) - KL(q || p_0) + KL(q || q_0), where p_0 and q_0 are prior and
    posterior of the same observation with no history: if the history helps, it predicts the
    posterior better than nothing does, beyond what the observation tells by itself.

    **References:** novelty after Zollicoffer et al., Novelty Detection in Reinforcement Learning
    with World Models, arXiv 2310.08731.

    **Cost:** `surprise`, `entropy`, `random`: nothing to speak of. `novelty`: one step of the core
    and one encoding. `sensitivity`: 8 actions. `disagreement`: one prior per member.
    """
    belief, prior = thought.before, thought.prior
    match score:
        case "surprise":
            return belief.kl(prior)
        case "entropy":
            return belief.entropy()
        case "random":
            return jr.uniform(key)
        case "sensitivity":
            latent_key, action_key = jr.split(key)
            latents = jax.vmap(lambda k: belief.sample(key=k))(jr.split(latent_key, LATENTS))
            memory = thought.base.memory
            actions = jax.vmap(lambda z: policy(State(memory, z), action_key))(latents)
            return jnp.sum(jnp.mean(actions**2, 0) - jnp.mean(actions, 0) ** 2)
        case "novelty":
            blank = model.initial()
            action = jnp.zeros_like(policy(thought.base, key))
            memory, alone = model.predict(blank, action, jnp.ones((), bool))
            told = model.infer(memory, observation)
            return belief.kl(prior) - belief.kl(alone) + belief.kl(told)
        case "disagreement":
            assert members is not None

            def next_prior(model: Any) -> Any:
                action = policy(thought.base, key)
                return model.predict(thought.base, action, jnp.zeros((), bool))[1]

            return parameter_information_gain(members.each(model, next_prior))


@partial(jax.jit, static_argnums=(7, 8))
def _look(
    model: WorldModel, members: Members | None, knobs: Knobs, carry: Carry,
    observation: Observation, is_first: Bool[Array, " batch"], keys: Key[Array, " batch"],
    policy: Callable, score: Score,
) -> tuple[Carry, Array, Thought]:  # fmt: skip
    """Decide without thinking, and score."""

    def one(
        carry: Carry, observation: Observation, is_first: Array, key: PRNGKeyArray
    ) -> tuple[Carry, Array, Thought]:
        carry, action, thought = decide(
            model, policy, Thinking(), knobs, carry, observation, is_first, key
        )
        found = doubt(
            score, model, lambda s, k: policy(model, s, k), thought, observation,
            members=members, key=jr.fold_in(key, 0x6A7E),
        )  # fmt: skip
        return carry, action, dataclasses.replace(thought, doubt=found)

    return jax.vmap(one)(carry, observation, is_first, keys)


@partial(jax.jit, static_argnums=(7, 8))
def _think_again(
    model: WorldModel, members: Members | None, knobs: Knobs, carry: Carry,
    observation: Observation, is_first: Bool[Array, " batch"], keys: Key[Array, " batch"],
    thinking: Thinking, policy: Callable, first: tuple[Carry, Array, Thought],
    chosen: Int[Array | np.ndarray, " some"],
) -> tuple[Carry, Array, Thought]:  # fmt: skip
    """Decide again for the chosen environments, and put their decisions among the first."""
    some = jax.tree.map(lambda x: x[chosen], (carry, observation, is_first, keys))
    think = partial(decide, model, policy, thinking, knobs, members=members)
    carry_again, action, thought = jax.vmap(think)(*some)
    scores = jax.tree.map(lambda x: x[chosen], first[2].doubt)
    thought = dataclasses.replace(thought, refined=None, doubt=scores)
    return jax.tree.map(
        lambda old, new: old.at[chosen].set(new), first, (carry_again, action, thought)
    )
