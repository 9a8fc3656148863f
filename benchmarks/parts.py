"""The parts of an update of the learner, each compiled alone, one step of the memory, and the draws
of all latents of an update.

    taskset -c 0 uv run python benchmarks/parts.py --preset tiny
    taskset -c 0 uv run python benchmarks/parts.py --only memory --preset size12m --states 1

**Claim.** Of an update of `tiny` the imagined steps cost most, and mostly forward.

**Method.** The preset's model on random data, its batch by default. Compiled, called twice, then
forward and forward with the gradient by all weights take turns, `--repeats` times, waited for:
milliseconds by the clock, medians [10th, 90th percentile]. The parts do not add up to the update:
alone, each writes its results out.

An earlier revision is measured by a copy of this file in it:

    git worktree add --detach ../before REVISION && cp benchmarks/parts.py ../before/benchmarks
    PYTHONPATH=../before/src taskset -c 0 uv run python ../before/benchmarks/parts.py

docs/performance.md has the tables.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from timing import timed
from update import random_batch

import thinkslow
from thinkslow.distributions import Categorical
from thinkslow.dreamer.config import PRESETS, model_preset, train_preset
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.rssm import RSSM
from thinkslow.dreamer.training import learner, losses
from thinkslow.evaluation.protocol import machine
from thinkslow.readouts import Sample
from thinkslow.saved.provenance import revision
from thinkslow.spaces import Space

PARTS: tuple[str, ...] = (
    "encoder",
    "filter",
    "world model",
    "imagination",
    "optimiser",
    "update",
    "memory",
    "draws",
    "draws by Gumbel noise",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="tiny", choices=list(PRESETS))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--states", type=int, help="of the memory; default: those of the batch")
    parser.add_argument("--repeats", type=int, default=8)
    given = parser.parse_args()
    print("| part | forward, ms | with the gradient, ms |\n|---|---|---|")
    for name in given.only:
        calls = part(name, given.preset, given.states)
        times = [
            f"{ms:.2f} [{low:.2f}, {high:.2f}]"
            for low, ms, high in timed(calls, given.repeats, seconds=60.0)
        ]
        print(f"| {name} | {' | '.join((*times, '')[:2])} |", flush=True)
    print(f"\n{given}, {machine()}, jax {jax.__version__}, {Path(thinkslow.__file__).parents[2]}")
    print(f"revision of this file: {revision()}")


def part(name: str, preset: str, states: int | None) -> list[Callable[[], Any]]:
    """One part of an update: forward; of a part with weights of its own, also with its gradient."""
    config, learning = model_preset(preset), train_preset(preset)
    spaces = {"image": Space((64, 64, 3), "uint8")}
    model = Dreamer(spaces, {"action": Space((), "int32", 3)}, config, key=jr.key(0))
    batch, key = random_batch(model, learning), jr.key(1)
    one = learner.start(model, learning)
    if name == "optimiser":
        weights: Any = model
        rule = learner.optimiser(learning)
        return [partial(jax.jit(rule.update), weights, one.optimiser, weights)]
    if name == "update":
        return [partial(jax.jit(partial(learner.update, config=learning)), one, batch, key)]
    if name == "memory":
        count = states or batch.is_first.size
        start = jax.tree.map(lambda x: jr.normal(key, (count, *x.shape)), model.initial())
        action = jr.normal(key, (count, 3))
        core = partial(_memory, memory=start.memory, latent=start.latent, action=action)
        return with_gradient(core, model.dyn)  # alone: to pass all arrays of a model takes 1 ms
    if name.startswith("draws"):
        readout = losses.INVERSE if name == "draws" else Sample()
        starts = learning.batch_size * (learning.imagination_starts or learning.batch_length)
        count = batch.is_first.size + starts * learning.imagination
        logits, keys = jr.normal(key, (count, *config.latent_shape)), jr.split(key, count)

        def draw(logits: jax.Array, key: jax.Array) -> jax.Array:
            return readout(Categorical(logits, config.unimix), key=key)

        return [partial(jax.jit(jax.vmap(draw)), logits, keys)]
    observed = jax.jit(losses.observe)(model, batch, key=key)

    def encoder(model: Dreamer) -> Any:
        return jax.vmap(jax.vmap(model.enc))(batch.observation)

    def filtering(model: Dreamer) -> Any:
        return losses.observe(model, batch, key=key)

    def world(model: Dreamer) -> Any:
        states, posterior, prior = observed
        return losses.world_model_losses(model, batch, states, posterior, prior, learning)

    def imagination(model: Dreamer) -> Any:
        states, ends = observed[0], batch.is_terminal
        return losses.imagined_losses(
            model, one.slow_value, one.returns, states, ends, learning, key=key
        )[0]

    functions = (encoder, filtering, world, imagination)
    return with_gradient(dict(zip(PARTS, functions, strict=False))[name], model)


def _memory(dyn: RSSM, memory: Any, latent: Any, action: Any) -> Any:
    return jax.vmap(dyn.core)(memory, latent, action)


def with_gradient(function: Callable[[Any], Any], weights: Any) -> list[Callable[[], Any]]:
    """The compiled calls of a function, and of its gradient by the weights."""

    def total(weights: Any) -> Any:
        out = jax.tree.leaves(function(weights))
        return sum(jnp.sum(jnp.square(x)) for x in out if jnp.issubdtype(x.dtype, jnp.floating))

    return [partial(jax.jit(each), weights) for each in (function, jax.value_and_grad(total))]


if __name__ == "__main__":
    main()
