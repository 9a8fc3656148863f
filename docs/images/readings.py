"""Draws docs/images/readings.svg: what each reading of the paper does to a prediction, on a toy.

    uv run python docs/images/readings.py

`noisy(hidden_markov(), 1.2)`: an encoder that errs, each seed in a way of its own, at 128 moments
of one episode of the exact filter. The state after thinking predicts the symbol of the next moment.
Mean log-probability of the true one, minus that of the base agent on the same random numbers; mean
over ten seeds and its 95% interval by Student's t.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from objectives import interval
from svg import COLOURS, INK, Plot

from thinkslow import Agent
from thinkslow.toy import Toy, filtered, hidden_markov, noisy, simulate
from thinkslow.worldmodel import State

SEEDS, MOMENTS, ERROR = 10, 128, 1.2
ARMS = (
    *("paper-z-snap", "paper-z-simplex", "paper-logits", "sig-3", "elbo-3"),
    *("evidence", "control-softened", "control-soft"),
)
"""Readings whose state is a mixture of codes; the toy model cannot predict from other floats."""


def main() -> None:
    rows = {}
    for name in ARMS:
        models = [noisy(hidden_markov(), ERROR, seed=seed) for seed in range(SEEDS)]
        gains = np.array([gain(model, seed, name) for seed, model in enumerate(models)])
        rows[name] = interval(gains)
        print(f"{name}: {rows[name][0]:+.3f} ({rows[name][1]:+.3f} to {rows[name][2]:+.3f})")
    draw(rows)


def gain(model: Toy, seed: int, name: str) -> float:
    """Gain in the log-probability of the next symbol, nats."""
    problem, actions = model.problem, jnp.zeros(MOMENTS + 2, int)
    _, symbols = simulate(problem, actions, key=jr.key(seed))
    truth = filtered(problem, actions, symbols)
    agent = Agent(model).thinking(name)
    before = State(jnp.log(truth.priors[:MOMENTS]), truth.beliefs[:MOMENTS])
    action = jnp.ones((MOMENTS, 1))
    carry = dataclasses.replace(agent.start(MOMENTS), state=before, action=action)
    shown, first = {"symbol": symbols[1:-1]}, np.zeros(MOMENTS, bool)
    _, _, thought = agent.act(carry, shown, first, keys=jr.split(jr.key(seed), MOMENTS))

    @jax.vmap
    def score(state: State, symbol: jax.Array) -> jax.Array:
        memory, _ = model.predict(state, jnp.ones(1), jnp.array(False))
        return jnp.log(jax.nn.softmax(memory) @ problem.emission[:, symbol])

    return float(jnp.mean(score(thought.state, symbols[2:]) - score(thought.base, symbols[2:])))


def draw(rows: dict[str, tuple[float, float, float]]) -> None:
    plot = Plot((-0.1, 0.08), (len(rows) - 0.5, -0.5), left=140)
    title = "gain in log-probability of the next symbol, nats: mean and 95% interval"
    plot.axes(np.arange(-0.1, 0.081, 0.05), (), title, "")
    plot.line([(0, -0.5), (0, len(rows) - 0.5)], dashed=True, width=1)
    for row, (name, (mean, low, high)) in enumerate(rows.items()):
        colour = COLOURS[2] if low > 0 else COLOURS[1] if high < 0 else INK
        plot.text(plot.box[0] - 10, plot.at(0, row)[1] + 4, name, "end", colour)
        plot.line([(low, row), (high, row)], colour)
        plot.dot(mean, row, colour)
    plot.save(Path(__file__).with_suffix(".svg"))


if __name__ == "__main__":
    main()
