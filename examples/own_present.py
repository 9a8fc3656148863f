"""A present term of your own: a bound on the log-probability of the frame, tighter than the ELBO.

thinkslow evaluate collect-half --import examples/own_present.py --arms sig-3 --terms tighter:8
"""

import jax
import jax.numpy as jnp

import thinkslow
from thinkslow import envs
from thinkslow.needs import DECODER
from thinkslow.worldmodel import surprise_at


class Tighter(thinkslow.PresentTerm):
    """-log 1/K sum_k p(x | z_k) p(z_k) / q(z_k), nats: arXiv 1509.00519. K = 1 is the ELBO."""

    samples: int = 8

    @property
    def needs(self):
        return (DECODER,)

    @property
    def draws(self):
        return self.samples

    def value(self, belief, present, *, key):
        def log_weight(key):
            z = present.latent(belief, key=key)
            error = surprise_at(present.model, present.moment, z, present.observation)
            return present.moment.prior.log_prob(z) - belief.log_prob(z) - error

        weights = jax.vmap(log_weight)(jax.random.split(key, self.samples))
        return jnp.log(self.samples) - jax.nn.logsumexp(weights)


thinkslow.register("term", "tighter", Tighter)

if __name__ == "__main__":
    agent = thinkslow.load("collect-half")
    how = thinkslow.Thinking({Tighter(8): 1.0}, steps=3)
    player = agent.thinking(how).player()
    with envs.make(**agent.about.environment) as env:
        player(env.reset(seed=0)[0], first=True)
    print(player.thought.refined.terms["tighter"][0])
