"""A foreign checkpoint as an agent of ours."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
import numpy as np

from thinkslow.dreamer import saved as checkpoint
from thinkslow.dreamer.nets import named, with_named
from thinkslow.dreamer.saved import ARCHITECTURES, Saved, provenance
from thinkslow.importers.find import SOURCES, find
from thinkslow.importers.foreign import Foreign, Found
from thinkslow.storage import store
from thinkslow.storage.store import check_finite, is_own


def open_agent(
    path: Path, *, source: str = "auto", classes: int | None = None,
    vectors: tuple[str, ...] | None = None, allow_nonfinite: bool = False,
) -> Saved:  # fmt: skip
    """An agent at a path: ours, or that of another project; the options are those of `load`.

    **Errors:** those of `checkpoint.load` and of `load`.
    """
    if is_own(path) and source == "auto":
        saved = checkpoint.load(path)
        check_finite(named(saved.model), path, allow=allow_nonfinite)
        return saved
    if (path / "config.json").is_file() and (path / "agents").is_dir():
        found = filter(is_own, (path / "agents").iterdir())
        kept = sorted(found, key=lambda one: one.stat().st_mtime)
        newest = f"the newest is {kept[-1]}" if kept else "there is none yet"
        raise store.Missing(f"{path} is a training run; its agents are in agents/: {newest}.")
    return load(
        path, source=source, classes=classes, vectors=vectors, allow_nonfinite=allow_nonfinite
    )


def load(
    path: Path, *, source: str = "auto", classes: int | None = None,
    vectors: tuple[str, ...] | None = None, allow_nonfinite: bool = False,
) -> Saved:  # fmt: skip
    """The newest agent of another project at a path: log folder, checkpoint folder, or file.

    `source` names one of `SOURCES`; `classes` of the latent are needed where the source wrote no
    configuration, and `vectors`, their names in order, where it did not store that. Nothing in
    the files is executed. Names and shapes must be exactly those of the model.

    **Errors:** those of `find`; `store.Misfit` naming a weight that is missing, unknown or of
    another shape; `ValueError` for weights that are not finite, unless allowed.
    **Cost:** reads the agent's weights only; each is in memory once, and once more while it
    becomes an array of the model.
    """
    found = find(path, source=source)
    foreign = read(found, classes=classes, vectors=vectors)
    return saved_from(path, found, foreign, allow_nonfinite=allow_nonfinite)


def saved_from(
    path: Path, found: Found, foreign: Foreign, *, allow_nonfinite: bool = False
) -> Saved:
    """`load` from what its steps gave."""
    make: Any = ARCHITECTURES[foreign.architecture][0]
    try:
        shape = jax.eval_shape(
            lambda: make(foreign.observations, foreign.actions, foreign.model, key=jr.key(0))
        )
    except ValueError as error:
        raise store.Misfit(f"{found.file} describes no agent that could be: {error}") from error
    expected = {name: leaf.shape for name, leaf in named(shape).items()}
    store.match(foreign.weights, expected, what=f"{found.file} does not fit its own sizes")
    bad = check_finite(foreign.weights, found.file, allow=allow_nonfinite)
    manifest = _manifest(path, found, foreign)
    if bad:
        manifest["nonfinite"] = bad
    return Saved(with_named(shape, foreign.weights), manifest)


def read(
    found: Found, *, classes: int | None = None, vectors: tuple[str, ...] | None = None
) -> Foreign:
    """The agent of a checkpoint that was found, under our names.

    **Errors:** `Damaged`, `Misfit`, `FileNotFoundError` for a configuration that is needed;
    `ValueError` for `vectors` of a source that stores their order.
    """
    given: dict[str, Any] = {} if classes is None else {"classes": classes}
    if vectors is not None:
        if found.source != "dreamerv3-v1":
            raise ValueError(
                f"`vectors` orders the vectors of {SOURCES['dreamerv3-v1'].title}; "
                f"{SOURCES[found.source].title} stores their order. Leave --vectors out."
            )
        given["vectors"] = vectors
    module = importlib.import_module(f"thinkslow.importers.sources.{SOURCES[found.source].module}")
    try:
        return module.read(found, **given)
    except (ValueError, OSError, MemoryError):
        raise
    except Exception as error:
        # A file that passed for a checkpoint may hold anything where a mapping is expected.
        raise store.Damaged(
            f"{found.file} is not laid out as {SOURCES[found.source].title} does "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]})."
        ) from error


def told(saved: Saved) -> list[str]:
    """What was found of another project's agent, a line each."""
    manifest = saved.manifest
    source, training = manifest["source"], manifest["training"]
    steps = "steps not stored" if training["steps"] is None else f"{training['steps']:,} steps"
    size = sum(array.size for array in named(saved.model).values())
    lines = [
        f"{saved.name}: {source['project']}, {steps}, {size:,} parameters, profile "
        f"{manifest['architecture']}, {source['file']}",
        f"{saved.name}: sees {_spaces(manifest['observations'])}; "
        f"does {_spaces(manifest['actions'])}",
    ]
    if source["config"] is None:
        lines.append(f"{saved.name}: no configuration beside it, so that code's defaults")
    lines += [f"{saved.name}: assumed that {what}" for what in manifest["assumed"]]
    lines += [f"{saved.name}: cannot {what}: {why}" for what, why in manifest["cannot"].items()]
    for name, count in manifest.get("nonfinite", {}).items():
        lines.append(f"{saved.name}: {count} values of {name} are not finite")
    return lines


def _spaces(spaces: dict[str, Any]) -> str:
    """For people: `image 64x64x3, action one of 17`."""

    def one(space: dict[str, Any]) -> str:
        shape = "x".join(map(str, space["shape"])) or "number"
        return f"one of {space['classes']}" if space["classes"] else shape

    return ", ".join(f"{name} {one(space)}" for name, space in spaces.items())


def write(saved: Saved, folder: Path) -> None:
    """Save an agent of another project as one of ours, with its provenance.

    **Errors:** those of `store.write`.
    """
    weights = {name: np.asarray(array) for name, array in named(saved.model).items()}
    store.write(folder, weights, saved.manifest)


def _manifest(path: Path, found: Found, foreign: Foreign) -> dict[str, Any]:
    # Without an image, `size` decides nothing.
    sides = [space.shape[0] for space in foreign.observations.values() if len(space.shape) == 3]
    environment = {"id": None, "size": sides[0] if sides else 64, "repeat": 1}
    return {
        "name": path.resolve().name if path.is_dir() else path.resolve().parent.name,
        "architecture": foreign.architecture,
        "model": dataclasses.asdict(foreign.model),
        "observations": {key: space.to_json() for key, space in foreign.observations.items()},
        "actions": {key: space.to_json() for key, space in foreign.actions.items()},
        "environment": environment | {k: v for k, v in foreign.environment.items() if v},
        "training": {"steps": foreign.steps, "seed": foreign.seed, "preset": None},
        "source": {
            "format": found.source,
            "project": SOURCES[found.source].title,
            "file": str(found.file.resolve()),
            "sha256": store.sha256(found.file),
            "config": str(found.config) if found.config else None,
            "options": foreign.options,
        },
        "conventions": {"action": foreign.action, "logits": foreign.logits},
        "assumed": list(foreign.assumed),
        "cannot": foreign.cannot,
        **provenance(),
    }
