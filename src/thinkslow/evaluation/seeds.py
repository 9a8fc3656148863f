"""Environment seeds of episodes. Different purposes never share seeds, and none shares them with
training.
"""

import numpy as np

EVALUATION, CALIBRATION = 0xE7A1, 0xCA1B
"""The purpose of seeds."""


def episode_seed(seed: int, index: int, purpose: int = EVALUATION) -> int:
    """The environment seed of an episode, far from the seeds of training."""
    return int(np.random.SeedSequence([purpose, seed, index]).generate_state(1)[0])
