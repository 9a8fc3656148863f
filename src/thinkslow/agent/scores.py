"""How doubtful a moment is: what a gate may go by.

Scores come without a scale; `gates.calibrate` turns recorded ones into the threshold of a budget.
A score of your own subclasses `Score`.
"""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.needs import MEMBERS, Need
from thinkslow.objectives import parameter_information_gain
from thinkslow.objectives.members import Members
from thinkslow.worldmodel import Observation, State, WorldModel

if TYPE_CHECKING:
    from thinkslow.agent.decision import Thought


class Score(eqx.Module):
    """How doubtful one moment is."""

    needs: ClassVar[tuple[Need, ...]] = ()

    @property
    def name(self) -> str:
        """Its name in records."""
        return type(self).__name__.lower()

    @abc.abstractmethod
    def __call__(
        self,
        model: WorldModel,
        policy: Callable[[State, PRNGKeyArray], Array],
        thought: "Thought",
        observation: Observation,
        *,
        members: Members | None,
        key: PRNGKeyArray,
    ) -> Float[Array, ""]:
        """The score of one moment; NaN opens no gate.

        Args:
            model: for one example.
            policy: what acts.
            thought: of the decision without refinement.
            observation: the present one.
            members: plausible parameters, where the agent has them.
            key: of whatever is random in the score.
        """


class Surprise(Score):
    """Bayesian surprise, KL(posterior || prior), nats. **Cost:** none."""

    def __call__(
        self, model: Any, policy: Any, thought: "Thought", observation: Any, *,
        members: Any, key: Any,
    ) -> Float[Array, ""]:  # fmt: skip
        return thought.before.kl(thought.prior)


class PosteriorEntropy(Score):
    """Entropy of the posterior, nats. **Cost:** none."""

    @property
    def name(self) -> str:
        return "entropy"

    def __call__(
        self, model: Any, policy: Any, thought: "Thought", observation: Any, *,
        members: Any, key: Any,
    ) -> Float[Array, ""]:  # fmt: skip
        return thought.before.entropy()


class Novelty(Score):
    """By how many nats the history predicts worse than none: above 0, it misleads.

    KL(q || p) - KL(q || p_0) + KL(q || q_0), where p_0 and q_0 are prior and posterior of the
    same observation with no history: if the history helps, it predicts the posterior better than
    nothing does, beyond what the observation tells by itself.

    **References:** Zollicoffer et al., Novelty Detection in Reinforcement Learning with World
    Models, arXiv 2310.08731.

    **Cost:** one step of the core and one encoding.
    """

    def __call__(
        self, model: Any, policy: Any, thought: "Thought", observation: Any, *,
        members: Any, key: Any,
    ) -> Float[Array, ""]:  # fmt: skip
        belief = thought.before
        action = jnp.zeros_like(policy(thought.base, key))
        memory, alone = model.predict(model.initial(), action, jnp.ones((), bool))
        told = model.infer(memory, observation)
        return belief.kl(thought.prior) - belief.kl(alone) + belief.kl(told)


class Sensitivity(Score):
    """How often two latents of the belief choose different actions. **Cost:** `latents` actions."""

    latents: int = 8

    def __call__(
        self, model: Any, policy: Any, thought: "Thought", observation: Any, *,
        members: Any, key: Any,
    ) -> Float[Array, ""]:  # fmt: skip
        latent_key, action_key = jr.split(key)
        keys = jr.split(latent_key, self.latents)
        latents = jax.vmap(lambda k: thought.before.sample(key=k))(keys)
        memory = thought.base.memory
        actions = jax.vmap(lambda z: policy(State(memory, z), action_key))(latents)
        return jnp.sum(jnp.mean(actions**2, 0) - jnp.mean(actions, 0) ** 2)


class Disagreement(Score):
    """Nats by which plausible parameters differ on the next prior; needs an ensemble.

    **Cost:** one prior for each member.
    """

    needs: ClassVar[tuple[Need, ...]] = (MEMBERS,)

    def __call__(
        self, model: Any, policy: Any, thought: "Thought", observation: Any, *,
        members: Any, key: Any,
    ) -> Float[Array, ""]:  # fmt: skip
        def next_prior(one: Any) -> Any:
            action = policy(thought.base, key)
            return one.predict(thought.base, action, jnp.zeros((), bool))[1]

        return parameter_information_gain(members.each(model, next_prior))


class Chance(Score):
    """A uniform number: the control of every gate, at an equal rate. **Cost:** none."""

    @property
    def name(self) -> str:
        return "random"

    def __call__(
        self, model: Any, policy: Any, thought: "Thought", observation: Any, *,
        members: Any, key: Any,
    ) -> Float[Array, ""]:  # fmt: skip
        return jr.uniform(key)
