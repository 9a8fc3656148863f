"""The losses of DreamerV3: world model, actor and critic, on a batch of replayed sequences.

All arrays are batch-major, `[B, T, ...]`. Losses are per element, so that they can be compared with
those of the official code; `total` weights, averages and adds them.

**References:** Hafner et al., Mastering Diverse Domains through World Models, arXiv 2301.04104.
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from thinkslow.distributions import Belief, Categorical
from thinkslow.dreamer.config import TrainConfig
from thinkslow.dreamer.model import Dreamer, Head, carried
from thinkslow.heads import BoundedNormal, TwoHot
from thinkslow.readouts import Readout, Sample
from thinkslow.worldmodel import State, detached, imagine, target

stop = jax.lax.stop_gradient


class Batch(eqx.Module):
    """Replayed sequences, and the state from which each starts.

    Row t holds the observation at t and the action chosen there; `previous_action` is the action
    before it.
    """

    observation: dict[str, Array]
    previous_action: Float[Array, "B T action"]
    reward: Float[Array, "B T"]
    is_first: Bool[Array, "B T"]
    is_last: Bool[Array, "B T"]
    is_terminal: Bool[Array, "B T"]
    start: State


class ReturnRange(eqx.Module):
    """Running 5% and 95% percentiles of imagined returns, which normalise advantages."""

    low: Float[Array, ""]
    high: Float[Array, ""]

    @property
    def scale(self) -> Float[Array, ""]:
        return jnp.maximum(1.0, self.high - self.low)

    def to_json(self) -> dict[str, float]:
        """The range in the form of a manifest."""
        return {"low": float(self.low), "high": float(self.high)}

    def updated(self, returns: Float[Array, "..."], config: TrainConfig) -> "ReturnRange":
        low, high = jnp.percentile(stop(returns), jnp.array(config.return_percentiles))
        rate = config.return_rate
        return ReturnRange((1 - rate) * self.low + rate * low, (1 - rate) * self.high + rate * high)


class Inverse(Sample):
    """A sample as `Sample`, from one random number per factor instead of one per class.

    On a CPU the draws of an update take an eighth of the time (docs/performance.md).
    """

    def noise(self, belief: Belief, *, key: PRNGKeyArray) -> Float[Array, "..."]:
        if isinstance(belief, Categorical):
            return jr.uniform(key, belief.logits.shape[:-1])
        return super().noise(belief, key=key)

    def of(self, belief: Belief, noise: Array) -> Array:
        if isinstance(belief, Categorical):
            return belief.inverse_of(noise)
        return super().of(belief, noise)


INVERSE = Inverse()


def losses(
    model: Dreamer,
    slow_value: Head,
    returns: ReturnRange,
    batch: Batch,
    config: TrainConfig,
    *,
    key: PRNGKeyArray,
    readout: Readout = INVERSE,
    update_returns: bool = True,
) -> tuple[dict[str, Float[Array, "B T_"]], dict[str, Array], State, ReturnRange]:
    """All losses per element, a dictionary of scalars to log, the posterior states and the new
    range.

    `readout=Mode()` uses the most likely latent and action instead of samples (for parity tests).
    The loss of the replayed value has one step less. **Cost:** one pass over the sequences, and
    `imagination` steps from each start.
    """
    observe_key, imagine_key = jr.split(key)
    states, posterior, prior = observe(model, batch, key=observe_key, readout=readout)
    out = world_model_losses(model, batch, states, posterior, prior, config)
    acting, future, returns, scalars = imagined_losses(
        model,
        slow_value,
        returns,
        states,
        batch.is_terminal,
        config,
        key=imagine_key,
        readout=readout,
        update_returns=update_returns,
    )
    out |= acting
    out["repval"] = replayed_value_loss(model, slow_value, states, batch, future, config)
    scalars |= {
        "prior_entropy": jnp.mean(_each(lambda b: b.entropy(), prior)),
        "posterior_entropy": jnp.mean(_each(lambda b: b.entropy(), posterior)),
    }
    return out, scalars, states, returns


def total(
    parts: Mapping[str, Float[Array, "B T_"]], model: Dreamer, config: TrainConfig
) -> Float[Array, ""]:
    """The scalar that is minimised: the weighted sum of the means."""
    scales = {"rep": model.config.rep_scale, "repval": config.replay_value_scale}
    return sum(
        (scales.get(name, 1.0) * jnp.mean(part) for name, part in parts.items()), jnp.zeros(())
    )


def observe(
    model: Dreamer, batch: Batch, *, key: PRNGKeyArray, readout: Readout = INVERSE
) -> tuple[State, Belief, Belief]:
    """Filter the sequences: states, posteriors and priors, each `[B, T, ...]`."""
    tokens = jax.vmap(jax.vmap(model.enc))(batch.observation)

    def step(state: State, inputs: tuple) -> tuple[State, tuple[State, Belief]]:
        tokens, action, is_first, keys = inputs

        def one(state: State, tokens: Array, action: Array, first: Array, key: Array):
            deter = model.dyn.core(*carried(state, action, first))
            belief = model.dyn.posterior(deter, tokens)
            latent = readout(belief, key=key).astype(state.memory.dtype)
            return State(deter, latent), belief

        state, belief = jax.vmap(one)(state, tokens, action, is_first, keys)
        return state, (state, belief)

    rows, steps = batch.is_first.shape
    inputs = (tokens, batch.previous_action, batch.is_first)
    inputs = (*(jnp.swapaxes(x, 0, 1) for x in inputs), jr.split(key, (steps, rows)))
    _, out = jax.lax.scan(step, batch.start, inputs)
    states, posterior = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), out)
    prior = jax.vmap(jax.vmap(model.dyn.prior))(states.memory)
    return states, posterior, prior


def world_model_losses(
    model: Dreamer,
    batch: Batch,
    states: State,
    posterior: Belief,
    prior: Belief,
    config: TrainConfig,
) -> dict[str, Float[Array, "B T"]]:
    """Reconstructions (as `reconstruction/NAME`), reward, continuation and both KLs.

    KLs below `free_nats` are constant. The continue head learns
    `(1 - terminal)(1 - 1/horizon)`: its probability contains the discount.
    """
    out: dict[str, Float[Array, "B T"]] = {}
    floor = model.config.free_nats
    kl = jax.vmap(jax.vmap(lambda a, b: a.kl(b)))
    out["dyn"] = jnp.maximum(kl(stop(posterior), prior), floor)
    out["rep"] = jnp.maximum(kl(posterior, stop(prior)), floor)
    out["rew"] = -_each(lambda s, r: model.reward(s).log_prob(r), states, batch.reward)
    alive = (1 - batch.is_terminal.astype(jnp.float32)) * (1 - 1 / config.horizon)
    out["con"] = -_each(lambda s, c: model.continuation(s).log_prob(c), states, alive)

    def reconstruction(state: State, observation: dict[str, Array]) -> dict[str, Array]:
        return {
            f"reconstruction/{name}": -head.log_prob(target(head, observation[name]))
            for name, head in model.decode(state).items()
        }

    return out | _each(reconstruction, states, batch.observation)


def imagined_losses(
    model: Dreamer,
    slow_value: Head,
    returns: ReturnRange,
    states: State,
    is_terminal: Bool[Array, "B T"],
    config: TrainConfig,
    *,
    key: PRNGKeyArray,
    readout: Readout = INVERSE,
    update_returns: bool = True,
) -> tuple[dict[str, Array], Float[Array, "B K"], ReturnRange, dict[str, Array]]:
    """Actor and critic on imagined futures; also the return from each start, `[B, K]`.

    The actor learns by REINFORCE with the critic as baseline and an entropy bonus. The critic
    learns the lambda-return and is regularised towards its slow copy. No gradient reaches the world
    model.
    """
    count = config.imagination_starts or is_terminal.shape[1]
    rows = is_terminal.shape[0]
    start = jax.tree.map(lambda x: stop(x[:, -count:]).reshape(-1, *x.shape[2:]), states)
    frozen = stop(model)
    policy = detached(frozen.greedy if readout.noiseless else frozen.policy)
    roll_key, last_key = jr.split(key)

    def rollout(state: State, key: PRNGKeyArray, last_key: PRNGKeyArray):
        steps = imagine(frozen, policy, state, horizon=config.imagination, key=key, readout=readout)
        states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), state, steps.state)
        last = policy(jax.tree.map(lambda x: x[-1], states), last_key)
        return states, jnp.concatenate([steps.action, last[None]])

    number = rows * count
    trajectory, actions = stop(
        jax.vmap(rollout)(start, jr.split(roll_key, number), jr.split(last_key, number))
    )
    reward = _each(lambda s: frozen.reward(s).mean(), trajectory)
    alive = _each(lambda s: frozen.continuation(s).prob(), trajectory)
    value = _each(model.value, trajectory)
    baseline = stop(_each(TwoHot.mean, value))
    slow = _slow(slow_value, model, trajectory)

    future = lambda_return(
        jnp.zeros_like(alive), 1 - alive, reward, baseline, discount=1.0, trace=config.trace
    )
    if update_returns:
        returns = returns.updated(future, config)
    advantage = stop((future - baseline[:, :-1]) / returns.scale)
    weight = stop(jnp.cumprod(alive, 1))[:, :-1]

    zero = jnp.zeros(())

    def acting(state: State, action: Array) -> tuple[Array, Array]:
        heads, parts = model.actor(state), model.parts(action)
        log_probs = [  # the normals are flat, whatever the shape of the action
            head.log_prob(parts[name].ravel() if isinstance(head, BoundedNormal) else parts[name])
            for name, head in heads.items()
        ]
        return sum(log_probs, zero), sum((head.entropy() for head in heads.values()), zero)

    log_prob, entropy = _each(acting, trajectory, actions)
    log_prob, entropy = log_prob[:, :-1], entropy[:, :-1]
    policy_loss = -weight * (log_prob * advantage + config.actor_entropy * entropy)
    value_loss = weight * _value_loss(value, stop(future), slow)
    shape = (rows, count)
    scalars = {
        "actor_entropy": jnp.mean(entropy),
        "advantage_scale": jnp.std(advantage),
        "imagined_reward": jnp.mean(reward),
        "imagined_return": jnp.mean(future),
        "return_range": returns.scale,
    }
    out = {"policy": policy_loss.mean(1).reshape(shape), "value": value_loss.mean(1).reshape(shape)}
    return out, future[:, 0].reshape(shape), returns, scalars


def replayed_value_loss(
    model: Dreamer,
    slow_value: Head,
    states: State,
    batch: Batch,
    bootstrap: Float[Array, "B K"],
    config: TrainConfig,
) -> Float[Array, "B K-1"]:
    """The critic on the recorded rewards of the last K steps, bootstrapped by imagined returns."""
    start = batch.is_first.shape[1] - bootstrap.shape[1]
    given = (states, batch.reward, batch.is_last, batch.is_terminal)
    states, reward, is_last, is_terminal = jax.tree.map(lambda x: x[:, start:], given)
    discount = 1 - 1 / config.horizon
    future = lambda_return(
        is_last.astype(jnp.float32),
        is_terminal.astype(jnp.float32),
        reward,
        bootstrap,
        discount=discount,
        trace=config.trace,
    )
    value = _each(model.value, states)
    slow = _slow(slow_value, model, states)
    counts = 1 - is_last[:, :-1].astype(jnp.float32)
    return counts * _value_loss(value, stop(future), slow)


def lambda_return(
    last: Float[Array, "B T"],
    terminal: Float[Array, "B T"],
    reward: Float[Array, "B T"],
    bootstrap: Float[Array, "B T"],
    *,
    discount: float,
    trace: float,
) -> Float[Array, "B T-1"]:
    """R_t = r_{t+1} + g_{t+1} ((1 - c_{t+1}) b_{t+1} + c_{t+1} R_{t+1}), R_T = b_T,

    with g = discount (1 - terminal) and c = trace (1 - last): reward, terminal and last are
    those of the step arrived at.
    """
    live = (1 - terminal)[:, 1:] * discount
    follow = (1 - last)[:, 1:] * trace
    direct = reward[:, 1:] + (1 - follow) * live * bootstrap[:, 1:]

    def step(future: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        now, weight = inputs
        value = now + weight * future
        return value, value

    inputs = (direct.T, (live * follow).T)
    return jax.lax.scan(step, bootstrap[:, -1], inputs, reverse=True)[1].T


def _value_loss(
    value: TwoHot, future: Float[Array, "N K"], slow: Float[Array, "N T"]
) -> Float[Array, "N K"]:
    """Cross-entropy with the return, plus cross-entropy with the slow critic's estimate."""
    value = jax.tree.map(lambda x: x[:, :-1], value)
    return -_each(lambda v, y, s: v.log_prob(y) + v.log_prob(s), value, future, slow[:, :-1])


def _slow(slow_value: Head, model: Dreamer, states: State) -> Float[Array, "N T"]:
    return stop(_each(lambda s: TwoHot(slow_value(model.features(s))).mean(), states))


def _each(function, *trees):
    """Apply a function to every element of two leading axes."""
    return jax.vmap(jax.vmap(function))(*trees)
