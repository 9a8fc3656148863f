"""Scores of players without learning on the project's task: random and scripted.

Claim: the task separates skill from chance. Random play scores 0.72 (200 episodes, standard
deviation 1.5), a scripted player that sees the whole world 22.8 (40 episodes, standard deviation
3.7). In episodes of 60 decisions, as in the demo: 0.16 (standard deviation 0.98) and 5.6 (1.3).

Method: environment seeds 0, 1, …; 250 decisions an episode, or `--decisions`; uniformly random
actions of NumPy's generator with seed 0; the scripted player is
`thinkslow.envs.tasks.scripted.towards_good`.

Reproduce: `uv run python benchmarks/players.py` (`--json` for one JSON object); for the episodes of
the demo: `--decisions 60`.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np

from thinkslow.envs import make
from thinkslow.envs.make import Environment
from thinkslow.envs.tasks.scripted import towards_good

TASK = "thinkslow/CollectGoodObjects-v0"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--decisions", type=int, default=250, help="length of an episode")
    given = parser.parse_args()
    env = make(TASK, options={"decisions": given.decisions})
    rng = np.random.default_rng(0)
    found = {
        "random": scores(env, lambda: int(rng.integers(3)), 200),
        "scripted": scores(env, lambda: towards_good(env), 40),
    }
    summary = {
        name: {
            "mean": float(np.mean(all_)),
            "deviation": float(np.std(all_)),
            "episodes": len(all_),
        }
        for name, all_ in found.items()
    }
    print(json.dumps(summary) if given.json else "\n".join(f"{k}: {v}" for k, v in summary.items()))


def scores(env: Environment, act: Callable[[], int], episodes: int) -> list[float]:
    out = []
    for seed in range(episodes):
        env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(act())
            total, over = total + float(reward), terminated or truncated
        out.append(total)
    return out


if __name__ == "__main__":
    main()
