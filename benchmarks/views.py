"""How much a small encoder finds in each view of one world: why a twin is or is not learnt.

The twins of CollectGoodObjects are played side by side with the same actions, half of them random,
half of a player that walks to the nearest good box. To every moment belongs what is true of it
whatever is seen: the reward of walking on, and where the nearest good box lies from the agent. The
encoder of the preset `tiny`, with two dense layers behind it, is trained to tell both from one
observation, with the same number of updates on the same moments for each view, and judged on
episodes that were held out: the area under the curve for a good and for a bad box ahead (0.5: by
chance), and the share of the variance of the box's direction and distance that it explains.

    ./uvw run python benchmarks/views.py

This is an easier problem than an agent's: the answers are given, not earned.
"""

import argparse
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from equinox import apply_updates, filter_jit, filter_value_and_grad

from thinkslow.dreamer.config import model_preset
from thinkslow.dreamer.nets import MLP, Linear
from thinkslow.dreamer.vision import Encoder
from thinkslow.envs import make
from thinkslow.envs.tasks.scripted import towards_good

TASK = "thinkslow/CollectGoodObjects"
VIEWS = ("", "Panorama", "Informed", "TopDown", "Map")
FORWARD = 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--views", nargs="*", default=VIEWS)
    parser.add_argument("--episodes", type=int, default=60, help="the last fifth is held out")
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    moments, truth = play(given.views, given.episodes)
    found = {}
    for view in given.views:
        found[view or "first person"] = probe(view, moments[view], truth, given)
        if not given.json:
            print(view or "first person", found[view or "first person"], flush=True)
    if given.json:
        print(json.dumps(found))


def play(views: list[str], episodes: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Observations by view, and what is true of each moment."""
    envs = {view: make(f"{TASK}{view}-v1") for view in views}
    one = next(iter(envs.values()))
    rng = np.random.default_rng(0)
    seen: dict[str, list[Any]] = {view: [] for view in views}
    truth: list[list[float]] = []
    for episode in range(episodes):
        now = {view: env.reset(seed=episode)[0] for view, env in envs.items()}
        skilled = False
        for step in range(250):
            if step % 25 == 0:
                skilled = rng.random() < 0.5
            for view in views:
                seen[view].append(now[view])
            truth.append([episode, *_true_of(one)])
            action = towards_good(one) if skilled else int(rng.choice(3, p=[0.25, 0.25, 0.5]))
            now = {view: env.step(action)[0] for view, env in envs.items()}
    arrays = {
        view: {name: np.stack([moment[name] for moment in all_]) for name in all_[0]}
        for view, all_ in seen.items()
    }
    columns = ("episode", "good", "bad", "sine", "cosine", "near")
    return arrays, dict(zip(columns, np.array(truth, np.float32).T, strict=True))


def _true_of(env: Any) -> list[float]:
    """Whether walking on takes a good or a bad box, and where the nearest good one is."""
    world = env.env.unwrapped
    before = world.state()
    reward = env.env.unwrapped.step(FORWARD)[1]
    world.restore(before)
    x, _, z = world.agent.pos
    goods = [thing.pos for thing in world.things if thing.reward > 0]
    near = min(goods, key=lambda pos: math.dist(pos, world.agent.pos))
    angle = math.atan2(-(near[2] - z), near[0] - x) - world.agent.dir
    far = math.hypot(near[0] - x, near[2] - z)
    return [reward > 0, reward < 0, math.sin(angle), math.cos(angle), math.sqrt(far)]


def probe(view: str, seen: Any, truth: dict[str, np.ndarray], given: Any) -> dict[str, float]:
    """Train on the first episodes and judge on the last fifth."""
    spaces = make(f"{TASK}{view}-v1").observations
    config = model_preset("tiny")
    keys = jr.split(jr.key(0), 3)
    encoder = Encoder(spaces, config, key=keys[0])
    hidden = MLP(encoder.tokens, 256, 2, key=keys[1])
    net: Any = (encoder, hidden, Linear(256, 5, key=keys[2]))
    optimiser = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(4e-4))
    state = optimiser.init(net)
    names = ("good", "bad", "sine", "cosine", "near")
    aims = np.stack([truth[name] for name in names], -1)
    held = truth["episode"] >= given.episodes * 4 // 5

    def tell(net: Any, observation: Any) -> Any:
        encoder, hidden, last = net
        return last(hidden(encoder(observation)))

    @filter_value_and_grad
    def loss(net: Any, observation: Any, aim: Any) -> Any:
        out = jax.vmap(tell, (None, 0))(net, observation)
        rewards = optax.sigmoid_binary_cross_entropy(out[:, :2], aim[:, :2]).sum(-1)
        return (rewards + ((out[:, 2:] - aim[:, 2:]) ** 2).sum(-1)).mean()

    @filter_jit
    def update(net: Any, state: Any, observation: Any, aim: Any) -> Any:
        value, slope = loss(net, observation, aim)
        change, state = optimiser.update(slope, state)
        return apply_updates(net, change), state, value

    rng, known = np.random.default_rng(1), np.flatnonzero(~held)
    for _ in range(given.updates):
        rows = rng.choice(known, given.batch)
        batch = {name: array[rows] for name, array in seen.items()}
        net, state, _ = update(net, state, batch, jnp.asarray(aims[rows]))
    judge = filter_jit(jax.vmap(tell, (None, 0)))
    out = np.concatenate(
        [
            np.asarray(judge(net, {name: array[rows] for name, array in seen.items()}))
            for rows in np.array_split(np.flatnonzero(held), 20)
        ]
    )
    aim = aims[held]
    explained = 1 - ((out - aim) ** 2).mean(0) / aim.var(0)
    return {
        "good ahead, AUC": round(area(out[:, 0], aim[:, 0]), 3),
        "bad ahead, AUC": round(area(out[:, 1], aim[:, 1]), 3),
        "direction, R2": round(float(explained[2:4].mean()), 3),
        "distance, R2": round(float(explained[4]), 3),
        "moments": int(held.sum()),
        "good": int(aim[:, 0].sum()),
        "bad": int(aim[:, 1].sum()),
    }


def area(score: np.ndarray, label: np.ndarray) -> float:
    """The chance that a moment with the label scores above one without."""
    ranks = np.argsort(np.argsort(score)) + 1
    positive = label > 0
    count, rest = positive.sum(), (~positive).sum()
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * rest))


if __name__ == "__main__":
    main()
