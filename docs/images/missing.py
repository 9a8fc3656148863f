"""Draws docs/images/missing.svg: what is lost with the frames that do not come, on the toy model.

    uv run python docs/images/missing.py

256 episodes of 40 decisions on a ring of 8 states, exact encoder and soft latent, so that nothing
but the frames is lost. Mean log belief in the true state against the share of frames that are
missing: predicted through, held, or encoded as the symbol 0 that is shown in their place.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from svg import COLOURS, Plot

from thinkslow import Agent, Thinking
from thinkslow.readouts import Soft
from thinkslow.toy import exact, ring, simulate

SHARES = (0.0, 0.25, 0.5, 0.75)
EPISODES, TIME = 256, 40
ARMS = {"predicted": "predict", "held": "hold", "encoded as they come": None}


def main() -> None:
    problem = ring()
    actions = jr.randint(jr.key(0), (EPISODES, TIME), 0, problem.actions)
    states, symbols = jax.vmap(lambda a, k: simulate(problem, a, key=k))(
        actions, jr.split(jr.key(1), EPISODES)
    )
    lots = np.random.default_rng(2).random((EPISODES, TIME))
    found = {
        what: [played(problem, how, actions, symbols, states, lots < share) for share in SHARES]
        for what, how in ARMS.items()
    }
    print({what: [round(value, 2) for value in values] for what, values in found.items()})
    low = min(min(values) for values in found.values())
    plot = Plot((0, 0.8), (np.floor(low), 0))
    plot.axes(
        SHARES,
        range(int(np.floor(low)), 1),
        "share of frames missing",
        "mean log belief in the true state, nats",
    )
    for (what, values), colour in zip(found.items(), COLOURS, strict=False):
        plot.line(list(zip(SHARES, values, strict=True)), colour)
        x, y = plot.at(SHARES[-1], values[-1])
        plot.text(x, y - 8, what, "end", colour)
    plot.save(Path(__file__).with_suffix(".svg"))


def played(problem, how, actions, symbols, states, missing) -> float:
    missing = missing.copy()
    missing[:, 0] = False
    agent = Agent(exact(problem), Thinking(readout=Soft(), missing=how))
    carry, beliefs = agent.start(EPISODES), []
    for time in range(TIME):
        taken = jax.nn.one_hot(actions[:, time], problem.actions)
        carry = type(carry)(carry.state, taken, carry.past, carry.stream)
        lost = missing[:, time]
        shown = {"symbol": np.where(lost, 0, symbols[:, time])}
        told = {} if how is None else {"missing": lost}
        keys = jr.split(jr.fold_in(jr.key(3), time), EPISODES)
        first = np.full(EPISODES, time == 0)
        carry, _, thought = agent.act(carry, shown, first, keys=keys, **told)
        beliefs.append(np.asarray(thought.after.soft()))
    true = np.take_along_axis(np.stack(beliefs), np.asarray(states).T[..., None], -1)
    return float(np.mean(np.log(jnp.maximum(true, 1e-9))))


if __name__ == "__main__":
    main()
