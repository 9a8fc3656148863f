"""An update of your own: steps by the sign of the gradient.

thinkslow evaluate collect-half --import examples/own_update.py --arms sig-3 --update sign:0.05
"""

import jax

import thinkslow
from thinkslow import envs, objectives


class Sign(thinkslow.Update):
    step_size: float = 0.1

    def init(self, belief):
        return None

    def propose(self, belief, gradient, state, *, key):
        return jax.tree.map(lambda g: -self.step_size * jax.numpy.sign(g), gradient), state


thinkslow.register("update", "sign", Sign)

if __name__ == "__main__":
    agent = thinkslow.load("collect-half")
    how = thinkslow.Thinking({objectives.SIG(): 1.0}, steps=3, update=Sign(0.05))
    player = agent.thinking(how).player()
    env = envs.make(**agent.about.environment)
    player(env.reset(seed=0)[0], first=True)
    print(player.thought.refined.loss[0])
