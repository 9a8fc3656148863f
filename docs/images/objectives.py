"""Draws docs/images/objectives.svg: where each objective leads a belief, on the toy model.

    uv run python docs/images/objectives.py

`noisy(hidden_markov(), 1.2)`: an encoder that errs, each seed in a way of its own, at 128 moments
of one episode of the exact filter. KL from the exact belief after refinement; mean over ten seeds
and its 95% interval by Student's t.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.stats
from svg import COLOURS, INK, Plot

from thinkslow import Categorical, Gradient, Mirror, lookahead, refine
from thinkslow.objectives import SIG, Anchor, Evidence
from thinkslow.readouts import Soft
from thinkslow.refinement import Random
from thinkslow.toy import exact, filtered, hidden_markov, noisy, simulate
from thinkslow.worldmodel import Moment

SEEDS, MOMENTS, ERROR, NATS = 10, 128, 1.2, 1.0
INFORMATION, EVIDENCE, ANCHOR = (SIG(), 1.0), (Evidence(), 1.0), (Anchor(), 5.0)
ARMS = {
    "random": ((INFORMATION,), Random(), 5),
    "sig": ((INFORMATION,), Gradient(1e3), 5),
    "sig + 5 anchor": ((INFORMATION, ANCHOR), Mirror(0.1), 5),
    "sig + evidence": ((INFORMATION, EVIDENCE), Mirror(0.3), 5),
    "evidence": ((EVIDENCE,), Mirror(0.3), 5),
}
"""Terms, update and steps; each may move the belief by 1 nat in all."""


def main() -> None:
    found = {name: [] for name in ("encoder", *ARMS)}
    for seed in range(SEEDS):
        model = noisy(hidden_markov(), ERROR, seed=seed)
        for name, arm in ARMS.items():
            found[name].append(float(distances(model, seed, *arm)[1]))
        found["encoder"].append(float(distances(model, seed, *ARMS["evidence"])[0]))
    rows = {name: interval(np.array(values)) for name, values in found.items()}
    for name, values in found.items():
        change = interval(np.array(values) - np.array(found["encoder"]))
        print(
            f"{name}: {rows[name][0]:.3f}, against the encoder {change[0]:+.3f} "
            f"({change[1]:+.3f} to {change[2]:+.3f})"
        )
    draw(rows)


@partial(jax.jit, static_argnums=(2, 4))
def distances(model: Any, seed: Any, terms: Any, update: Any, steps: int) -> Any:
    """Mean KL from the exact belief, of the encoder's and of the refined one."""
    problem, actions = model.problem, jnp.zeros(MOMENTS, int)
    _, symbols = simulate(problem, actions, key=jr.key(seed))
    truth = filtered(problem, actions, symbols)

    def at(prior: jax.Array, belief: jax.Array, symbol: jax.Array, key: jax.Array) -> Any:
        memory, seen = jnp.log(prior), {"symbol": symbol}
        encoded, best = model.infer(memory, seen), exact(problem).infer(memory, seen)
        moment = Moment(memory, Categorical(memory), encoded, jnp.array(True))
        objective = lookahead(
            model, model.policy, moment, seen, terms, horizon=3, rollouts=4, latent=Soft()
        )
        out = refine(objective, encoded, update, steps=steps, key=key, max_kl=NATS)
        return encoded.kl(best), out.belief.kl(best)

    keys = jr.split(jr.key(1), MOMENTS)
    return jax.tree.map(jnp.mean, jax.vmap(at)(truth.priors, truth.beliefs, symbols, keys))


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, and the ends of its 95% interval."""
    mean, error = float(values.mean()), float(scipy.stats.sem(values))
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * error
    return mean, mean - half, mean + half


def draw(rows: dict[str, tuple[float, float, float]]) -> None:
    plot = Plot((0, 1.4), (len(rows) - 0.5, -0.5), left=130)
    title = "KL from the exact belief, nats: mean and 95% interval over ten encoders"
    plot.axes(np.arange(0, 1.41, 0.2), (), title, "")
    encoder = rows["encoder"][0]
    plot.line([(encoder, -0.5), (encoder, len(rows) - 0.5)], dashed=True, width=1)
    for row, (name, (mean, low, high)) in enumerate(rows.items()):
        colour = INK if name in ("encoder", "random") else COLOURS[2 * ("evidence" in name)]
        height = plot.at(0, row)[1] + 4
        plot.text(plot.box[0] - 10, height, name, "end", colour)
        plot.line([(low, row), (high, row)], colour)
        plot.dot(mean, row, colour)
        plot.text(plot.at(high, row)[0] + 10, height, f"{mean:.2f}", "start", colour)
    plot.save(Path(__file__).with_suffix(".svg"))


if __name__ == "__main__":
    main()
