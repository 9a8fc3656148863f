"""Port a PyTorch world model to JAX: rename its weights, write its forward pass once, check it.

The weights here are random, with the names and shapes of this module's `state_dict()`. For a
trained model use `{name: value.numpy() for name, value in model.state_dict().items()}`.

    class Model(torch.nn.Module):
        def __init__(self):
            self.core = torch.nn.GRUCell(4 + 1, 8)       # latent and action
            self.prior = torch.nn.Linear(8, 2 * 4)       # mean and log scale
            self.posterior = torch.nn.Linear(8 + 3, 2 * 4)
            self.decoder = torch.nn.Sequential(
                torch.nn.Linear(8 + 4, 16), torch.nn.SiLU(), torch.nn.Linear(16, 3))
"""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np

from thinkslow import Agent, Gaussian, Gradient, State, Thinking, WorldModel
from thinkslow.heads import Squared
from thinkslow.objectives import Evidence

SHAPES = {
    "core.weight_ih": (24, 5),
    "core.weight_hh": (24, 8),
    "core.bias_ih": (24,),
    "core.bias_hh": (24,),
    "prior.weight": (8, 8),
    "prior.bias": (8,),
    "posterior.weight": (8, 11),
    "posterior.bias": (8,),
    "decoder.0.weight": (16, 12),
    "decoder.0.bias": (16,),
    "decoder.2.weight": (3, 16),
    "decoder.2.bias": (3,),
}


def linear(w, name, x):
    """torch.nn.Linear; its weight is (out, in)."""
    return w[f"{name}.weight"] @ x + w[f"{name}.bias"]


def gru(w, name, x, h):
    """torch.nn.GRUCell; its gates are in the order reset, update, new."""
    gates_x = jnp.split(w[f"{name}.weight_ih"] @ x + w[f"{name}.bias_ih"], 3)
    gates_h = jnp.split(w[f"{name}.weight_hh"] @ h + w[f"{name}.bias_hh"], 3)
    reset = jax.nn.sigmoid(gates_x[0] + gates_h[0])
    update = jax.nn.sigmoid(gates_x[1] + gates_h[1])
    new = jnp.tanh(gates_x[2] + reset * gates_h[2])
    return (1 - update) * new + update * h


def belief(parameters):
    mean, log_scale = jnp.split(parameters, 2)
    return Gaussian(mean, jnp.clip(log_scale, -5.0, 2.0))


class Ported(WorldModel):
    """The model above, with the methods that refinement needs."""

    weights: dict

    def initial(self):
        return State(jnp.zeros(8), jnp.zeros(4))

    def predict(self, state, action, is_first):
        w = self.weights
        given = jnp.where(is_first, 0.0, jnp.concatenate([state.latent, action]))
        memory = gru(w, "core", given, jnp.where(is_first, 0.0, state.memory))
        return memory, belief(linear(w, "prior", memory))

    def infer(self, memory, observation):
        both = jnp.concatenate([memory, observation["sensors"]])
        return belief(linear(self.weights, "posterior", both))

    def decode(self, state):
        w = self.weights
        hidden = jnp.concatenate([state.memory, state.latent])
        hidden = jax.nn.silu(linear(w, "decoder.0", hidden))
        return {"sensors": Squared(linear(w, "decoder.2", hidden))}

    def policy(self, state, key):
        return jnp.tanh(state.latent[:1])


def compare(weights) -> str:
    """The largest difference between PyTorch's GRU cell and ours, if PyTorch is installed."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed here: not compared"
    import torch  # pyright: ignore[reportMissingImports]

    cell = torch.nn.GRUCell(5, 8)
    cell.load_state_dict(
        {name[5:]: torch.tensor(w) for name, w in weights.items() if name.startswith("core.")}
    )
    x, h = np.ones(5, np.float32), np.full(8, 0.5, np.float32)
    theirs = cell(torch.tensor(x)[None], torch.tensor(h)[None])[0].detach().numpy()
    return (
        f"largest difference from PyTorch: {np.abs(theirs - gru(weights, 'core', x, h)).max():.1e}"
    )


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    weights = {
        name: (0.4 * rng.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()
    }
    print(compare(weights))
    evidence = Evidence(beta=0.1, free_nats=0.0, samples=4)
    thinking = Thinking({evidence: 1.0}, steps=5, update=Gradient(0.5), max_kl=2.0)
    player = Agent(Ported(weights), thinking).player(seed=0)
    action = player({"sensors": np.array([0.3, -1.0, 0.8], np.float32)}, first=True)
    refined = player.thought.refined
    print(f"evidence {refined.loss[0, 0]:.2f} -> {refined.loss[0, -1]:.2f} nats, action {action}")
