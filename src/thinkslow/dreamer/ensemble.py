"""An ensemble of the last layer of the prior head, fitted on the frozen model.

Each member starts near the trained layer and is fitted to its own bootstrap resample of episodes.
Members therefore agree where all episodes say the same, and differ where data are few. The agent
plays new episodes for the data: at each decision they hold the memory, the prior's only input, and
the encoder's belief, the prior's target. `make` does this for an agent with an actor; `fit` does it
for any model, given the arrays to fit and the function that predicts from them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from thinkslow.agent.agent import Agent
from thinkslow.distributions import Belief
from thinkslow.envs import VectorEnv
from thinkslow.needs import PRIOR, PRIOR_LAYER, unmet
from thinkslow.objectives import parameter_information_gain
from thinkslow.objectives.members import Members, Noise, Where, prior_layer, replaced
from thinkslow.plural import plural
from thinkslow.worldmodel import Memory, WorldModel

Prior: TypeAlias = Callable[[Any, Memory], Belief]
"""The prior belief of a model given a memory."""
Show: TypeAlias = Callable[[str, int, int], None]
"""Called with the present part, the amount done, and the total."""

NOISE = 0.01
"""Standard deviation of the noise added at a member's start, as a share of the root mean square of
the trained weights.
"""
BATCH = 256
"""Number of decisions in one step of a fit."""
RATE = 1e-3
HELD_OUT = 0.2
"""Share of the episodes that are held out for evaluation."""
PURPOSE = 0xE5B1
"""The purpose of these seeds: episodes outside training and evaluation."""
PARTS = 10
"""Number of fit steps between two progress reports."""


class Experience(NamedTuple):
    """The decisions of some episodes, along the leading axis."""

    memories: Memory
    posteriors: Belief
    episodes: Int[np.ndarray, " decisions"]
    """The episode of each decision."""


class Fit(NamedTuple):
    """How well layers predict beliefs: means over decisions, in nats."""

    trained: float
    """KL(posterior || prior) of the trained model."""
    members: tuple[float, ...]
    """KL(posterior || prior) of each member."""
    disagreement: float
    """Parameter information gain of the members."""


def make(
    model: WorldModel,
    envs: VectorEnv,
    *,
    decisions: int,
    members: int,
    steps: int,
    seed: int,
    show: Show = lambda *_: None,
) -> tuple[Members, dict[str, Any]]:
    """Fit an ensemble of `members` last layers of the model's prior head, and evaluate it.

    The agent plays `decisions` decisions in `envs`. Each member is fitted in `steps` steps to a
    resample of four fifths of the episodes. The small number of steps is the only regularisation:
    with many more, a member predicts its own resample better and other episodes worse.

    **Errors:** `ValueError` for fewer than 2 members, too few episodes, or a model without
    `prior_layer` or `prior`.
    **Cost:** 12 to 20 seconds for 4,000 decisions of a `tiny` agent on two cores.
    """
    if members < 2:
        raise ValueError(f"`members` must be 2 or more, to disagree; got {members}.")
    if (reason := unmet(model, (PRIOR_LAYER, PRIOR))) is not None:
        raise ValueError(f"An ensemble of {type(model).__name__} cannot be fitted: {reason}.")
    play_key, fit_key = jr.split(jr.key(seed))
    played = collect(Agent(model), envs, decisions, key=play_key, show=show)
    train, held = split(played, HELD_OUT, seed=seed)
    times = resample_counts(train.episodes, members, seed=seed)
    found = fit(
        model, prior_layer, _prior, train, times, steps=steps, rate=RATE, key=fit_key, show=show
    )
    parts = {"training": train, "held_out": held}
    return found, {
        "members": members,
        "decisions": len(played.episodes),
        "steps": steps,
        "seed": seed,
        "episodes": {name: len(np.unique(part.episodes)) for name, part in parts.items()},
        **{name: judged(model, found, _prior, part)._asdict() for name, part in parts.items()},
    }


def seed_of(seed: int) -> int:
    """The seed of the environments, given the seed of an ensemble."""
    return int(np.random.SeedSequence([PURPOSE, seed]).generate_state(1)[0])


def collect(
    agent: Agent,
    envs: VectorEnv,
    decisions: int,
    *,
    key: PRNGKeyArray,
    show: Show = lambda *_: None,
) -> Experience:
    """Play at least `decisions` decisions and keep the data for an ensemble.

    The agent carries its own state, as in an evaluation. An unfinished episode at the end counts as
    an episode.

    **Cost:** memory for every decision's belief.
    """
    model: Any = agent.model  # which also splits an action vector into actions
    step, carry = envs.reset(), agent.start(envs.count)
    episode, begun = np.arange(envs.count), envs.count
    kept: list[tuple] = []
    for time in range(-(-decisions // envs.count)):
        if time and step.is_first.any():
            fresh = np.flatnonzero(step.is_first)
            episode[fresh] = begun + np.arange(len(fresh))
            begun += len(fresh)
        keys = jr.split(jr.fold_in(key, time), envs.count)
        carry, action, thought = agent.act(carry, step.observation, step.is_first, keys=keys)
        found = jax.tree.map(np.asarray, (thought.base.memory, thought.before))
        kept.append((*found, episode.copy()))
        step = envs.step(model.split(np.asarray(action)))
        show("playing", len(kept) * envs.count, decisions)
    return Experience(*jax.tree.map(lambda *xs: np.concatenate(xs), *kept))


def split(experience: Experience, share: float, *, seed: int) -> tuple[Experience, Experience]:
    """Split experience into a part to fit and a held-out `share` of its episodes, at least one.

    **Errors:** `ValueError` if there are fewer than three episodes: one to hold out, and two to
    resample.
    """
    episodes = np.unique(experience.episodes)
    if len(episodes) < 3:
        raise ValueError(
            f"An ensemble needs 3 episodes or more; {plural(len(experience.episodes), 'decision')} "
            f"gave {len(episodes)}. Play more: `decisions=N`."
        )
    count = min(max(1, round(share * len(episodes))), len(episodes) - 2)
    chosen = np.random.default_rng([seed, 0]).choice(episodes, count, replace=False)
    held = np.isin(experience.episodes, chosen)
    return (
        jax.tree.map(lambda x: x[~held], experience),
        jax.tree.map(lambda x: x[held], experience),
    )


def resample_counts(
    episodes: Int[np.ndarray, " decisions"], count: int, *, seed: int
) -> np.ndarray:
    """How often each of `count` bootstrap resamples of the episodes contains each decision:
    `[count, decisions]`, equal within an episode.
    """
    known, index = np.unique(episodes, return_inverse=True)
    draws = np.random.default_rng([seed, 1]).multinomial(
        len(known), np.full(len(known), 1 / len(known)), count
    )
    return draws[:, index].astype(np.float32)


def fit(
    model: Any,
    where: Where,
    prior: Prior,
    experience: Experience,
    times: Float[np.ndarray, "members decisions"],
    *,
    steps: int,
    rate: float,
    key: PRNGKeyArray,
    show: Show = lambda *_: None,
) -> Members:
    """Fit members: the arrays at `where` minimise KL(posterior || prior) over each member's
    resample.

    `times` is how often a member's resample contains each decision. Adam runs on minibatches that
    all members share, so shared terms are computed once. The learning rate falls to zero along a
    cosine. For a categorical belief and a linear layer the problem is convex.

    **Cost:** `steps` times a forward and a backward pass of the layer for each member, on 256
    decisions; one compilation.
    """
    start_key, key = jr.split(key)
    start = where(Noise(NOISE, len(times), where)(model, key=start_key).differing)
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps))
    data = jax.tree.map(jnp.asarray, (experience.memories, experience.posteriors, times.T))
    number = times.shape[1]

    def loss(arrays: PyTree[Array], model: Any, some: tuple) -> Float[Array, ""]:
        memories, posteriors, weights = some
        kl = _kl(replaced(model, where, arrays), model, prior, memories, posteriors)
        return jnp.sum(jnp.mean(weights.T * kl, 1))  # each member has its own arrays

    @eqx.filter_jit
    def descend(state: tuple, model: Any, data: tuple, keys: Array) -> tuple:
        def step(state: tuple, key: PRNGKeyArray) -> tuple[tuple, None]:
            arrays, moments = state
            chosen = jr.randint(key, (min(BATCH, number),), 0, number)
            some = jax.tree.map(lambda x: x[chosen], data)
            change, moments = adam.update(jax.grad(loss)(arrays, model, some), moments)
            return (optax.apply_updates(arrays, change), moments), None

        return jax.lax.scan(step, state, keys)[0]

    state = (start, adam.init(start))
    length = -(-steps // PARTS)
    keys = jr.split(key, PARTS * length).reshape(PARTS, length)
    for part in range(PARTS):
        state = jax.block_until_ready(descend(state, model, data, keys[part]))
        show("fitting", (part + 1) * length, PARTS * length)
    return replaced(model, where, state[0])


def judged(model: Any, members: Members, prior: Prior, experience: Experience) -> Fit:
    """Evaluate how well the trained layer and the members predict the beliefs of some
    experience.
    """

    @eqx.filter_jit
    def means(model: Any, members: Members, memories: Memory, posteriors: Belief) -> Any:
        def one(memory: Memory, posterior: Belief) -> tuple[Array, Array]:
            gain = parameter_information_gain(members.each(model, lambda m: prior(m, memory)))
            return posterior.kl(prior(model, memory)), gain

        kl = _kl(members, model, prior, memories, posteriors).mean(1)
        return kl, *(x.mean() for x in jax.vmap(one)(memories, posteriors))

    kl, trained, gain = means(model, members, experience.memories, experience.posteriors)
    return Fit(float(trained), tuple(map(float, kl)), float(gain))


def _prior(model: Any, memory: Memory) -> Belief:
    return model.prior(memory)


def _kl(
    members: Members, model: Any, prior: Prior, memories: Memory, posteriors: Belief
) -> Float[Array, "members decisions"]:
    def of_one(model: Any) -> Float[Array, " decisions"]:
        return jax.vmap(lambda memory, posterior: posterior.kl(prior(model, memory)))(
            memories, posteriors
        )

    return members.each(model, of_one)
