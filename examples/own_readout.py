"""A readout of your own: between a sample and the most likely latent.

thinkslow evaluate collect-half --import examples/own_readout.py --arms evidence --readout sharp:0.5
"""

from typing import Any

import thinkslow
from thinkslow import envs
from thinkslow.needs import CATEGORICAL


class Sharp(thinkslow.Readout):
    """A sample of q^(1/T), normalised: T = 1 is `sample`, and T near 0 is `mode`."""

    temperature: float = 0.5

    @property
    def needs(self):
        return (CATEGORICAL,)

    def of(self, belief: Any, noise):
        return thinkslow.Categorical(belief.log_probs() / self.temperature).sample_of(noise)


thinkslow.register("readout", "sharp", Sharp)

if __name__ == "__main__":
    agent = thinkslow.load("collect-half")
    player = agent.thinking(thinkslow.Thinking(readout=Sharp(0.5))).player()
    with envs.make(**agent.about.environment) as env:
        player(env.reset(seed=0)[0], first=True)
    print(player.thought.state.latent.argmax(-1))
