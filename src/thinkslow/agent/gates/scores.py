"""Gate scores: what a gate measures of a decision to open or stay closed.

They have no common scale; a quantile of recorded scores gives the threshold. Subclass `GateScore`
for your own.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import xlogy
from jax.scipy.stats import norm
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.agent.choices.choice import Facing
from thinkslow.agent.choices.values import Values, mean_and_error, shrunk
from thinkslow.distributions import Categorical
from thinkslow.needs import ACTOR, CRITIC, DISCOUNT, MEMBERS, REWARD, Need
from thinkslow.objectives import parameter_information_gain
from thinkslow.objectives.members import Members
from thinkslow.trees import only_if
from thinkslow.worldmodel import Action, Observation, State, WorldModel

if TYPE_CHECKING:
    from thinkslow.agent.decision import Thought


class BaseDecision(NamedTuple):
    """The inputs of a gate score: one decision without thinking, without a batch axis.

    Attributes:
        model: the world model.
        policy: `policy(state, key)` returns an action vector; what the agent acts by.
        thought: the decision, with its `prior`, the belief `before`, and the state `base`.
        observation: the present observation: arrays by name.
        members: plausible parameters, if the agent has them; otherwise None.
    """

    model: WorldModel
    policy: Callable[[State, PRNGKeyArray], Action]
    thought: "Thought"
    observation: Observation
    members: Members | None


class GateScore(eqx.Module):
    """A score of one decision: a gate thinks where it is high."""

    keeps: ClassVar[tuple[str, ...]] = ()
    """Settings of a control that flags and studies do not change."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it needs from a model."""
        return ()

    @property
    def name(self) -> str:
        """Its name in records."""
        return type(self).__name__.lower()

    def calibrated(self, threshold: Callable[["GateScore", float], float]) -> "GateScore":
        """The score with its own thresholds set; most scores have none.

        Args:
            threshold: the value that a share of the decisions exceeds, from a score and the share.
        """
        return self

    @abc.abstractmethod
    def __call__(self, decision: BaseDecision, *, key: PRNGKeyArray) -> Float[Array, ""]:
        """The score of one decision; NaN opens no gate.

        Args:
            decision: the model, the observation, and the decision without thinking.
            key: PRNG key of the score's random draws.
        """


class Surprise(GateScore):
    """Bayesian surprise, KL(posterior || prior), nats. **Cost:** none."""

    def __call__(self, decision: BaseDecision, *, key: PRNGKeyArray) -> Float[Array, ""]:
        return decision.thought.before.kl(decision.thought.prior)


class PosteriorEntropy(GateScore):
    """Entropy of the posterior, nats. **Cost:** none."""

    @property
    def name(self) -> str:
        return "entropy"

    def __call__(self, decision: BaseDecision, *, key: PRNGKeyArray) -> Float[Array, ""]:
        return decision.thought.before.entropy()


class Novelty(GateScore):
    """By how many nats the history predicts worse than no history: above 0, it misleads.

    KL(q || p) - KL(q || p_0) + KL(q || q_0), where p_0 and q_0 are prior and posterior of the
    same observation without history. A history that helps predicts the posterior better than no
    history, beyond the information of the observation itself.

    **References:** Zollicoffer et al., Novelty Detection in Reinforcement Learning with World
    Models, arXiv 2310.08731.

    **Cost:** one step of the core and one encoding.
    """

    def __call__(self, decision: BaseDecision, *, key: PRNGKeyArray) -> Float[Array, ""]:
        model, thought = decision.model, decision.thought
        action = jnp.zeros_like(decision.policy(thought.base, key))
        memory, alone = model.predict(model.initial(), action, jnp.ones((), bool))
        told = model.infer(memory, decision.observation)
        belief = thought.before
        return belief.kl(thought.prior) - belief.kl(alone) + belief.kl(told)


class Sensitivity(GateScore):
    """How often two latents of the belief choose different actions. **Cost:** `latents` actions."""

    latents: int = 8

    def __call__(self, decision: BaseDecision, *, key: PRNGKeyArray) -> Float[Array, ""]:
        latent_key, action_key = jr.split(key)
        keys = jr.split(latent_key, self.latents)
        thought = decision.thought
        latents = jax.vmap(lambda k: thought.before.sample(key=k))(keys)
        memory = thought.base.memory
        actions = jax.vmap(lambda z: decision.policy(State(memory, z), action_key))(latents)
        return jnp.sum(jnp.mean(actions**2, 0) - jnp.mean(actions, 0) ** 2)


class Disagreement(GateScore):
    """Nats by which plausible parameters differ on the next prior; needs an ensemble.

    **Cost:** one prior for each member.
    """

    @property
    def needs(self) -> tuple[Need, ...]:
        return (MEMBERS,)

    def __call__(self, decision: BaseDecision, *, key: PRNGKeyArray) -> Float[Array, ""]:
        base = decision.thought.base

        def next_prior(one: Any) -> Any:
            action = decision.policy(base, key)
            return one.predict(base, action, jnp.zeros((), bool))[1]

        assert decision.members is not None  # as `needs` says
        return parameter_information_gain(decision.members.each(decision.model, next_prior))


class PolicyInformation(GateScore):
    """Information of the latent about the action, nats: H(mean pi) - mean H(pi), over the belief.

    An uncertain belief does not matter if all its latents lead to the same action. **Cost:**
    `latents` calls of the actor.
    """

    latents: int = 8

    @property
    def needs(self) -> tuple[Need, ...]:
        return (ACTOR,)

    @property
    def name(self) -> str:
        return "policy-information"

    def __call__(self, decision: BaseDecision, *, key: PRNGKeyArray) -> Float[Array, ""]:
        model: Any = decision.model
        thought = decision.thought

        def heads(key: PRNGKeyArray) -> Any:
            return model.actor(State(thought.base.memory, thought.before.sample(key=key)))

        found = jax.vmap(heads)(jr.split(key, self.latents))
        return sum((_shared(head) for head in found.values()), jnp.zeros(()))


def _shared(heads: Any) -> Float[Array, ""]:
    """Information in a draw about which of several distributions it comes from, in nats."""
    if isinstance(heads, Categorical):
        probs = heads.probs()
        mean = jnp.mean(probs, 0)
        return jnp.sum(jnp.mean(xlogy(probs, probs), 0) - xlogy(mean, mean))
    # For normals, the entropy of the mixture is that of the normal with the same mean and variance.
    total = jnp.mean(heads.scale**2, 0) + jnp.var(heads.mean, 0)
    return 0.5 * jnp.sum(jnp.log(total) - jnp.mean(jnp.log(heads.scale**2), 0))


class AdvantageScore(GateScore):
    """A score from a few imagined values, cheaper than a choice by values.

    **Cost:** `latents * actions * horizon` steps of the core, the policy, the reward and the
    critic.
    """

    latents: int = 8
    horizon: int = 1

    @property
    def needs(self) -> tuple[Need, ...]:
        return (ACTOR, REWARD, DISCOUNT, CRITIC)

    def __call__(self, decision: BaseDecision, *, key: PRNGKeyArray) -> Float[Array, ""]:
        compare_key, act_key = jr.split(key)
        thought = decision.thought
        facing = Facing(
            model=decision.model,
            policy=decision.policy,
            greedy=False,
            belief=thought.before,
            state=thought.base,
            action=decision.policy(thought.base, act_key),
            members=decision.members,
            returns=None,
        )
        values = Values(latents=self.latents, horizon=self.horizon)
        return self.of(values.compare(facing, key=compare_key)[2])

    @abc.abstractmethod
    def of(self, apart: Float[Array, "latents actions"]) -> Float[Array, ""]:
        """The score of imagined advantages, with one row for each draw of the belief."""


class ValueOfComputation(AdvantageScore):
    """The expected gain, in units of return, of finding out which action is better.

    With d the imagined advantage of the best action over the second best and s its standard error,
    s phi(d/s) - d Phi(-d/s): large where the two are close and both uncertain.

    **References:** Russell and Wefald, Principles of Metareasoning, Artificial Intelligence 49,
    1991.
    """

    @property
    def name(self) -> str:
        return "voc"

    def of(self, apart: Float[Array, "latents actions"]) -> Float[Array, ""]:
        return value_of_computation(apart)


class TwoStage(ValueOfComputation):
    """The value of computation where the policy information is high; -inf elsewhere.

    If all latents of the belief lead to the same policy, there is little to find out, and this is
    cheap to see. By default the first stage lets through half of the decisions.

    **Cost:** `latents` calls of the actor; in a batch that has a decision above the first
    threshold, also the value of computation.

    **Errors:** `ValueError` without a threshold of the first stage.
    """

    above: float | None = None
    """Threshold of the policy information, nats; None: not calibrated yet, the median."""

    @property
    def name(self) -> str:
        return "voc-staged"

    @property
    def first(self) -> PolicyInformation:
        """The score of the first stage."""
        return PolicyInformation(self.latents)

    def calibrated(self, threshold: Callable[[GateScore, float], float]) -> GateScore:
        if self.above is not None:
            return self
        return dataclasses.replace(self, above=threshold(self.first, 0.5))

    def __call__(self, decision: BaseDecision, *, key: PRNGKeyArray) -> Float[Array, ""]:
        if self.above is None:
            raise ValueError(
                "`voc-staged` has no threshold of its first stage yet. Calibrate the gate: "
                "thinkslow.calibrated(agent, environment); or give the threshold in nats, "
                "`voc-staged:above=0.1`."
            )
        passes = self.first(decision, key=key) > self.above
        second = super().__call__
        return only_if(passes, lambda: second(decision, key=key), jnp.full((), -jnp.inf))


class Improvement(AdvantageScore):
    """The largest imagined advantage over the policy's mean, in units of return. Each advantage is
    shrunk by its standard error."""

    def of(self, apart: Float[Array, "latents actions"]) -> Float[Array, ""]:
        return jnp.max(shrunk(*mean_and_error(apart)))


def value_of_computation(draws: Float[Array, "latents actions"]) -> Float[Array, ""]:
    """E max(0, second - best) of the two actions of the best means, from paired draws.

    >>> float(value_of_computation(jnp.array([[1.0, 0.0], [1.0, 0.0]])))    # no uncertainty
    0.0
    """
    best, second = jax.lax.top_k(jnp.mean(draws, 0), 2)[1]
    apart = draws[:, best] - draws[:, second]
    gap = jnp.mean(apart)
    error = jnp.std(apart, ddof=1) / jnp.sqrt(float(apart.shape[0]))
    safe = jnp.where(error > 0, error, 1.0)
    found = safe * norm.pdf(gap / safe) - gap * norm.cdf(-gap / safe)
    return jnp.where(error > 0, found, 0.0)


class Chance(GateScore):
    """A uniform number: the control of every gate, at an equal rate. **Cost:** none."""

    keeps = ("gate",)

    @property
    def name(self) -> str:
        return "random"

    def __call__(self, decision: BaseDecision, *, key: PRNGKeyArray) -> Float[Array, ""]:
        return jr.uniform(key)
