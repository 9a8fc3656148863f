"""Draws docs/images/smoothing.svg: what later frames tell about earlier ones, on the toy model.

    uv run python docs/images/smoothing.py

256 windows of 6 frames on a ring of 6 states with an inaccurate encoder, smoothed by 0 to 6 steps
of at most 1 nat a frame. Mean log belief in the true state of the first five frames, and the same
for windows whose frames after the first are in a wrong order, against their own fixed lag.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from svg import COLOURS, Plot

from thinkslow import toy
from thinkslow.agent.past.smoothing import smoothed
from thinkslow.agent.past.window import Window
from thinkslow.worldmodel import State

STEPS = (0, 1, 2, 3, 6)
WINDOWS, FRAMES = 256, 6
PROBLEM = toy.ring(6, noise=0.2)
MODEL = toy.noisy(PROBLEM, 1.5, seed=3)


def main() -> None:
    true, false = windows()
    found = {"true order": gains(*true), "wrong order": gains(*false)}
    for what, points in found.items():
        shown = [f"{mean:.3f} +- {error:.3f}" for mean, error in points]
        print(what, dict(zip(STEPS, shown, strict=True)))
    ends = [mean for points in found.values() for mean, _ in points]
    low, high = np.floor(10 * min(ends)) / 10, np.ceil(10 * max(ends)) / 10
    plot = Plot((0, STEPS[-1]), (low, high))
    ticks = np.round(np.arange(low, high + 0.05, 0.1), 1)
    plot.axes(STEPS, ticks, "steps", "gain in log belief in the true earlier states, nats")
    for (what, points), colour in zip(found.items(), COLOURS, strict=False):
        means = [mean for mean, _ in points]
        plot.line(list(zip(STEPS, means, strict=True)), colour)
        x, y = plot.at(STEPS[-1], means[-1])
        plot.text(x, y - 8, what, "end", colour)
    plot.save(Path(__file__).with_suffix(".svg"))


def windows() -> tuple[tuple[Window, Any], tuple[Window, Any]]:
    """Windows with their true states, and the same with later frames in a wrong order."""
    actions = jr.randint(jr.key(0), (WINDOWS, FRAMES), 0, PROBLEM.actions)
    keys = jr.split(jr.key(1), WINDOWS)
    states, symbols = jax.vmap(lambda a, k: toy.simulate(PROBLEM, a, key=k))(actions, keys)
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (WINDOWS, FRAMES, *x.shape)), MODEL.initial())
    first = jnp.zeros((WINDOWS, FRAMES), bool).at[:, 0].set(True)
    taken = jax.nn.one_hot(actions, PROBLEM.actions)
    order = jnp.concatenate([jnp.array([0]), jr.permutation(jr.key(2), jnp.arange(1, FRAMES))])

    def window(symbols: Any) -> Window:
        carried = State(many.memory, many.latent)
        return Window(carried, taken, {"symbol": symbols}, first, jnp.ones_like(first))

    return (window(symbols), states), (window(symbols[:, order]), states)


def gains(window: Window, states: Any) -> list[tuple[float, float]]:
    """Mean gain over no steps and its standard error, for each number of steps."""
    plain = score(window, states, 0)
    out = []
    for steps in STEPS:
        gain = score(window, states, steps) - plain
        out.append((float(gain.mean()), float(gain.std() / np.sqrt(WINDOWS))))
    return out


def score(window: Window, states: Any, steps: int) -> np.ndarray:
    """Mean log belief in the true state of each window's frames but the last."""

    @jax.jit
    @jax.vmap
    def beliefs(one: Window) -> Any:
        return smoothed(MODEL, one, steps=steps, nats=1.0, key=jr.key(0))[1].soft()

    true = np.take_along_axis(np.asarray(beliefs(window)), np.asarray(states)[..., None], -1)
    return np.log(np.maximum(true[..., 0], 1e-9))[:, :-1].mean(1)


if __name__ == "__main__":
    main()
