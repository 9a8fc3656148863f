"""A term of your own: refinement raises the imagined reward.

thinkslow evaluate collect-half --import examples/own_term.py --arms sig-3 --terms reward
"""

import thinkslow
from thinkslow import envs
from thinkslow.heads import expected
from thinkslow.needs import REWARD


class Reward(thinkslow.ImaginedTerm):
    """Minus the imagined reward."""

    @property
    def needs(self):
        return (REWARD,)

    def at_step(self, model, step, *, key):
        return -expected(model.reward(step.state))


thinkslow.register("term", "reward", Reward)

if __name__ == "__main__":
    agent = thinkslow.load("collect-half")
    player = agent.thinking(thinkslow.Thinking({Reward(): 1.0}, steps=3, horizon=8)).player()
    with envs.make(**agent.about.environment) as env:
        player(env.reset(seed=0)[0], first=True)
    print(player.thought.refined.terms["reward"][0])
