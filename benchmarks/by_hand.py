"""What the engine costs beside a refinement written by hand for one model and one objective.

    taskset -c 0 uv run python benchmarks/by_hand.py --preset tiny --horizon 8 --batch 1

**Claim.** None of its own: docs/performance.md quotes the table, with the machine.

**Method.** The hand-written decision does the least that one step down the state information gain
can do: look, one scan of imagined steps with decoding and encoding inside, one gradient, one plain
step, sample, act. It bounds no KL, knows nothing of the loss after the step, checks nothing and
records nothing. All three decisions are compiled, called twice, and take turns `--repeats` times,
each waited for: median, 10th and 90th percentile.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from decision import Setting, decision, inputs
from gpu import descending, model_of
from timing import first, timed

from thinkslow.agent.agent import Agent
from thinkslow.dreamer.model import Dreamer
from thinkslow.evaluation.protocol import machine
from thinkslow.saved.provenance import revision
from thinkslow.worldmodel import State


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--horizon", type=int, default=8)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--repeats", type=int, default=50)
    given = parser.parse_args()
    model = model_of(given.preset)
    print(
        "| batch | decision | ms | p10-p90 | of the base | compile, s |\n|---|---|---|---|---|---|"
    )
    for batch in given.batch:
        agents = (Agent(model), Agent(model, descending(given.horizon, 1)))
        calls: list[Callable] = [
            partial(decision(agent, Setting(batch=batch)), 0) for agent in agents
        ]
        carry, observation, _, keys = inputs(agents[0], batch, 0)
        by_hand = jax.jit(jax.vmap(partial(decide, model, given.horizon)))
        calls.append(partial(by_hand, carry.state, carry.action, observation["image"], keys))
        compile_s = first(calls)
        times = timed(calls, given.repeats, seconds=60.0)
        for name, ms, first_s in zip(
            ("base", "thinkslow", "by hand"), times, compile_s, strict=True
        ):
            ratio = ms[1] / times[0][1]
            print(
                f"| {batch} | {name} | {ms[1]:.2f} | {ms[0]:.2f}-{ms[2]:.2f} | {ratio:.1f} | "
                f"{first_s:.1f} |",
                flush=True,
            )
    print(f"\n{given}, {machine()}, jax {jax.__version__}, revision {revision()}")


def decide(
    model: Dreamer, horizon: int, state: State, action: Any, image: Any, key: Any
) -> tuple[State, Any]:
    """One decision of one environment."""
    still = jnp.zeros((), bool)
    future_key, latent_key, action_key = jr.split(key, 3)

    def imagined(state: State, key: Any) -> tuple[State, Any]:
        action_key, latent_key = jr.split(key)
        memory, prior = model.predict(state, model.policy(state, action_key), still)
        state = State(memory, prior.sample(key=latent_key))
        seen = {name: head.mode() for name, head in model.decode(state).items()}
        return state, model.infer(memory, seen).kl(prior)

    def gain(belief: Any) -> Any:
        first_key, *keys = jr.split(future_key, 1 + horizon)
        start = State(memory, belief.sample(key=first_key))
        return jnp.sum(jax.lax.scan(imagined, start, jnp.stack(keys))[1])

    memory, _ = model.predict(state, action, still)
    belief = model.infer(memory, {"image": image})
    belief = jax.tree.map(lambda x, slope: x - slope, belief, jax.grad(gain)(belief))
    state = State(memory, belief.sample(key=latent_key))
    return state, model.policy(state, action_key)


if __name__ == "__main__":
    main()
