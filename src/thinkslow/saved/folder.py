"""An agent as a folder: named weights and a manifest that describes them."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from thinkslow import registry
from thinkslow.objectives.members import Members
from thinkslow.saved.manifest import described
from thinkslow.saved.provenance import provenance
from thinkslow.storage import checks, store
from thinkslow.storage.paths import expanded
from thinkslow.weights import named, shaped, with_named, with_only


@dataclasses.dataclass(frozen=True)
class Saved:
    """An agent read from disk."""

    model: Any
    """A `WorldModel` of the class that its architecture names."""
    manifest: dict[str, Any]
    members: Members | None = None
    """Plausible parameters, if an ensemble is stored with the agent."""

    @property
    def name(self) -> str:
        return self.manifest["name"]

    @property
    def environment(self) -> dict[str, Any]:
        """The environment that it was trained on: see `environment` of `save`."""
        return self.manifest["environment"]


def save(
    folder: str | Path,
    model: Any,
    *,
    name: str,
    environment: Mapping[str, Any],
    training: Mapping[str, Any],
    dtype: str = "float32",
) -> None:
    """Write an agent, so that `thinkslow.load` and every command can read it.

    Args:
        folder: where to write it.
        model: a `WorldModel` with a field `config`, a dataclass of sizes whose class is registered:
            `thinkslow.register("architecture", NAME, Sizes)`. `Sizes.from_json(dictionary)` reads
            back what `dataclasses.asdict` gave after a trip through JSON, and raises `ValueError`
            or `TypeError` for what no agent can be. `sizes.build(observations, actions, key=key)`
            makes a model; the first two map names to `thinkslow.spaces.Space`, as in an
            environment of `envs.make`, in the order of the model's `observation_spaces` and
            `action_spaces`.
        name: the name of the agent.
        environment: the environment that it plays, as arguments of `envs.make`: `id`, None if it
            is unknown; `size` of the images (64) and `repeat` of the actions (1); and only where
            they are needed `options` of its constructor, a dictionary; `wrappers`, a list of
            `module:Class`; `image`, a list of the names of observations to read as images.
        training: what is known of its training, such as `steps`, `seed` and `preset`.
        dtype: the type of the weights on disk.

    Loading an agent imports nothing that `environment` names. If its `id` is `module:Name`, or it
    has `wrappers`, then all commands, and all functions that get `agent.about.environment`, refuse
    to import these modules, because the files of an agent may come from anywhere. Name them again
    to allow it: in the command, in the plan of a study, in a dictionary that you write, or by
    `thinkslow.envs.trust`. `size`, `repeat`, `image`, `options` and an `id` of Gymnasium are used
    as stored.

    **Errors:** those of `manifest_of`, before anything is written; those of `store.write`.
    """
    manifest = manifest_of(model, name=name, environment=environment, training=training)
    arrays = {name: np.asarray(array) for name, array in named(model).items()}
    weights = {
        name: array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array
        for name, array in arrays.items()
    }
    store.write(expanded(folder), weights, manifest)


def manifest_of(
    model: Any, *, name: str, environment: Mapping[str, Any], training: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest of an agent; arguments as for `save`.

    **Errors:** `ValueError` for sizes that are not registered or that build another class, and for
    what `load` would refuse, such as a name of an observation with a line end.
    """
    profile, spaces = architecture(model.config), (model.observation_spaces, model.action_spaces)
    built = shaped(lambda key: model.config.build(*map(dict, spaces), key=key))
    if type(built) is not type(model):
        raise ValueError(
            f"{type(model.config).__name__} builds {type(built).__name__}, not "
            f"{type(model).__name__}. Give each class of models sizes of its own."
        )
    manifest = {
        "name": name,
        "architecture": profile,
        "model": dataclasses.asdict(model.config),
        "observations": {key: space.to_json() for key, space in spaces[0]},
        "actions": {key: space.to_json() for key, space in spaces[1]},
        "environment": {"size": 64, "repeat": 1, **environment},
        "training": {"steps": None, "seed": None, "preset": None, **training},
        **provenance(),
    }
    try:
        described(json.loads(json.dumps(manifest)), Path(name))
    except store.Damaged as error:
        raise ValueError(
            f"An agent must be one that can be read again: {error.__cause__ or error}"
        ) from error
    return manifest


def save_members(folder: Path, members: Members, facts: Mapping[str, Any]) -> None:
    """Store an ensemble with the agent in `folder`. It replaces an earlier ensemble.

    `facts` describe how the ensemble was fitted. Dtypes are those of the agent's weights on disk.

    **Errors:** those of `store.write_ensemble`.
    """
    types = {name: kind for name, (_, kind) in store.read_manifest(folder)["weights"].items()}
    arrays = named(members.differing)
    stored = {name: np.asarray(array).astype(types[name]) for name, array in arrays.items()}
    store.write_ensemble(folder, stored, {**facts, **provenance()})


def load(folder: str | Path, *, ensemble: bool = True) -> Saved:
    """Read an agent that `save` wrote and, by default, its ensemble. Weights become float32.

    **Errors:** `store.Missing`, `store.Damaged` or `store.Misfit`, with one line that says what is
    wrong.
    """
    members = None
    if ensemble:
        weights, members, manifest = store.read_whole(folder)
    else:
        weights, manifest = store.read(folder)
    facts = described(manifest, Path(folder))
    try:
        shape = shaped(lambda key: facts.config.build(facts.observations, facts.actions, key=key))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise store.Damaged(
            f"{folder}/manifest.json does not describe an agent: {error}."
        ) from error
    expected = {name: leaf.shape for name, leaf in named(shape).items()}
    checks.match(weights, expected, what=f"The weights of {folder} do not fit its manifest")
    model = with_named(shape, weights)
    if members is None:
        return Saved(model, manifest)
    counts = {len(array) if array.ndim else 0 for array in members.values()}
    stacked = {
        name: (count, *expected[name]) for name in members for count in counts if name in expected
    }
    what = f"The ensemble of {folder} does not fit its agent"
    checks.match(members, stacked, what=what, remedy=f"Fit it again: thinkslow ensemble {folder}")
    return Saved(model, manifest, Members(with_only(shape, members)))


def architecture(sizes: Any) -> str:
    """The name of an architecture in manifests, found by the class of its sizes.

    **Errors:** `ValueError` if the class is not registered.
    """
    for name, entry in registry.entries("architecture").items():
        if type(sizes) is entry.load():
            return name
    kind = type(sizes).__name__
    raise ValueError(
        f"The sizes of a model that is saved must be of a registered class; got {kind}. Register "
        f'it: thinkslow.register("architecture", "NAME", {kind}).'
    )
