"""Draws docs/images/updates.svg: how fast each update descends, on the toy model.

    uv run python docs/images/updates.py

`noisy(hidden_markov(), 1.2)`, the evidence of the present on the soft latent, no bound on the way.
What the objective is above its least value is KL(q || exact belief). Median over 128 moments of
each of five encoders. Each update has the step size, of eight, whose mean over the
steps is least on a sixth encoder.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from svg import COLOURS, Plot

from thinkslow import Categorical, Gradient, Mirror, lookahead, refine
from thinkslow.objectives import Evidence
from thinkslow.readouts import Soft
from thinkslow.refinement import Langevin, adam, coordinate
from thinkslow.toy import filtered, hidden_markov, noisy, simulate
from thinkslow.worldmodel import Moment

SEEDS, MOMENTS, ERROR, STEPS = 5, 128, 1.2, 16
SIZES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
UPDATES = {
    "gradient": Gradient,
    "adam": adam,
    "mirror": Mirror,
    "langevin": partial(Langevin, temperature=1e-3),
    "coordinate": None,
}
LEAST = 1e-5
"""Nats; of less, float32 knows nothing."""


def main() -> None:
    found = {}
    for name, update in UPDATES.items():
        sizes = [1.0]
        if update is not None:
            ends = [np.median(gaps(SEEDS, size, update), 0).mean() for size in SIZES]
            sizes = [SIZES[int(np.argmin(ends))]]
        every = np.concatenate([gaps(seed, sizes[0], update) for seed in range(SEEDS)])
        found[name] = np.median(every, 0)
        print(f"{name}, step size {sizes[0]:g}:", np.array2string(found[name], precision=5))
    draw(found)


def gaps(seed: int, size: float, update: Any) -> jax.Array:
    """The objective above its least value, nats, `[MOMENTS, STEPS + 1]`."""
    return descended(noisy(hidden_markov(), ERROR, seed=seed), jnp.array(seed), size, update)


@partial(jax.jit, static_argnums=3)
def descended(model: Any, seed: Any, size: Any, update: Any) -> jax.Array:
    problem, actions = model.problem, jnp.zeros(MOMENTS, int)
    _, symbols = simulate(problem, actions, key=jr.key(seed))
    truth = filtered(problem, actions, symbols)

    def at(prior: jax.Array, surprise: jax.Array, symbol: jax.Array, key: jax.Array) -> jax.Array:
        memory, seen = jnp.log(prior), {"symbol": symbol}
        encoded = model.infer(memory, seen)
        moment = Moment(memory, Categorical(memory), encoded, jnp.array(True))
        objective = lookahead(model, model.policy, moment, seen, {Evidence(): 1.0}, latent=Soft())
        if update is None:
            return coordinate(objective, encoded, sweeps=STEPS, key=key).loss + surprise
        return refine(objective, encoded, update(size), steps=STEPS, key=key).loss + surprise

    keys = jr.split(jr.key(1), MOMENTS)
    return jax.vmap(at)(truth.priors, truth.log_evidence, symbols, keys)


def draw(found: dict[str, np.ndarray]) -> None:
    powers = range(-5, 1)
    plot = Plot((0, STEPS), (-5, 0))
    plot.axes(range(0, STEPS + 1, 2), (), "steps, or sweeps of coordinate descent", "")
    for power in powers:
        left, height = plot.at(0, power)
        plot.text(left - 10, height + 4, f"1e{power}".replace("-", "−"), "end")
        plot.line([(0, power), (STEPS, power)], width=0.4)
    plot.text(10, 16, "objective above its least value, nats (median)", "start")
    for row, (name, values) in enumerate(found.items()):
        heights = np.log10(np.maximum(values, LEAST))
        plot.line(list(enumerate(heights)), COLOURS[row], dashed=name == "coordinate")
        plot.text(plot.width - 24, plot.box[2] - 77 + 15 * row, name, "end", COLOURS[row])
    plot.save(Path(__file__).with_suffix(".svg"))


if __name__ == "__main__":
    main()
