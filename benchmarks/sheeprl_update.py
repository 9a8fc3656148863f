# pyright: reportMissingImports=false
"""One update of sheeprl's DreamerV3 at about the size of `size1m`: its own code, random data.

    python benchmarks/sheeprl_update.py --repeats 5        # where sheeprl 0.8 is installed

Written for benchmarks/peers.py. The same batch (16 sequences of 64 steps of 64x64 images, three
actions, 15 imagined steps) and precision (float32) as `benchmarks/update.py --preset size1m`, and
the nearest sizes that its configuration has. Prints one JSON object, with the operations of
products and convolutions that PyTorch counts in one update.
"""

import argparse
import json
import time

import gymnasium as gym
import hydra
import numpy as np
import torch
from lightning.fabric import Fabric
from omegaconf import OmegaConf
from sheeprl.algos.dreamer_v3.agent import build_agent
from sheeprl.algos.dreamer_v3.dreamer_v3 import train
from sheeprl.algos.dreamer_v3.utils import Moments
from sheeprl.utils.utils import dotdict
from torch.utils.flop_counter import FlopCounterMode

SIZES = [
    "exp=dreamer_v3",
    "algo=dreamer_v3_XS",
    "env=dummy",
    "algo.cnn_keys.encoder=[rgb]",
    "algo.cnn_keys.decoder=[rgb]",
    "algo.mlp_keys.encoder=[]",
    "algo.mlp_keys.decoder=[]",
    "algo.dense_units=64",
    "algo.world_model.encoder.cnn_channels_multiplier=4",
    "algo.world_model.recurrent_model.recurrent_state_size=512",
    "algo.world_model.recurrent_model.dense_units=64",
    "algo.world_model.transition_model.hidden_size=64",
    "algo.world_model.representation_model.hidden_size=64",
    "algo.world_model.discrete_size=4",
    "algo.per_rank_batch_size=16",
    "algo.per_rank_sequence_length=64",
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    with hydra.initialize_config_module("sheeprl.configs", version_base="1.3"):
        cfg = dotdict(OmegaConf.to_container(hydra.compose("config", SIZES), resolve=True))
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    fabric.launch()
    spaces = gym.spaces.Dict({"rgb": gym.spaces.Box(0, 255, (3, 64, 64), np.uint8)})
    world, actor, critic, target, _ = build_agent(fabric, (3,), False, cfg, spaces)
    parts = {"world_model": world, "actor": actor, "critic": critic}
    optimisers = fabric.setup_optimizers(
        *(
            hydra.utils.instantiate(
                cfg.algo[name].optimizer, params=part.parameters(), _convert_="all"
            )
            for name, part in parts.items()
        )
    )
    returns = cfg.algo.actor.moments
    moments = Moments(returns.decay, returns.max, returns.percentile.low, returns.percentile.high)
    steps, rows = 64, 16
    zero = torch.zeros(steps, rows, 1)
    data = {
        "rgb": torch.randint(0, 255, (steps, rows, 3, 64, 64)).float(),
        "actions": torch.zeros(steps, rows, 3),
        "rewards": zero,
        "terminated": zero,
        "truncated": zero,
        "is_first": zero,
    }
    models = (world, actor, critic, target, *optimisers)

    def update() -> None:
        batch = {name: value.clone() for name, value in data.items()}
        train(fabric, *models, batch, None, cfg, False, (3,), moments)

    times = []
    for _ in range(2 + repeats):
        begun = time.perf_counter()
        update()
        times.append(time.perf_counter() - begun)
    with FlopCounterMode(display=False) as counted:
        update()
    p10, median, p90 = np.percentile(times[2:], [10, 50, 90])
    weights = [weight for part in parts.values() for weight in part.parameters()]
    found = {
        "parameters": sum(weight.numel() for weight in weights),
        "update_s": median,
        "p10_s": p10,
        "p90_s": p90,
        "replayed_steps_per_s": steps * rows / median,
        "gflop": counted.get_total_flops() / 1e9,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
