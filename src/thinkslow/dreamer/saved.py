"""A DreamerV3 agent as a folder: named weights and a manifest that says what they are."""

import dataclasses
import subprocess
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
import numpy as np

from thinkslow.dreamer.actor_critic import ActorCritic
from thinkslow.dreamer.config import ModelConfig
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.nets import named, with_named, with_only
from thinkslow.dreamer.v1.config import ClassicConfig
from thinkslow.dreamer.v1.model import ClassicDreamer
from thinkslow.objectives.members import Members
from thinkslow.spaces import Space
from thinkslow.storage import store

ARCHITECTURES: dict[str, tuple[Callable[..., ActorCritic], type[ModelConfig | ClassicConfig]]] = {
    "dreamerv3-main": (Dreamer, ModelConfig),
    "dreamerv3-v1": (ClassicDreamer, ClassicConfig),
}
"""The profiles of names and meanings that a manifest declares: what each is made as."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """An agent read from disk."""

    model: ActorCritic
    manifest: dict[str, Any]
    members: Members | None = None
    """Plausible parameters, if an ensemble is stored with the agent."""

    @property
    def name(self) -> str:
        return self.manifest["name"]

    @property
    def environment(self) -> dict[str, Any]:
        """`{"id", "size", "repeat"}`: what it was trained on."""
        return self.manifest["environment"]


def save(
    folder: Path, model: ActorCritic, *, name: str, environment: Mapping[str, Any],
    training: Mapping[str, Any], dtype: str = "float32",
) -> None:  # fmt: skip
    """Write an agent. `training` says how it came about: steps, seed, preset, configuration.

    **Errors:** those of `store.write`.
    """
    weights = {name: np.asarray(array).astype(dtype) for name, array in named(model).items()}
    manifest = {
        "name": name,
        "architecture": architecture(model),
        "model": dataclasses.asdict(model.config),
        "observations": {key: space.to_json() for key, space in model.observation_spaces},
        "actions": {key: space.to_json() for key, space in model.action_spaces},
        "environment": dict(environment),
        "training": dict(training),
        **provenance(),
    }
    store.write(folder, weights, manifest)


def save_members(folder: Path, members: Members, facts: Mapping[str, Any]) -> None:
    """Store an ensemble with the agent that is in `folder`, in place of the one it has.

    `facts` say how the ensemble came about. Types are those of the agent's own weights on disk.

    **Errors:** those of `store.write_ensemble`.
    """
    types = {name: kind for name, (_, kind) in store.read_manifest(folder)["weights"].items()}
    arrays = named(members.differing)
    stored = {name: np.asarray(array).astype(types[name]) for name, array in arrays.items()}
    store.write_ensemble(folder, stored, {**facts, **provenance()})


def load(folder: str | Path, *, ensemble: bool = True) -> Saved:
    """Read an agent that `save` wrote, and its ensemble unless told not to; weights become
    float32.

    **Errors:** `store.Missing`, `store.Damaged`, `store.Misfit`: what is wrong, in one line.
    """
    members = None
    if ensemble:
        weights, members, manifest = store.read_whole(folder)
    else:
        weights, manifest = store.read(folder)
    if "counters" in manifest:
        raise store.Damaged(
            f"{folder} is the state of a training run, not an agent. "
            "Agents are in RUN/agents/STEPS."
        )
    profile = manifest.get("architecture")
    if profile not in ARCHITECTURES:
        raise store.Damaged(
            f"This version reads agents of architecture {' or '.join(ARCHITECTURES)}; {folder} is "
            f"{profile!r}. Upgrade thinkslow."
        )
    make, sizes = ARCHITECTURES[profile]
    try:
        _check_facts(manifest)
        config = sizes.from_json(manifest["model"])
        observations, actions = (
            {key: Space.from_json(data) for key, data in manifest[kind].items()}
            for kind in ("observations", "actions")
        )
        shape = jax.eval_shape(lambda: make(observations, actions, config, key=jr.key(0)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise store.Damaged(
            f"{folder}/manifest.json does not describe an agent: {error}."
        ) from error
    expected = {name: leaf.shape for name, leaf in named(shape).items()}
    store.match(weights, expected, what=f"The weights of {folder} do not fit its manifest")
    model = with_named(shape, weights)
    if members is None:
        return Saved(model, manifest)
    counts = {len(array) if array.ndim else 0 for array in members.values()}
    described = {
        name: (count, *expected[name]) for name in members for count in counts if name in expected
    }
    what = f"The ensemble of {folder} does not fit its agent"
    store.match(members, described, what=what, remedy=f"Fit it again: thinkslow ensemble {folder}")
    return Saved(model, manifest, Members(with_only(shape, members)))


def _check_facts(manifest: Mapping[str, Any]) -> None:
    """What every command takes for granted of an agent, besides its model.

    **Errors:** `ValueError` saying what is missing or wrong.
    """
    parts = {"environment": ("id", "size", "repeat"), "training": ("steps", "seed", "preset")}
    for part, keys in {"": ("name", *parts), **parts}.items():
        absent = [key for key in keys if key not in (manifest[part] if part else manifest)]
        if absent:
            raise ValueError(f"{f'its {part}' if part else 'it'} lacks {', '.join(absent)}")
    name = manifest["name"]
    if not isinstance(name, str) or name != Path(name).name:
        raise ValueError(f"its name must be one that a file can have; got {name!r}")


def architecture(model: ActorCritic) -> str:
    """The profile of a model, as a manifest names it."""
    return next(name for name, (kind, _) in ARCHITECTURES.items() if type(model) is kind)


def provenance() -> dict[str, Any]:
    """Versions and revision that made a file."""
    packages = ("thinkslow", "jax", "equinox", "numpy", "miniworld")
    return {
        "versions": {package: metadata.version(package) for package in packages},
        "revision": revision(),
    }


def revision() -> str | None:
    """The git revision of the source, `+` if it has uncommitted changes; None outside git."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        # Without locks: a commit of the user's at this instant must not fail.
        command = ["git", "--no-optional-locks", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an installed copy is nobody's source
        return git("describe", "--always", "--dirty=+", "--exclude", "*")
    except (OSError, subprocess.CalledProcessError):
        return None
