"""What a check does with lost frames, and with the frames after them.

Question: does a check reject the frames that are lost, and use those that are true, and does that
change along a gap?
Method: an arm with a check plays `--episodes` episodes under a shift whose lost frames show one
colour, calibrated as an evaluation calibrates it. Frames of one colour count as lost. Rows: the
place of a frame in a run of lost frames ("lost 1" is the first), or in a run of true ones after it.
Columns: the number of such frames, and the share of each verdict
(`thinkslow.agent.checks.Verdict`).

Reproduce: `python scripts/verdicts.py collect-good`. Needs OpenGL for the bundled agents.
"""

import argparse

import jax.numpy as jnp
import numpy as np

import thinkslow
from thinkslow.agent.checks import Verdict
from thinkslow.envs import VectorEnv, arguments
from thinkslow.evaluation.play import decision_keys, taken_by
from thinkslow.evaluation.seeds import episode_seed

LONGEST = 6
"""Places from this one on are one row."""


def verdicts(source: str, arm: str, shift: str, episodes: int, seed: int) -> np.ndarray:
    """Place and verdict of every frame, `[frames, 2]`; places of true frames are negative."""
    base = thinkslow.load(source)
    shifted = arguments(base.about.environment)
    shifted["shift"] = shift
    agent = thinkslow.calibrated(base.thinking(arm), shifted, seed=0)  # without the shift
    seeds = [episode_seed(seed, index) for index in range(episodes)]
    place, playing, found = np.zeros(episodes, int), np.ones(episodes, bool), []
    with VectorEnv(**shifted, count=episodes) as envs:
        step, carry, number = envs.reset(seeds), agent.start(episodes), 0
        while playing.any():
            keys = decision_keys(seed, jnp.array(seeds, jnp.uint32), number)
            carry, action, thought = agent.act(carry, step.observation, step.is_first, keys=keys)
            lost = np.asarray(thought.blank)
            place = np.where(lost, np.maximum(place, 0) + 1, np.minimum(place, 0) - 1)
            found.append(np.stack([place, thought.checked.verdict], 1)[playing])
            step = envs.step(taken_by(agent.model.split, action), playing=playing)
            playing, number = playing & ~step.is_last, number + 1
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("agent", help="bundled name or folder")
    parser.add_argument("--arm", default="robust-16", help="an arm with a check")
    parser.add_argument("--shift", default="dropped-bursts-silent:3", help="NAME:SEVERITY")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7411)
    given = parser.parse_args()
    places, kinds = verdicts(given.agent, given.arm, given.shift, given.episodes, given.seed).T
    print(f"{given.agent}, {given.arm}, {given.shift}")
    print("        frames  " + "  ".join(f"{kind.name.lower():>9}" for kind in Verdict))
    for word, sign in (("lost", 1), ("true", -1)):
        for place in range(1, LONGEST + 1):
            here = places * sign >= place if place == LONGEST else places * sign == place
            shares = "  ".join(f"{np.mean(kinds[here] == kind):9.1%}" for kind in Verdict)
            print(f"{word} {place}{'+' if place == LONGEST else ' '} {here.sum():6d}  {shares}")


if __name__ == "__main__":
    main()
