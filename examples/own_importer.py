"""An importer of your own: a project that pickles its weights under dotted names.

thinkslow evaluate LOGDIR --import examples/own_importer.py --env MiniGrid-Empty-8x8-v0
"""

import pickle
import tempfile
from pathlib import Path

import jax
import numpy as np

import thinkslow
from thinkslow.dreamer.config import MLPConfig, ModelConfig
from thinkslow.dreamer.model import Dreamer
from thinkslow.importers import Importer
from thinkslow.importers.importer import Foreign, Found, files, inside
from thinkslow.importers.profiles.main import acted, observed, sizes
from thinkslow.importers.renaming import Taken
from thinkslow.spaces import Space
from thinkslow.weights import named


def read(found: Found, *, classes: int | None = None) -> Foreign:
    """Take each array once, rename it, and find the sizes in the shapes."""
    taken = Taken(found.content["mylab"], found.file)
    for name in [*taken.left]:
        taken.move(name.replace(".", "/"), name, len(taken.left[name].shape))
    observations = observed(taken.out)
    model = sizes(
        taken.out,
        observations,
        classes=classes or found.content["classes"],
        unimix=0.01,
        free_nats=1.0,
        rep_scale=0.1,
    )
    return Foreign(
        model=model,
        weights=taken.out,
        observations=observations,
        actions=acted(taken.out),
        environment={"task": "mylab", "repeat": 1},
        action="sample",
        logits="raw",
    )


def mylab() -> Importer:
    """MyLab's Dreamer."""
    return Importer(
        title="MyLab's Dreamer",
        places=files("agent.pickle"),
        recognises=lambda content: "dyn.dyngru.kernel" in inside(content, "mylab"),
        read=read,
    )


thinkslow.register("importer", "mylab", mylab)

if __name__ == "__main__":
    small = MLPConfig(1, 32)
    config = ModelConfig(
        deter=32,
        hidden=16,
        stoch=4,
        classes=8,
        depth=4,
        blocks=4,
        encoder=small,
        decoder=small,
        reward=small,
        continuation=small,
        policy=small,
        value=small,
    )
    seen, done = {"image": Space((16, 16, 3), "uint8")}, {"action": Space((), "int32", 7)}
    theirs = jax.jit(lambda key: Dreamer(seen, done, config, key=key))(jax.random.key(0))
    with tempfile.TemporaryDirectory() as folder:
        weights = {name.replace("/", "."): np.asarray(x) for name, x in named(theirs).items()}
        content = pickle.dumps({"mylab": weights, "classes": 8})
        (Path(folder) / "agent.pickle").write_bytes(content)
        agent = thinkslow.load(folder)
    print(agent.observation_spaces, agent.action_spaces)
    print(
        "the same weights:",
        all(map(np.array_equal, jax.tree.leaves(theirs), jax.tree.leaves(agent.model))),
    )
