"""Draws docs/images/gates.svg: what is gained by thinking in doubt only, on the toy model.

    uv run python docs/images/gates.py

`noisy(hidden_markov(), 1.2)`, ten encoders, 32 episodes of 40 decisions each, on the base agent's
way. The gain of a decision is the KL from the exact belief at its memory that five mirror steps
on the evidence remove. Decisions in the order of a score, highest first: what share of the sum of
all gains has the first share of the decisions?
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.stats
from svg import COLOURS, INK, Plot

from thinkslow import Agent, Mirror, Thinking
from thinkslow.agent.gates import BaseDecision, Chance, Novelty, PosteriorEntropy, Surprise
from thinkslow.objectives import Evidence
from thinkslow.readouts import Soft
from thinkslow.toy import exact, hidden_markov, noisy, simulate

SEEDS, EPISODES, TIME, ERROR = 10, 32, 40, 1.2
SCORES = {score.name: score for score in (Surprise(), PosteriorEntropy(), Novelty(), Chance())}
SHARES = np.arange(0, 1.001, 0.05)
THINKING = Thinking(
    {Evidence(): 1.0}, steps=5, update=Mirror(0.3), max_kl=1.0, latent=Soft(), carry=False
)


def main() -> None:
    curves = {name: [] for name in (*SCORES, "best")}
    for seed in range(SEEDS):
        gains, scores = played(seed)
        for name, score in {**scores, "best": gains}.items():
            order = gains[np.argsort(-score)]
            kept = np.concatenate([[0], np.cumsum(order)]) / order.sum()
            curves[name].append(np.interp(SHARES * len(gains), np.arange(len(kept)), kept))
    found = {name: np.array(values) for name, values in curves.items()}
    for name, values in found.items():
        at = values[:, 4]
        more = at - found["random"][:, 4]
        half = scipy.stats.t.ppf(0.975, SEEDS - 1) * scipy.stats.sem(more)
        print(
            f"{name}: {at.mean():.2f} of the gain in a fifth of the decisions; "
            f"{more.mean():+.2f} +- {half:.2f} against chance"
        )
    draw({name: values.mean(0) for name, values in found.items()})


def played(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The gain of every decision of an encoder, and its scores."""
    problem, actions = hidden_markov(), jnp.zeros(TIME, int)
    model = noisy(problem, ERROR, seed=seed)
    keys = jr.split(jr.key(seed), EPISODES)
    _, symbols = jax.vmap(lambda key: simulate(problem, actions, key=key))(keys)
    agent = Agent(model, THINKING)
    carry, gains, scores = agent.start(EPISODES), [], {name: [] for name in SCORES}
    for time in range(TIME):
        keys = jr.split(jr.fold_in(jr.key(seed), time), EPISODES)
        seen = {"symbol": symbols[:, time]}
        carry, _, thought = agent.act(carry, seen, np.full(EPISODES, time == 0), keys=keys)
        gain, found = judged(model, thought, seen, keys)
        gains.append(gain)
        for name in SCORES:
            scores[name].append(found[name])
    return np.concatenate(gains), {name: np.concatenate(each) for name, each in scores.items()}


@jax.jit
def judged(model: Any, thought: Any, seen: Any, keys: Any) -> tuple[jax.Array, dict]:
    """For a batch: how much nearer thinking came to the exact belief, nats; every score."""

    def one(thought: Any, seen: Any, key: Any) -> tuple[jax.Array, dict]:
        best = exact(model.problem).infer(thought.base.memory, seen)
        decision = BaseDecision(model, model.policy, thought, seen, members=None)
        scores = {name: score(decision, key=key) for name, score in SCORES.items()}
        return thought.before.kl(best) - thought.after.kl(best), scores

    return jax.vmap(one)(thought, seen, keys)


def draw(found: dict[str, np.ndarray]) -> None:
    plot = Plot((0, 1), (0, 1))
    ticks = np.arange(0, 1.01, 0.2)
    plot.axes(ticks, ticks, "share of the decisions thought", "share of the gain kept", ".1f")
    for row, (name, values) in enumerate(found.items()):
        colour = INK if name in ("random", "best") else COLOURS[row]
        plot.line(list(zip(SHARES, values, strict=True)), colour, dashed=name == "best")
        words = {"best": "by the gain itself (dashed)"}.get(name, name)
        plot.text(plot.width - 30, plot.box[2] - 92 + 18 * row, words, "end", colour)
    plot.save(Path(__file__).with_suffix(".svg"))


if __name__ == "__main__":
    main()
