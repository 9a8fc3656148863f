"""Draws docs/images/robust.svg: what broken sensors cost if nothing tells of them, on a toy model.

    uv run python docs/images/robust.py

256 episodes of 40 decisions on a ring of 8 states, shown by 16 sensors: each state has a reading of
its own, with noise of a known deviation, and the encoder is exact. In some frames 4 sensors, drawn
anew, read noise four times as large. Mean log belief in the true state against the share of such
frames: believed, checked by an arm, or flagged and predicted through; of the differences at half of
the frames, 95% intervals by Student's t over episodes. The latent is soft, so that nothing but the
frames is lost. The check's threshold is the .995 quantile of clean episodes.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float
from objectives import interval
from svg import COLOURS, Plot

from thinkslow import Agent, Thinking
from thinkslow.agent.checks import Clean, Robust
from thinkslow.distributions import Categorical
from thinkslow.heads import Distribution, Squared
from thinkslow.readouts import Soft
from thinkslow.toy import Toy, exact, ring, simulate
from thinkslow.worldmodel import Observation, State

SHARES = (0.0, 0.25, 0.5, 0.75)
EPISODES, TIME, SENSORS = 256, 40, 16
BROKEN, GARBAGE, NOISE = 4, 4.0, 1.0
USUAL = 0.455 * NOISE**2
"""The median of a squared normal error."""
LOWER = {"robust": 2, "robust-reject": 11}
"""Pixels between the end of a line and its name, so that names do not touch."""
COMPARED = (
    *(("robust", "believed"), ("robust-reject", "believed"), ("flagged", "believed")),
    ("robust", "robust-reject"),
)
TITLE = "mean log belief in the true state, nats"


class Sensors(Toy):
    """The toy model, shown by sensors in place of symbols."""

    readings: Float[Array, "states sensors"]

    def infer(self, memory: Float[Array, " states"], observation: Observation) -> Categorical:
        away = jnp.asarray(observation["sensors"]) - self.readings
        return Categorical(memory - jnp.sum(away**2, -1) / (2 * NOISE**2))

    def decode(self, state: State) -> dict[str, Distribution]:
        return {"sensors": Squared(state.latent @ self.readings)}


def main() -> None:
    toy = exact(ring())
    readings = jr.normal(jr.key(7), (toy.problem.states, SENSORS))
    model = Sensors(toy.problem, toy.reader, toy.acts, readings)
    actions = np.asarray(jr.randint(jr.key(0), (EPISODES, TIME), 0, toy.problem.actions))
    episodes = jax.vmap(lambda a, k: simulate(toy.problem, a, key=k))
    states = np.asarray(episodes(actions, jr.split(jr.key(1), EPISODES))[0])
    clean = np.asarray(readings[states] + NOISE * jr.normal(jr.key(2), (*states.shape, SENSORS)))
    _, distances = played(model, Thinking(check=Robust()), actions, states, clean)
    checks = {"robust": Robust(), "robust-reject": Robust(rounds=0)}
    arms = {
        "believed": Thinking(readout=Soft()),
        "flagged": Thinking(readout=Soft(), missing="predict"),
    }
    arms |= {name: Thinking(readout=Soft(), check=check) for name, check in checks.items()}
    draw = np.random.default_rng(3)
    lots, wrong = draw.random(states.shape), GARBAGE * draw.normal(size=clean.shape)
    broken = draw.random(clean.shape).argsort(-1) < BROKEN
    found: dict[str, list[np.ndarray]] = {name: [] for name in arms}
    for share in SHARES:
        bad = (lots < share) & (np.arange(TIME) > 0)
        shown = np.where(bad[..., None] & broken, wrong, clean)
        for name, how in arms.items():
            log, _ = played(model, how, actions, states, shown, bad, np.quantile(distances, 0.995))
            found[name].append(log)
    lines = {name: [float(each.mean()) for each in logs] for name, logs in found.items()}
    print({name: [round(value, 2) for value in values] for name, values in lines.items()})
    half = {name: logs[SHARES.index(0.5)] for name, logs in found.items()}
    for better, worse in COMPARED:
        mean, low, high = interval(half[better] - half[worse])
        print(f"{better} - {worse}: {mean:+.2f} ({low:+.2f} to {high:+.2f})")
    plot = Plot((0, 0.92), (-2.5, 0))
    ticks = np.arange(-2.5, 0.1, 0.5)
    plot.axes(SHARES, ticks, "share of frames with broken sensors", TITLE)
    for (name, values), colour in zip(lines.items(), COLOURS, strict=False):
        plot.line(list(zip(SHARES, values, strict=True)), colour)
        x, y = plot.at(SHARES[-1], values[-1])
        plot.text(x + 8, y + LOWER.get(name, 4), name, "start", colour)
    plot.save(Path(__file__).with_suffix(".svg"))


def played(
    model: Sensors,
    how: Thinking,
    actions: np.ndarray,
    states: np.ndarray,
    shown: np.ndarray,
    bad: np.ndarray | None = None,
    threshold: float = np.inf,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean log belief in the true state of each episode, and the distance of each frame, if frames
    are checked.
    """
    agent = Agent(model, how, clean=Clean.even(model, threshold, usual=USUAL))
    carry, beliefs, distances = agent.start(EPISODES), [], []
    for time in range(TIME):
        taken = jax.nn.one_hot(actions[:, time], model.problem.actions)
        carry = dataclasses.replace(carry, action=taken)
        told = {} if bad is None or how.missing is None else {"missing": bad[:, time]}
        keys = jr.split(jr.fold_in(jr.key(3), time), EPISODES)
        first = np.full(EPISODES, time == 0)
        carry, _, thought = agent.act(carry, {"sensors": shown[:, time]}, first, keys=keys, **told)
        beliefs.append(np.asarray(thought.after.soft()))
        if thought.checked is not None:
            distances.append(np.asarray(thought.checked.distance))
    true = np.take_along_axis(np.stack(beliefs), states.T[..., None], -1)
    return np.log(np.maximum(true[..., 0], 1e-9)).mean(0), np.array(distances)


if __name__ == "__main__":
    main()
