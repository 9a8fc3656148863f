# pyright: reportMissingImports=false
"""One update of the official DreamerV3, its own code, on random data.

    git clone https://github.com/danijar/dreamerv3
    python benchmarks/official_update.py dreamerv3 --preset size1m --repeats 5

Written for benchmarks/peers.py `--official`; runs where that code's requirements are installed
(jax 0.4.33, numpy below 2, elements, ninjax, chex, einops, optax, portal, scope, granular). The
same batch (16 sequences of 64 steps of 64x64 images, three actions, 15 imagined steps) and
precision (float32) as `benchmarks/update.py --preset size1m`. Prints one JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import elements
import numpy as np
from ruamel import yaml


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="of github.com/danijar/dreamerv3")
    parser.add_argument("--preset", default="size1m")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    sys.path.insert(0, str(given.checkout))
    import jax
    from dreamerv3.agent import Agent

    written = yaml.YAML(typ="safe").load((given.checkout / "dreamerv3/configs.yaml").read_text())
    config = elements.Config(written["defaults"]).update(written[given.preset])
    cpu = {"jax.platform": "cpu", "jax.compute_dtype": "float32", "jax.prealloc": False}
    config = config.update({**cpu, "logdir": tempfile.mkdtemp()})
    observations = {
        "image": elements.Space(np.uint8, (64, 64, 3)),
        "reward": elements.Space(np.float32),
        **{name: elements.Space(bool) for name in ("is_first", "is_last", "is_terminal")},
    }
    actions = {"action": elements.Space(np.int32, (), 0, 3)}
    names = ("logdir", "seed", "jax", "batch_size", "batch_length", "replay_context")
    names = (*names, "report_length", "replica", "replicas")
    shared = {name: config[name] for name in names}
    agent = Agent(observations, actions, elements.Config(**config.agent, **shared))
    rows, steps = config.batch_size, config.batch_length
    rng = np.random.default_rng(0)
    shape = (rows, steps + config.replay_context)
    batch = {
        name: np.zeros((*shape, *space.shape), space.dtype) for name, space in agent.spaces.items()
    }
    batch["image"] = rng.integers(0, 255, batch["image"].shape, np.uint8)
    batch["action"] = rng.integers(0, 3, shape, np.int32)
    carry = agent.init_train(rows)
    stream = iter(agent.stream(iter(lambda: dict(batch), None)))
    times = []
    for _ in range(2 + given.repeats):
        data = next(stream)
        begun = time.perf_counter()
        carry, *_ = agent.train(carry, data)
        jax.block_until_ready((carry, agent.params))
        times.append(time.perf_counter() - begun)
    p10, median, p90 = np.percentile(times[2:], [10, 50, 90])
    found = {
        "jax": version("jax"),
        "parameters": sum(
            value.size
            for name, value in agent.params.items()
            if not name.startswith(("opt/", "slowval/"))
        ),
        "update_s": median,
        "p10_s": p10,
        "p90_s": p90,
        "replayed_steps_per_s": rows * steps / median,
        "first_s": times[0],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
