"""Value-thinking: choose the action by the agent's own model, reward and critic, under its belief.

Policies lag behind their critics, most of all in half-trained agents. For each action an imagined
return is compared with the policy's mean, over latents drawn from the belief. The policy is tilted
towards better actions, limited by a temperature and a bound on the KL. The action is drawn with the
random numbers of the policy's own action. Controls tilt by the same KL, with other information.

**References:** Danihelka et al., Policy Improvement by Planning with Gumbel, ICLR 2022; their
completed values are used for actions that are not imagined.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from thinkslow.agent.choices.choice import (
    Choice,
    Chosen,
    Facing,
    divergence,
    every_action,
    log_probability,
    perturbed,
    strength,
)
from thinkslow.heads import expected
from thinkslow.needs import ACTOR, CRITIC, DISCOUNT, REWARD, Need
from thinkslow.settings import floating
from thinkslow.trees import all_finite
from thinkslow.worldmodel import Action, State, imagine

LARGEST = 4096
"""Up to this many discrete actions are listed; of more, some are drawn, as with continuous ones."""
STEEPEST = 1e4
"""The largest tilt of a control, in nats, of one action against another."""


class Compared(NamedTuple):
    """Actions to compare, with their probabilities under the policy."""

    actions: Float[Array, "actions action"]
    log_probs: Float[Array, " actions"]
    """Normalised; even where they were drawn from the policy."""
    density: Float[Array, " actions"]
    """The policy's log-probability or log-density."""
    taken: Int[Array, ""]
    """The index of the policy's own action."""
    listed: bool
    """Whether these are all actions."""


class Values(Choice):
    """Tilts the policy by imagined advantages.

    For each first action, then the policy, `horizon` steps are imagined from `latents` draws of
    the belief, with the same random numbers for all actions. The advantage D(a) is the mean
    difference of the lambda-return from the policy's mean; it is shrunk by its standard error to
    D max(0, 1 - se^2 / D^2). The new policy is pi(a) exp(D(a) / eta): eta is `temperature` times
    the range of returns, or what keeps KL(new || pi) within `max_kl`.

    **Cost:** `latents * actions * horizon` steps of the core, the policy, the reward and the
    critic, in one batch; no decoding.

    Args:
        latents: samples of the belief to average over.
        horizon: imagined steps.
        trace: lambda of the returns.
        temperature: temperature of the tilt, in units of the range of returns.
        max_kl: largest KL of the new policy from the policy, nats; 0 is the base agent.
        candidates: how many discrete actions are imagined. If there are more, the most likely ones
            under the policy and its noise are taken, and the others get completed values.
        drawn: how many actions are drawn from the policy if they cannot be listed, such as
            continuous ones.
        shrink: whether advantages are shrunk by their errors.
        critic: whether the critic gives the value after the horizon; if not, only rewards count.
        scale: the range of returns; None: the agent's own.
    """

    latents: int = 32
    horizon: int = 5
    trace: float = eqx.field(default=0.8, converter=floating)
    temperature: float = eqx.field(default=0.1, converter=floating)
    max_kl: float = eqx.field(default=0.3, converter=floating)
    candidates: int = 20
    drawn: int = 8
    shrink: bool = True
    critic: bool = True
    scale: float | None = eqx.field(default=None, converter=floating)

    def __check_init__(self) -> None:
        for name, least in (("latents", 1), ("horizon", 1), ("candidates", 2), ("drawn", 2)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"`{name}` must be {least} or more; got {value}.")
        for name in ("max_kl", "trace", "temperature"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not value >= 0:
                raise ValueError(f"`{name}` must be 0 or more; got {value}.")

    @property
    def needs(self) -> tuple[Need, ...]:
        return (ACTOR, REWARD, DISCOUNT, *((CRITIC,) if self.critic else ()))

    @property
    def scaled(self) -> bool:
        return self.scale is None

    def __call__(self, facing: Facing, *, key: PRNGKeyArray) -> tuple[Action, Chosen]:
        compare_key, control_key = jr.split(key)
        compared, tried, apart = self.compare(facing, key=compare_key)
        advantages, errors = mean_and_error(apart)
        plain = shrunk(advantages, errors) if self.shrink else advantages
        plain = jnp.where(all_finite(plain), plain, 0.0)
        scale = facing.returns if self.scale is None else self.scale
        steepest = 1 / jnp.maximum(self.temperature * jnp.asarray(scale, plain.dtype), 1e-8)
        most_kl = jnp.asarray(self.max_kl, plain.dtype)
        most = strength(compared.log_probs, plain, most_kl, steepest)
        tilt = self.tilt(compared, most * plain, key=control_key)
        best = compared.actions[jnp.argmax(tried + tilt)].astype(facing.action.dtype)
        action = jnp.where(jnp.all(tilt == 0), facing.action, best)
        chosen = Chosen(
            compared.actions,
            compared.log_probs,
            advantages,
            errors,
            jax.nn.log_softmax(compared.log_probs + tilt),
            divergence(compared.log_probs, tilt),
        )
        return action, chosen

    def compare(
        self, facing: Facing, *, key: PRNGKeyArray
    ) -> tuple[Compared, Float[Array, " actions"], Float[Array, "latents actions"]]:
        """Actions, the policy's noisy log-probabilities of them, and by how much each return is
        above the policy's mean, for each draw of the belief.

        Args:
            facing: the decision.
            key: PRNG key of all random draws.
        """
        value_key, draw_key, act_key = jr.split(key, 3)
        compared = self.compared(facing, key=draw_key)
        tried = perturbed(compared.log_probs, compared.taken, key=act_key)
        if facing.greedy and compared.listed:
            tried = compared.log_probs
        return compared, tried, self.differences(facing, compared, tried, key=value_key)

    def tilt(
        self, compared: Compared, tilt: Float[Array, " actions"], *, key: PRNGKeyArray
    ) -> Float[Array, " actions"]:
        """The addition to the log-probabilities. Controls add something else with the same KL.

        Args:
            compared: the actions.
            tilt: what `Values` adds to the log-probability of each, nats.
            key: PRNG key of the control's random draws.
        """
        return tilt

    def compared(self, facing: Facing, *, key: PRNGKeyArray) -> Compared:
        """The actions to compare, the policy's own among them.

        Args:
            facing: the decision.
            key: PRNG key of actions that are drawn.
        """
        model: Any = facing.model
        listed = every_action(model.action_spaces, LARGEST)
        if listed is None:
            others = jax.vmap(lambda k: model.policy(facing.state, k))(
                jr.split(key, self.drawn - 1)
            )
            actions = jnp.concatenate([facing.action[None], others])
            even = jnp.full(self.drawn, -jnp.log(float(self.drawn)))
            density = log_probability(model, facing.state, actions)
            return Compared(actions, even, density, jnp.zeros((), jnp.int32), False)
        actions = jnp.asarray(listed)
        density = log_probability(model, facing.state, actions)
        taken = jnp.argmax(jnp.all(actions == facing.action, -1))
        return Compared(actions, jax.nn.log_softmax(density), density, taken, True)

    def differences(
        self,
        facing: Facing,
        compared: Compared,
        tried: Float[Array, " actions"],
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, "latents actions"]:
        """Imagined returns of all actions above the policy's mean, by draw of the belief.

        If there are more than `candidates` actions, those with the largest `tried` are imagined.

        Args:
            facing: the decision.
            compared: the actions.
            tried: the policy's noisy log-probabilities of them.
            key: PRNG key of imagination, the same for all actions.
        """
        count = len(compared.actions)
        looked = jnp.arange(count)
        if compared.listed and count > self.candidates:
            looked = jax.lax.top_k(tried, self.candidates)[1]
        found = self.returns(facing, compared.actions[looked], key=key)
        probs = jnp.exp(compared.log_probs)
        if len(looked) < count:
            found = self._completed(facing, found, probs[looked], looked, count, key=key)
        return found - (found @ probs)[:, None]

    def returns(
        self, facing: Facing, actions: Float[Array, "actions action"], *, key: PRNGKeyArray
    ) -> Float[Array, "latents actions"]:
        """Imagined returns by draw of the belief and first action.

        Args:
            facing: the decision.
            actions: vectors of the first actions.
            key: PRNG key of imagination, the same for all actions.
        """
        latent_keys, roll_keys = jr.split(key, (2, self.latents))

        def of_one(latent_key: PRNGKeyArray, key: PRNGKeyArray) -> Float[Array, " actions"]:
            latent = facing.belief.sample(key=latent_key).astype(facing.state.latent.dtype)
            state = State(facing.state.memory, latent)
            return jax.vmap(
                lambda action: imagined_return(
                    facing,
                    state,
                    action,
                    horizon=self.horizon,
                    trace=self.trace,
                    critic=self.critic,
                    key=key,
                )
            )(actions)

        return jax.vmap(of_one)(latent_keys, roll_keys)

    def _completed(
        self,
        facing: Facing,
        found: Array,
        probs: Array,
        looked: Array,
        count: int,
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, "latents actions"]:
        """Returns of all actions. Actions that were not imagined get the mixed value of the
        state.
        """
        mixed = found @ probs / jnp.sum(probs)
        if self.critic:
            keys = jr.split(key, (2, self.latents))[0]

            def value(key: PRNGKeyArray) -> Float[Array, ""]:
                latent = facing.belief.sample(key=key).astype(facing.state.latent.dtype)
                model: Any = facing.model
                return expected(model.value(State(facing.state.memory, latent)))

            own = jax.vmap(value)(keys)
            mixed = (own + len(looked) * mixed) / (1 + len(looked))
        return jnp.repeat(mixed[:, None], count, 1).at[:, looked].set(found)


class Tempered(Values):
    """Control: the policy sharpened by its own log-probabilities, to the same KL as `Values`."""

    def tilt(self, compared: Compared, tilt: Array, *, key: PRNGKeyArray) -> Array:
        return as_far(compared.log_probs, tilt, compared.density)


class Shuffled(Values):
    """Control: the same advantages assigned to other actions, to the same KL as `Values`."""

    def tilt(self, compared: Compared, tilt: Array, *, key: PRNGKeyArray) -> Array:
        return as_far(compared.log_probs, tilt, jr.permutation(key, tilt))


def as_far(
    log_probs: Float[Array, " actions"],
    tilt: Float[Array, " actions"],
    direction: Float[Array, " actions"],
) -> Float[Array, " actions"]:
    """A tilt along another direction with the same KL, or with the largest KL that this direction
    allows.
    """
    direction = direction - jnp.mean(direction)
    size = jnp.maximum(jnp.max(jnp.abs(direction)), 1e-20)
    kl = divergence(log_probs, tilt)
    unit = direction / size
    most = jnp.full((), STEEPEST, unit.dtype)
    return jnp.where(jnp.all(tilt == 0), 0.0, strength(log_probs, unit, kl, most) * unit)


def mean_and_error(
    draws: Float[Array, "latents actions"],
) -> tuple[Float[Array, " actions"], Float[Array, " actions"]]:
    """Mean over draws and its standard error. For a single draw the error is unknown, and 0 is
    returned.
    """
    mean, count = jnp.mean(draws, 0), draws.shape[0]
    if count == 1:
        return mean, jnp.zeros_like(mean)
    return mean, jnp.std(draws, 0, ddof=1) / jnp.sqrt(float(count))


def shrunk(mean: Float[Array, "..."], error: Float[Array, "..."]) -> Float[Array, "..."]:
    """Shrink towards zero by the standard error: D max(0, 1 - se^2 / D^2).

    >>> shrunk(jnp.array([2.0, 1.0]), jnp.array([1.0, 1.0]))
    Array([1.5, 0. ], dtype=float32)
    """
    square = jnp.square(mean)
    share = 1 - jnp.square(error) / jnp.where(square == 0, 1.0, square)
    return mean * jnp.where(square == 0, 0.0, jnp.maximum(0.0, share))


def imagined_return(
    facing: Facing,
    state: State,
    action: Action,
    *,
    horizon: int,
    trace: float | Array,
    critic: bool,
    key: PRNGKeyArray,
) -> Float[Array, ""]:
    """The lambda-return of an action from a state, then of the policy.

    R_t = r_{t+1} + g_{t+1} ((1 - lambda) v_{t+1} + lambda R_{t+1}) and R_horizon = v_horizon: the
    reward of the first state is not counted. Without a critic it is the sum of discounted rewards.
    """
    model: Any = facing.model
    first_key, key = jr.split(key)
    memory, prior = model.predict(state, action, jnp.zeros((), bool))
    first = State(memory, prior.sample(key=first_key).astype(state.latent.dtype))
    states = jax.tree.map(lambda x: x[None], first)
    if horizon > 1:
        steps = imagine(model, facing.policy, first, horizon=horizon - 1, key=key)
        states = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), states, steps.state)
    reward = jax.vmap(lambda s: expected(model.reward(s)))(states)
    discount = jax.vmap(lambda s: jnp.asarray(model.discount(s), jnp.float32))(states)
    value = jnp.zeros_like(reward)
    if critic:
        value = jax.vmap(lambda s: expected(model.value(s)))(states)
    return lambda_return(reward, discount, value, trace if critic else 1.0)


def lambda_return(
    reward: Float[Array, " steps"],
    discount: Float[Array, " steps"],
    value: Float[Array, " steps"],
    trace: float | Array,
) -> Float[Array, ""]:
    """The return before the first of several steps. Each step has the reward, discount and value of
    the state it leads to.

    >>> ones = jnp.ones(2)
    >>> float(lambda_return(ones, 0.5 * ones, 4 * ones, 1.0))     # 1 + 1/2 (1 + 1/2 * 4)
    2.5
    """

    def step(later: Array, at: tuple[Array, Array, Array]) -> tuple[Array, None]:
        reward, discount, value = at
        return reward + discount * ((1 - trace) * value + trace * later), None

    return jax.lax.scan(step, value[-1], (reward, discount, value), reverse=True)[0]
