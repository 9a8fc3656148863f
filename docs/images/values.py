"""Draws docs/images/values.svg: what choosing by value gains, on the toy model that pays.

    uv run python docs/images/values.py

`rewarded(ring())`: state 0 pays 1 for arriving, the policy leans the right way and is unsure (0.6
against 0.4). Beliefs are met by the exact filter on the policy's own way. What an action is worth
under a belief is then a sum, so that gain and regret of every choice are exact: the worth of the
new policy less that of the old one, as a share of what the best action would add.
"""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.stats
from svg import COLOURS, INK, Plot

from thinkslow.agent.choices import Facing, Shuffled, Tempered, Values
from thinkslow.distributions import Categorical
from thinkslow.toy import Rewarded, filtered, rewarded, ring, simulate
from thinkslow.worldmodel import State

STATES, EPISODES, TIME, WARM = 8, 30, 15, 5
ONE = jnp.float32(1.0)  # a number of arrays is none of the program's structure
KLS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
ARMS = {
    "values": (Values, {}),
    "one latent": (Values, {"latents": 1}),
    "shuffled": (Shuffled, {}),
    "tempered": (Tempered, {}),
}


def main() -> None:
    model = leaning()
    beliefs, memories, actions = met(model)
    found: dict[str, np.ndarray] = {}
    for name, (kind, given) in ARMS.items():
        rows = []
        for number, kl in enumerate(KLS):
            choice = kind(scale=ONE, temperature=ONE / 1000, max_kl=kl * ONE, horizon=5, **given)
            keys = jr.split(jr.key(number), len(beliefs.logits))
            rows.append(np.asarray(shares(model, choice, beliefs, memories, actions, keys)))
        found[name] = np.stack(rows)  # kl, belief
    for name, values in found.items():
        episodes = values.reshape(len(KLS), EPISODES, -1).mean(-1)[4]
        half = scipy.stats.t.ppf(0.975, EPISODES - 1) * scipy.stats.sem(episodes)
        print(f"{name}: {episodes.mean():+.2f} +- {half:.2f} of the regret at {KLS[4]} nats")
    draw({name: values.mean(1) for name, values in found.items()})


def leaning() -> Rewarded:
    """A policy that leans towards state 0 by the shorter way."""
    back = np.where(np.arange(STATES) <= STATES // 2, 0.6, 0.4)
    return rewarded(ring(STATES), np.eye(STATES)[0], acts=np.stack([back, 1 - back], 1))


def met(model: Rewarded) -> tuple[Categorical, jax.Array, jax.Array]:
    """Beliefs of the exact filter on episodes of random walks, and an action of the policy."""
    walk_key, act_key = jr.split(jr.key(0))
    actions = jr.bernoulli(walk_key, 0.5, (EPISODES, TIME)).astype(int)

    def one(actions: jax.Array, key: Any) -> tuple[jax.Array, jax.Array]:
        _, symbols = simulate(model.problem, actions, key=key)
        found = filtered(model.problem, actions, symbols)
        return jnp.log(found.beliefs[WARM:]), jnp.log(found.priors[WARM:])

    logits, memories = jax.vmap(one)(actions, jr.split(act_key, EPISODES))
    flat, memories = (x.reshape(-1, STATES) for x in (logits, memories))
    taken = jr.bernoulli(jr.key(1), 0.5, (len(flat),)).astype(int)
    return Categorical(flat), memories, jax.nn.one_hot(taken, 2)


@eqx.filter_jit
def shares(
    model: Rewarded, choice: Values, beliefs: Any, memories: Any, actions: Any, keys: Any
) -> jax.Array:
    """Gain of each decision, over the mean regret of the policy."""

    def one(belief: Any, memory: Any, action: Any, key: Any) -> tuple[jax.Array, jax.Array]:
        state_key, key = jr.split(key)
        state = State(memory, belief.sample(key=state_key))
        facing = Facing(model, model.policy, False, belief, state, action, None, 1.0)
        chosen = choice(facing, key=key)[1]
        worth = model.worth(belief.probs())
        base, new = jnp.exp(chosen.log_probs), jnp.exp(chosen.improved)
        return (new - base) @ worth, worth.max() - base @ worth

    gain, regret = jax.vmap(one)(beliefs, memories, actions, keys)
    return gain / regret.mean()


def draw(found: dict[str, np.ndarray]) -> None:
    plot = Plot((0, len(KLS) - 1), (-0.2, 1))
    ticks = np.arange(-0.2, 1.01, 0.2)
    plot.axes([], ticks, "KL from the policy, nats", "share of the regret won back", ".1f")
    for place, kl in enumerate(KLS):
        plot.text(plot.at(place, 0)[0], plot.box[2] + 20, f"{kl:g}")
    for row, (name, values) in enumerate(found.items()):
        colour = INK if name == "tempered" else COLOURS[row]
        plot.line(list(enumerate(values)), colour)
        plot.text(plot.width - 30, plot.box[2] - 92 + 18 * row, name, "end", colour)
    plot.save(Path(__file__).with_suffix(".svg"))


if __name__ == "__main__":
    main()
