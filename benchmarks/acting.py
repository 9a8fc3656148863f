"""Memory of a long run of decisions.

Claim: resident memory after 1,000,000 decisions of `Agent.act` is within 1% of that after the
first 50,000, without thinking and with it.

Method: a random agent of vectors with the smallest layers, so that what a call leaves behind is
not hidden behind what it computes; eight environments side by side, 125,000 calls, for each arm
anew. Observations are new arrays at each call, episodes begin now and then. Resident memory of the
process (/proc/self/status) at each twentieth of the calls.

| decisions | none, MiB | evidence, MiB |
|-----------|-----------|---------------|

Machine: x86_64, 2 cores, cpu, Python 3.11, jax 0.10.2, shared with other work.

Reproduce: `uv run python benchmarks/acting.py` (`--decisions N`, `--arms A,B`, `--json`).
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import jax.random as jr
import numpy as np

from thinkslow.agent.agent import Agent
from thinkslow.dreamer.config import MLPConfig, ModelConfig
from thinkslow.dreamer.model import Dreamer
from thinkslow.evaluation.protocol import machine
from thinkslow.spaces import Space

BATCH, PARTS = 8, 20
SMALL = MLPConfig(1, 16)
MODEL = ModelConfig(
    deter=16,
    hidden=16,
    classes=4,
    stoch=4,
    blocks=2,
    depth=4,
    encoder=SMALL,
    decoder=SMALL,
    reward=SMALL,
    continuation=SMALL,
    policy=SMALL,
    value=SMALL,
    reward_bins=15,
    value_bins=15,
)


def resident_mib() -> float:
    text = Path("/proc/self/status").read_text()
    return round(int(text.split("VmRSS:")[1].split()[0]) / 1024, 1)


def measured(agent: Agent, calls: int) -> dict[int, float]:
    """Resident memory by the decisions made."""
    rng, carry, found = np.random.default_rng(0), agent.start(BATCH), {}
    for call in range(calls):
        seen = {"vector": rng.standard_normal((BATCH, 4), np.float32)}
        first = rng.random(BATCH) < (0.01 if call else 1.0)
        carry, action, _ = agent.act(carry, seen, first, keys=jr.split(jr.key(call), BATCH))
        if (call + 1) % (calls // PARTS) == 0:
            jax.block_until_ready(action)
            found[(call + 1) * BATCH] = resident_mib()
            print(f"{(call + 1) * BATCH:>9,} {resident_mib():>8}", file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--arms", default="none,evidence", help="joined by commas")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    given = parser.parse_args()
    spaces = {"vector": Space((4,), "float32")}, {"action": Space((), "int32", 2)}
    base = Agent(Dreamer(*spaces, MODEL, key=jr.key(0)))
    found, growth = {}, {}
    for arm in given.arms.split(","):
        agent = base.thinking(arm)
        assert isinstance(agent, Agent)
        found[arm] = one = measured(agent, given.decisions // BATCH)
        growth[arm] = one[max(one)] / one[min(one)] - 1
        print(
            f"{arm}: {100 * growth[arm]:+.2f}% from {min(one):,} to {max(one):,} decisions",
            file=sys.stderr,
        )
    if given.json:
        print(json.dumps({"machine": machine(), "mib": found, "growth": growth}))
    return max(growth.values()) > 0.01


if __name__ == "__main__":
    sys.exit(main())
