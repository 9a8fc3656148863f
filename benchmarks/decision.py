"""What thinking costs: milliseconds per decision, as a ratio to the base decision.

    uv run python benchmarks/decision.py --preset tiny --rollout 8 --steps 1 --batch 1 \
        --objective sig --json

**Claim.** A decision is one compiled call; the price of thinking is known before it is paid.

**Method.** A freshly initialised agent of the preset on random 64x64 images (the time does not
depend on the weights), three actions. Compile time apart; 5 warm calls, then at least 30 pairs
of one base and one thinking decision in turn, each waited for. Median, 10th and 90th
percentile; `ratio` is the ratio of the medians.
"""

import argparse
import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow.agent import Agent
from thinkslow.dreamer.checkpoint import revision
from thinkslow.dreamer.config import model_preset
from thinkslow.dreamer.model import Dreamer
from thinkslow.evaluate import machine
from thinkslow.objectives import TERMS
from thinkslow.spaces import Space
from thinkslow.thinking import Thinking

WARM = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--objective", default="sig", choices=list(TERMS))
    parser.add_argument("--rollout", type=int, default=3)
    parser.add_argument("--rollouts", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()

    model = Dreamer(
        {"image": Space((64, 64, 3), "uint8")},
        {"action": Space((), "int32", 3)},
        model_preset(given.preset),
        key=jr.key(0),
    )
    thinking = Thinking(
        terms=((given.objective, 1.0),), steps=given.steps, rollout=given.rollout,
        rollouts=given.rollouts,
    )  # fmt: skip
    agents = {"base": Agent(model), "thinking": Agent(model, thinking)}
    decide = {name: decision(agent, given.batch) for name, agent in agents.items()}
    compile_s = {name: seconds(call) for name, call in decide.items()}
    for call in decide.values():
        for _ in range(WARM):
            call()
    pairs = [
        {name: 1e3 * seconds(call) for name, call in decide.items()}
        for _ in range(max(30, given.repeats))
    ]
    times = {name: np.array([pair[name] for pair in pairs]) for name in decide}
    middle = {name: float(np.median(values)) for name, values in times.items()}
    found = {
        **{name: getattr(given, name) for name in
           ("preset", "objective", "rollout", "rollouts", "steps", "batch")},
        "ratio": middle["thinking"] / middle["base"],
        "latency_ms": middle["thinking"],
        "base_ms": middle["base"],
        "p10_p90_ms": np.percentile(times["thinking"], [10, 90]).tolist(),
        "compile_s": compile_s["thinking"],
        "repeats": len(pairs),
        "machine": machine(),
        "revision": revision(),
    }  # fmt: skip
    print(json.dumps(found) if given.json else "\n".join(f"{k}: {v}" for k, v in found.items()))


def decision(agent: Agent, batch: int) -> Callable[[], None]:
    """A call that decides once for the whole batch and waits for the answer."""
    images = np.random.default_rng(0).integers(0, 255, (batch, 64, 64, 3), dtype=np.uint8)
    observation = {"image": jnp.asarray(images)}
    carry, first = agent.start(batch), jnp.zeros(batch, bool)
    keys = jr.split(jr.key(1), batch)

    def call() -> None:
        jax.block_until_ready(agent.act(carry, observation, first, keys=keys))

    return call


def seconds(call: Callable[[], None]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
