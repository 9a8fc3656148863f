"""A choice of your own: several latents of the belief vote on the action.

thinkslow evaluate collect-half --import examples/own_choice.py --arms evidence --choice vote:16
"""

import jax
import jax.numpy as jnp

import thinkslow
from thinkslow import envs


class Vote(thinkslow.Choice):
    """The action that most latents prefer; of continuous actions the mean."""

    latents: int = 16

    def __call__(self, facing, *, key):
        model, spaces = facing.model, dict(facing.model.action_spaces)

        def preferred(key):
            latent = facing.belief.sample(key=key).astype(facing.state.latent.dtype)
            return model.greedy(thinkslow.State(facing.state.memory, latent), key)

        votes = jnp.mean(jax.vmap(preferred)(jax.random.split(key, self.latents)), 0)
        chosen = [
            jax.nn.one_hot(part.argmax(-1), part.shape[-1]) if spaces[name].discrete else part
            for name, part in model.parts(votes).items()
        ]
        return jnp.concatenate([part.ravel() for part in chosen]), None


thinkslow.register("choice", "vote", Vote)

if __name__ == "__main__":
    agent = thinkslow.load("collect-half")
    player = agent.thinking(thinkslow.Thinking(choice=Vote(16))).player()
    with envs.make(**agent.about.environment) as env:
        print(player(env.reset(seed=0)[0], first=True))
