"""Draws docs/images/beliefs.svg: how much of the past a belief needs, on the toy model.

    uv run python docs/images/beliefs.py

256 episodes of 40 decisions of `hidden_markov()`, exact encoder. Mean log belief in the true state
after the fifth decision, under fixed-lag re-inference and under particles.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow import Agent, Thinking
from thinkslow.toy import exact, filtered, hidden_markov, simulate

LAGS = (0, 1, 2, 3, 5, 8)
PARTICLES = (1, 2, 4, 8, 16, 32)
EPISODES, TIME, SETTLED = 256, 40, 5
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 300, 70, 30, 620, 240
LOW, HIGH = -2.4, -1.2
INK, COLOURS = "#777", {"lag": "#2a7fb8", "particles": "#d1495b"}


def main() -> None:
    problem = hidden_markov()
    actions = jnp.zeros(TIME, int)
    keys = jr.split(jr.key(0), EPISODES)
    states, symbols = jax.vmap(lambda key: simulate(problem, actions, key=key))(keys)
    beliefs = jax.vmap(lambda seen: filtered(problem, actions, seen).beliefs)(symbols)
    agent = Agent(exact(problem))
    found = {
        "lag": [played(agent.having(Thinking(lag=n)), symbols, states) for n in LAGS],
        "particles": [
            played(agent.having(Thinking(particles=n)), symbols, states) for n in PARTICLES
        ],
    }
    best = mean_log(np.asarray(beliefs).swapaxes(0, 1), states)
    print(f"exact {best:.3f}", {k: [round(v, 3) for v in values] for k, values in found.items()})
    Path(__file__).with_suffix(".svg").write_text(drawing(best, found))


def played(agent: Agent, symbols: jax.Array, states: jax.Array) -> float:
    carry, beliefs = agent.start(EPISODES), []
    for time in range(TIME):
        keys = jr.split(jr.fold_in(jr.key(1), time), EPISODES)
        first = np.full(EPISODES, time == 0)
        carry, _, thought = agent.act(carry, {"symbol": symbols[:, time]}, first, keys=keys)
        belief = thought.after.soft()
        if thought.mixture is not None:
            weights = jnp.exp(thought.mixture.log_weights)
            belief = jnp.einsum("bn,bns->bs", weights, thought.mixture.beliefs.soft())
        beliefs.append(np.asarray(belief))
    return mean_log(np.stack(beliefs), states)


def mean_log(beliefs: np.ndarray, states: jax.Array) -> float:
    """`beliefs` is `[time, episodes, states]`, `states` `[episodes, time]`."""
    true = np.take_along_axis(beliefs, np.asarray(states).T[..., None], -1)
    return float(np.log(true[SETTLED:]).mean())


def drawing(best: float, found: dict[str, list[float]]) -> str:
    def y(value: float) -> float:
        return BOTTOM - (value - LOW) / (HIGH - LOW) * (BOTTOM - TOP)

    def text(x: float, at: float, words: str, anchor: str = "middle", colour: str = INK) -> str:
        return (
            f'<text x="{x:.0f}" y="{at:.0f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'
        )

    parts = [
        f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y(best):.1f}" y2="{y(best):.1f}" stroke="{INK}" '
        f'stroke-dasharray="4 4"/>',
        text(RIGHT, y(best) - 6, f"exact belief {best:.2f}", "end"),
    ]
    parts += [
        text(LEFT - 10, y(tick) + 4, f"−{-tick:.1f}", "end")
        for tick in np.arange(LOW, HIGH + 0.01, 0.4)
    ]
    columns = np.linspace(LEFT + 30, RIGHT - 30, len(LAGS))
    for row, (name, values) in enumerate(found.items()):
        points = [(x, y(value)) for x, value in zip(columns, values, strict=True)]
        line = " ".join(f"{x:.1f},{at:.1f}" for x, at in points)
        colour = COLOURS[name]
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{at:.1f}" r="4" fill="{colour}"/>' for x, at in points]
        counts = (LAGS, PARTICLES)[row]
        parts.append(text(LEFT - 10, BOTTOM + 22 + 18 * row, name, "end", colour))
        parts += [
            text(x, BOTTOM + 22 + 18 * row, str(count), colour=colour)
            for x, count in zip(columns, counts, strict=True)
        ]
    parts.append(text(LEFT - 60, TOP - 12, "mean log belief in the true state, nats", "start"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="13">\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    main()
