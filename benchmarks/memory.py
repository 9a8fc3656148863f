"""Memory of an evaluation against the length of its episodes.

Claim: memory does not grow with the length of an episode: resident memory after 20,000 decisions
of one episode is within 5% of that after 1,000.

Method: a random agent of the preset `tiny` (64×64 images, decoder and open-loop scores), one
environment of noise in a process of its own, which shows a new image at each step and never ends;
one episode cut after so many decisions, arm `none`. Resident memory of the evaluating process
(/proc/self/status) at each thousandth decision; the machine may do other things. Before frames
were scored as they come, every state was kept twice and every frame once until the episode ended:
340 MB for 1,000 decisions of two environments.

| decisions | MiB |
|-----------|-----|
|     1,000 | 506.2 |
|     2,000 | 506.4 |
|     5,000 | 506.4 |
|    10,000 | 506.4 |
|    20,000 | 506.4 |

Machine: x86_64, 2 cores, cpu, Python 3.11, jax 0.10.2, shared with other work. Revision
aeceb05, before a rebase; reported in f72decc.

Reproduce: `uv run python benchmarks/memory.py` (`--decisions N`, `--json` for one JSON object).
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import gymnasium
import jax.random as jr
import numpy as np
from gymnasium import spaces

from thinkslow.agent.agent import Agent
from thinkslow.dreamer.config import model_preset
from thinkslow.dreamer.model import Dreamer
from thinkslow.envs import VectorEnv
from thinkslow.evaluation.play import play
from thinkslow.evaluation.protocol import machine
from thinkslow.evaluation.scoring import Scorer
from thinkslow.evaluation.shadow import Recorder

EVERY = 1000


class Noise(gymnasium.Env):
    """An image of noise, without end."""

    observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._see(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self._see(), 0.0, False, False, {}

    def _see(self) -> np.ndarray:
        return self.np_random.integers(0, 256, (64, 64, 3)).astype(np.uint8)


gymnasium.register("benchmark/Noise-v0", "memory:Noise", disable_env_checker=True)


def resident_mib() -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    found: dict[int, float] = {}

    def tick(decision: int, _: int) -> None:
        if decision % EVERY == 0:
            found[decision] = round(resident_mib(), 1)
            print(f"{decision:>9,} {found[decision]:>8}", file=sys.stderr)

    with VectorEnv("memory:benchmark/Noise-v0", 1) as envs:
        model = Dreamer(
            envs.observation_space,
            {"action": envs.action_space},
            model_preset("tiny"),
            key=jr.key(0),
        )
        agent, scorer = Agent(model), Scorer(model, ["image"], 1)
        recorder = Recorder(agent, 1, ["image"], before=0)
        play(
            agent,
            envs,
            [0],
            0,
            max_decisions=given.decisions,
            watchers=[scorer, recorder],
            tick=tick,
        )
        scorer.scores()
    growth = found[max(found)] / found[EVERY] - 1
    if given.json:
        print(json.dumps({"machine": machine(), "mib": found, "growth": growth}))
    else:
        print(f"{machine()}: {100 * growth:+.1f}% from {EVERY:,} to {max(found):,} decisions")


if __name__ == "__main__":
    main()
