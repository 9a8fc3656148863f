"""Planning with continuous actions: sequences of the policy, improved by gradient ascent.

**References:** Dream-MPC, arXiv 2605.04568. As there, few sequences come from the policy, there are
few steps, and disagreement has a penalty. Unlike there, each decision makes a new plan.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.agent.choices.choice import Choice, Chosen, Facing
from thinkslow.agent.choices.values import lambda_return, mean_and_error, shrunk
from thinkslow.heads import expected
from thinkslow.needs import ACTOR, CONTINUOUS, CRITIC, DISCOUNT, REWARD, Need
from thinkslow.objectives import parameter_information_gain
from thinkslow.settings import floating
from thinkslow.trees import all_finite
from thinkslow.worldmodel import Action, State

EDGE = 0.999
"""Share of the range of actions beyond which a gradient would vanish."""


class Ascent(Choice):
    """The first action of the best of several imagined sequences, each improved by ascent.

    Sequences are drawn from the policy; the first one begins with the policy's own action. Their
    mean return over latents of the belief is raised by `steps` normalised gradient steps on atanh
    of the actions, with straight-through latents and the same random numbers in all steps. A
    sequence is taken if it is better than the policy's own by more than its standard error.
    Otherwise the policy's action is taken, bit for bit, as with `strength` 0.

    **Cost:** `sequences * latents * horizon` steps of the core, the reward and the critic, three
    times for each gradient step and once for the judgement; with a penalty, also a prior for each
    member.

    Args:
        sequences: number of action sequences.
        latents: draws of the belief.
        horizon: imagined steps.
        steps: number of gradient steps.
        strength: length of each step, in units of atanh of the actions; 0 is the base agent.
        penalty: cost of one nat of disagreement between members, in units of return; 0: no penalty.
        trace: lambda of the returns.
    """

    sequences: int = 8
    latents: int = 8
    horizon: int = 5
    steps: int = 5
    strength: float = eqx.field(default=0.1, converter=floating)
    penalty: float = eqx.field(default=0.0, converter=floating)
    trace: float = eqx.field(default=0.8, converter=floating)

    def __check_init__(self) -> None:
        least = {"sequences": 2, "latents": 2, "horizon": 1, "steps": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"`{name}` must be {value} or more; got {getattr(self, name)}.")

    @property
    def needs(self) -> tuple[Need, ...]:
        return (ACTOR, CONTINUOUS, REWARD, DISCOUNT, CRITIC)

    def __call__(self, facing: Facing, *, key: PRNGKeyArray) -> tuple[Action, Chosen]:
        draw_key, latent_key, roll_key = jr.split(key, 3)
        started = self._drawn(facing, key=draw_key)
        keys = jr.split(latent_key, self.latents), jr.split(roll_key, self.latents)

        def worth(plan: Float[Array, "horizon action"]) -> Float[Array, " latents"]:
            return jax.vmap(lambda z, k: self._worth(facing, plan, z, k))(*keys)

        def climb(raw: Array, _: None) -> tuple[Array, None]:
            slope = jax.vmap(jax.grad(lambda u: jnp.mean(worth(jnp.tanh(u)))))(raw)
            size = jnp.sqrt(jnp.mean(jnp.square(slope), (1, 2), keepdims=True))
            step = self.strength * slope / jnp.maximum(size, 1e-20)
            return raw + jnp.where(jnp.isfinite(step), step, 0.0), None

        raw = jnp.arctanh(jnp.clip(started, -EDGE, EDGE))
        plans = jnp.tanh(jax.lax.scan(climb, raw, None, length=self.steps)[0])
        base = worth(started[0])
        apart = (jax.vmap(worth)(plans) - base).T
        mean, error = mean_and_error(apart)
        better = shrunk(mean, error)
        best = jnp.argmax(better)
        sound = all_finite(better) & (better[best] > 0) & (jnp.asarray(self.strength) > 0)
        taken = jnp.where(sound, plans[best, 0], facing.action).astype(facing.action.dtype)
        even = jnp.full(self.sequences, -jnp.log(float(self.sequences)))
        sure = jnp.log(jnp.where(jnp.arange(self.sequences) == best, 1.0, 1e-30))
        kl = jnp.where(sound, jnp.log(float(self.sequences)), 0.0)
        return taken, Chosen(plans[:, 0], even, mean, error, jnp.where(sound, sure, even), kl)

    def _drawn(
        self, facing: Facing, *, key: PRNGKeyArray
    ) -> Float[Array, "sequences horizon action"]:
        """Sequences of the policy's actions from the state that acts."""
        model: Any = facing.model

        def follow(key: PRNGKeyArray) -> Float[Array, "horizon action"]:
            def step(state: State, key: PRNGKeyArray) -> tuple[State, Array]:
                act_key, latent_key = jr.split(key)
                action = model.policy(state, act_key)
                memory, prior = model.predict(state, action, jnp.zeros((), bool))
                latent = prior.sample(key=latent_key).astype(state.latent.dtype)
                return State(memory, latent), action

            return jax.lax.scan(step, facing.state, jr.split(key, self.horizon))[1]

        drawn = jax.vmap(follow)(jr.split(key, self.sequences))
        return drawn.at[0, 0].set(facing.action.astype(drawn.dtype))

    def _worth(
        self,
        facing: Facing,
        plan: Float[Array, "horizon action"],
        latent_key: PRNGKeyArray,
        key: PRNGKeyArray,
    ) -> Float[Array, ""]:
        """The lambda-return of a plan from one draw of the belief, less the penalty."""
        model: Any = facing.model
        still = jnp.zeros((), bool)
        latent = facing.belief.sample(key=latent_key).astype(facing.state.latent.dtype)
        first = State(facing.state.memory, jax.lax.stop_gradient(latent))

        def step(state: State, at: tuple[Array, PRNGKeyArray]) -> tuple[State, tuple]:
            action, key = at
            memory, prior = model.predict(state, action.astype(facing.action.dtype), still)
            arrived = State(memory, prior.sample(key=key).astype(state.latent.dtype))
            doubt = jnp.zeros(())
            if facing.members is not None:
                doubt = parameter_information_gain(
                    facing.members.each(model, lambda one: one.predict(state, action, still)[1])
                )
            numbers = (
                expected(model.reward(arrived)),
                jnp.asarray(model.discount(arrived), jnp.float32),
                expected(model.value(arrived)),
                doubt,
            )
            return arrived, numbers

        keys = jr.split(key, self.horizon)
        _, (reward, discount, value, doubt) = jax.lax.scan(step, first, (plan, keys))
        return lambda_return(reward - self.penalty * doubt, discount, value, self.trace)
