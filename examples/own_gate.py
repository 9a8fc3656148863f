"""A gate score of your own: think where the world model did not predict this frame.

thinkslow evaluate collect-half --import examples/own_gate.py --arms evidence --gate unforeseen
"""

import thinkslow
from thinkslow import envs
from thinkslow.needs import DECODER
from thinkslow.worldmodel import State, surprise


class Unforeseen(thinkslow.GateScore):
    """-log p(frame | most likely latent of the prior), nats."""

    @property
    def needs(self):
        return (DECODER,)

    def __call__(self, decision, *, key):
        memory, prior = decision.thought.base.memory, decision.thought.prior
        return surprise(decision.model, State(memory, prior.mode()), decision.observation)


thinkslow.register("gate", "unforeseen", Unforeseen)

if __name__ == "__main__":
    agent = thinkslow.load("collect-half")
    player = thinkslow.Gated(agent.thinking("evidence"), Unforeseen(), threshold=20.0).player()
    player(envs.make(**agent.about.environment).reset(seed=0)[0], first=True)
    print(player.thought.doubt, player.thought.thinks)
