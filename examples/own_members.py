"""Plausible parameters of your own: the prior may be too sure or too unsure of itself.

thinkslow evaluate collect-half --import examples/own_members.py --arms pig-3 --members calibration
"""

import jax
import jax.numpy as jnp

import thinkslow
from thinkslow import envs
from thinkslow.needs import CATEGORICAL, PRIOR_LAYER
from thinkslow.objectives.members import Source, prior_layer, replaced


class Calibration(Source):
    """The same prior at temperatures from exp(-spread) to exp(spread)."""

    spread: float = 0.5
    count: int = 4

    @property
    def needs(self):
        return (PRIOR_LAYER, CATEGORICAL)

    def __call__(self, model, *, key):
        factors = jnp.exp(jnp.linspace(-self.spread, self.spread, self.count))
        stacked = jax.tree.map(lambda x: jnp.multiply.outer(factors, x), prior_layer(model))
        return replaced(model, prior_layer, stacked)


thinkslow.register("members", "calibration", Calibration)

if __name__ == "__main__":
    agent = thinkslow.load("collect-half")
    arm = thinkslow.Arm(thinkslow.arm("pig-3").thinking, members=Calibration(0.5))
    player = agent.thinking(arm).player()
    with envs.make(**agent.about.environment) as env:
        player(env.reset(seed=0)[0], first=True)
    print(player.thought.refined.terms["pig"][0, 0])
