"""Environment seeds of episodes: one purpose never meets those of another, nor training's."""

import numpy as np

EVALUATION, CALIBRATION = 0xE7A1, 0xCA1B
"""What seeds are for."""


def episode_seed(seed: int, index: int, purpose: int = EVALUATION) -> int:
    """The environment seed of an episode: far from those that training derives."""
    return int(np.random.SeedSequence([purpose, seed, index]).generate_state(1)[0])
