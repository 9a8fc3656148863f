"""Updates per second of the learner: patches against convolutions on a CPU, or any preset.

    uv run python benchmarks/update.py --json
    uv run python benchmarks/update.py --preset size12m size50m --json

Claim: on a CPU, the `tiny` preset learns 28 times faster with patch vision than with
convolutions of about as many parameters.

Method: one compiled update of the preset's learning configuration (`tiny`: 16 sequences of 32
steps of 64x64 images, imagination from 16 starts; official sizes: 16 of 64, from all) on random
data; compile time apart, 2 warm updates, then `--repeats` (30 by default) each waited for; median,
10th and 90th percentile. `conv` has the
same sizes but four 5x5 convolutions of 16 (2, 3, 4, 4) channels each way.

| vision | parameters | update, s | p10–p90     | replayed steps/s | compile, s |
|--------|------------|-----------|-------------|------------------|------------|
| patch  | 1,971,362  | 0.246     | 0.239–0.268 | 2,085            | 11         |
| conv   | 2,006,341  | 6.87      | 6.34–7.26   | 75               | 20         |

Machine: two cores of an AMD EPYC, otherwise idle, Python 3.11.7, jax 0.10.2.
Revision ce5c762.
"""

import argparse
import dataclasses
import json
import time
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from decision import operations_of

from thinkslow.dreamer.config import (
    PRESETS,
    ModelConfig,
    TrainConfig,
    model_preset,
    train_preset,
)
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.training import learner
from thinkslow.dreamer.training.losses import Batch
from thinkslow.evaluation.protocol import machine
from thinkslow.saved.provenance import revision
from thinkslow.spaces import Space

TINY = model_preset("tiny")
VISIONS = {"patch": TINY, "conv": dataclasses.replace(TINY, vision="conv", depth=16)}
WARM = 2


def measure(config: ModelConfig, learning: TrainConfig, repeats: int) -> dict[str, float]:
    """Seconds of an update and what they make in replayed steps."""
    rows, steps = learning.batch_size, learning.batch_length
    model = Dreamer(
        {"image": Space((64, 64, 3), "uint8")},
        {"action": Space((), "int32", 3)},
        config,
        key=jr.key(0),
    )
    batch = random_batch(model, learning)
    update = jax.jit(learner.update, static_argnames="config", donate_argnums=0)
    state = learner.start(model, learning)
    traced = jax.make_jaxpr(partial(learner.update, config=learning))(state, batch, jr.key(0))
    times = []
    for index in range(1 + WARM + repeats):
        begun = time.perf_counter()
        state = jax.block_until_ready(update(state, batch, jr.key(index), config=learning)).learner
        times.append(time.perf_counter() - begun)
    p10, median, p90 = np.percentile(times[1 + WARM :], [10, 50, 90])
    return {
        "parameters": sum(x.size for x in jax.tree.leaves(model)),
        "update_s": float(median),
        "p10_s": float(p10),
        "p90_s": float(p90),
        "replayed_steps_per_s": float(rows * steps / median),
        "compile_s": times[0],
        "gflop": operations_of(traced.jaxpr) / 1e9,
    }


def random_batch(model: Dreamer, learning: TrainConfig) -> Batch:
    """Sequences of random 64x64 images; nothing happens in them."""
    rows, steps = learning.batch_size, learning.batch_length
    images = np.random.default_rng(0).integers(0, 255, (rows, steps, 64, 64, 3), dtype=np.uint8)
    no = jnp.zeros((rows, steps), bool)
    return Batch(
        observation={"image": jnp.asarray(images)},
        previous_action=jnp.zeros((rows, steps, 3)),
        reward=jnp.zeros((rows, steps)),
        is_first=no,
        is_last=no,
        is_terminal=no,
        start=jax.tree.map(lambda x: jnp.broadcast_to(x, (rows, *x.shape)), model.initial()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", nargs="+", default=[], choices=list(PRESETS))
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.preset:
        asked = {name: (model_preset(name), train_preset(name)) for name in given.preset}
    else:
        asked = {name: (config, train_preset("tiny")) for name, config in VISIONS.items()}
    found = {name: measure(*configs, given.repeats) for name, configs in asked.items()}
    about = {"machine": machine(), "revision": revision()}
    if given.json:
        print(json.dumps(found | about))
    else:
        for name, row in found.items():
            print(name, *(f"{key} {value:.3g}" for key, value in row.items()))
        print(about)


if __name__ == "__main__":
    main()
