"""Convert a foreign checkpoint to our format."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from thinkslow import registry
from thinkslow.importers import misplaced
from thinkslow.importers.finding import find, has_checksum
from thinkslow.importers.foreign import Foreign, Found
from thinkslow.importers.formats.globals import Refused
from thinkslow.plural import plural
from thinkslow.saved import folder as checkpoint
from thinkslow.saved.folder import Saved
from thinkslow.saved.provenance import provenance
from thinkslow.storage import store
from thinkslow.storage.checks import LARGEST, check_finite, match
from thinkslow.storage.faults import line, shown
from thinkslow.storage.store import is_own
from thinkslow.weights import named, shaped, with_named


def open_agent(
    path: Path,
    *,
    format: str = "auto",
    classes: int | None = None,
    vectors: tuple[str, ...] | None = None,
    allow_nonfinite: bool = False,
) -> Saved:
    """The agent at a path, ours or another project's. The options are those of `load`.

    **Errors:** those of `checkpoint.load` and of `load`.
    """
    if is_own(path) and format == "auto":
        saved = checkpoint.load(path)
        check_finite(named(saved.model), path, allow=allow_nonfinite)
        if saved.members is not None:
            members = named(saved.members.differing)
            check_finite(members, path / store.ENSEMBLE, allow=allow_nonfinite)
        return saved
    ours = misplaced.is_run(path) or misplaced.is_file_of_ours(path)
    if ours and (instead := misplaced.above(path)):
        raise store.Missing(instead)
    return load(
        path, format=format, classes=classes, vectors=vectors, allow_nonfinite=allow_nonfinite
    )


def load(
    path: Path,
    *,
    format: str = "auto",
    classes: int | None = None,
    vectors: tuple[str, ...] | None = None,
    allow_nonfinite: bool = False,
) -> Saved:
    """Load the newest agent of another project at a path: log folder, checkpoint folder, or file.

    `format` is the name of an importer. `classes` of the latent is needed if the project wrote no
    configuration; `vectors`, the names of the vector observations in order, if the project did not
    store the order. Nothing in the files is executed. Names and shapes must be exactly those of the
    model.

    **Errors:** those of `find`; `store.Misfit` naming a weight that is missing, unknown or of
    another shape; `ValueError` for weights that are non-finite, unless allowed.
    **Cost:** reads only the agent's weights. Each is in memory once, and a second time while it is
    copied into the model.
    """
    found = find(path, format=format)
    foreign = read(found, classes=classes, vectors=vectors)
    return saved_from(path, found, foreign, allow_nonfinite=allow_nonfinite)


def saved_from(
    path: Path, found: Found, foreign: Foreign, *, allow_nonfinite: bool = False
) -> Saved:
    """The agent from the results of the steps of `load`."""
    try:
        shape = shaped(
            lambda key: foreign.model.build(foreign.observations, foreign.actions, key=key)
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise store.Misfit(f"{found.file} describes no agent that could be: {error}") from error
    expected = {name: leaf.shape for name, leaf in named(shape).items()}
    match(foreign.weights, expected, what=f"{found.file} does not fit its own sizes")
    bad = check_finite(foreign.weights, found.file, allow=allow_nonfinite)
    manifest = _manifest(path, found, foreign)
    if bad:
        manifest["nonfinite"] = bad
    return Saved(with_named(shape, foreign.weights), manifest)


def read(
    found: Found, *, classes: int | None = None, vectors: tuple[str, ...] | None = None
) -> Foreign:
    """The agent of a checkpoint, under our names.

    **Errors:** `Damaged`, `Misfit`; `FileNotFoundError` for a missing configuration that is needed;
    `ValueError` for `vectors` if the project stores their order.
    """
    importer = registry.make("importer", found.format)
    given: dict[str, Any] = {} if classes is None else {"classes": classes}
    if vectors is not None:
        if not importer.orders_vectors:
            raise ValueError(
                f"`vectors` orders the vectors of projects that store no order; {importer.title} "
                "stores it. Leave `vectors` out."
            )
        given["vectors"] = vectors
    try:
        return importer.read(found, **given)
    except (store.Damaged, store.Misfit, Refused, OSError, MemoryError):
        raise
    except ValueError as error:
        # Our configuration class refuses these values, so the file is wrong.
        raise store.Damaged(f"{found.file} describes no agent that could be: {error}") from error
    except Exception as error:
        # The file may hold anything where a mapping is expected.
        raise store.Damaged(
            f"{found.file} is not laid out as {importer.title} does "
            f"({type(error).__name__}: {shown(str(error), 200)})."
        ) from error


def told(saved: Saved) -> list[str]:
    """A description of another project's agent, in lines."""
    manifest = saved.manifest
    source, training = manifest["source"], manifest["training"]
    steps = "steps not stored" if training["steps"] is None else plural(training["steps"], "step")
    size = sum(array.size for array in named(saved.model).values())
    lines = [
        f"{saved.name}: {source['project']}, {steps}, {plural(size, 'parameter')}, profile "
        f"{manifest['architecture']}, {source['file']}",
        f"{saved.name}: sees {_spaces(manifest['observations'])}; "
        f"does {_spaces(manifest['actions'])}",
    ]
    if source["config"] is None:
        lines.append(f"{saved.name}: no configuration beside it, so that code's defaults")
    if not source.get("checked", True):
        lines.append(
            f"{saved.name}: its file has no checksum, so that a number which was altered is seen "
            f"only if it is non-finite or beyond {LARGEST:,.0f}"
        )
    lines += [f"{saved.name}: assumed that {what}" for what in manifest["assumed"]]
    lines += [f"{saved.name}: cannot {what}: {why}" for what, why in manifest["cannot"].items()]
    for name, count in manifest.get("nonfinite", {}).items():
        lines.append(
            f"{saved.name}: {plural(count, 'value')} of {name} are non-finite, or beyond "
            f"{LARGEST:,.0f}"
        )
    return [line(one, 4000) for one in lines]


def _name(path: Path) -> str:
    """The name of an agent: that of its folder, safe as a file name and on a terminal."""
    real = Path(os.path.realpath(path))
    name = line((real if path.is_dir() else real.parent).name, 200).replace("/", "-")
    return name if name not in ("", ".", "..") else "agent"


def _spaces(spaces: dict[str, Any]) -> str:
    """Spaces as text, such as `image 64x64x3, action one of 17`."""

    def one(space: dict[str, Any]) -> str:
        shape = "x".join(map(str, space["shape"])) or "number"
        return f"one of {space['classes']}" if space["classes"] else shape

    return ", ".join(f"{name} {one(space)}" for name, space in spaces.items())


def write(saved: Saved, folder: Path) -> None:
    """Save an agent of another project in our format, with its provenance.

    **Errors:** those of `store.write`.
    """
    weights = {name: np.asarray(array) for name, array in named(saved.model).items()}
    store.write(folder, weights, saved.manifest)


def _manifest(path: Path, found: Found, foreign: Foreign) -> dict[str, Any]:
    repeat = foreign.environment.get("repeat", 1)
    if type(repeat) is not int or not 1 <= repeat <= 1000:
        raise store.Damaged(
            f"{found.file}: an action is repeated 1 to 1000 times; its configuration says "
            f"{shown(repeat)}."
        )
    # Without an image, `size` has no effect.
    sides = [space.shape[0] for space in foreign.observations.values() if space.is_image]
    environment = {"id": None, "size": sides[0] if sides else 64, "repeat": 1}
    return {
        "name": _name(path),
        "architecture": checkpoint.architecture(foreign.model),
        "model": dataclasses.asdict(foreign.model),
        "observations": {key: space.to_json() for key, space in foreign.observations.items()},
        "actions": {key: space.to_json() for key, space in foreign.actions.items()},
        "environment": environment | {k: v for k, v in foreign.environment.items() if v},
        "training": {"steps": foreign.steps, "seed": foreign.seed, "preset": None},
        "source": {
            "format": found.format,
            "project": registry.make("importer", found.format).title,
            "file": os.path.realpath(found.file),
            "sha256": store.sha256(found.file),
            "checked": has_checksum(found.file),
            "config": str(found.config) if found.config else None,
            "options": foreign.options,
        },
        "conventions": {"action": foreign.action, "logits": foreign.logits},
        "assumed": list(foreign.assumed),
        "cannot": foreign.cannot,
        **provenance(),
    }
