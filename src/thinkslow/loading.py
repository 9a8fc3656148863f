"""Load an agent by name or path, from any supported project."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thinkslow.agent.abstract import About
from thinkslow.agent.agent import Agent, greedy_policy
from thinkslow.consent import stored
from thinkslow.zoo import located

if TYPE_CHECKING:
    from thinkslow.saved.folder import Saved

ActionName = Literal["sample", "mode"]


def load(
    source: str | Path,
    *,
    format: str = "auto",
    classes: int | None = None,
    vectors: tuple[str, ...] | None = None,
    allow_nonfinite: bool = False,
    action: ActionName | None = None,
) -> Agent:
    """Load an agent from disk, with its ensemble and its project's way to choose an action.

    Args:
        source: the name of a bundled agent (`collect-half`), an agent folder, or a log folder or
            checkpoint of another project.
        format: the project that trained it; `auto` recognises it from the files.
        classes: the number of classes of the latent, if the checkpoint has no configuration.
        vectors: the names of vector observations in their order, if the checkpoint does not
            store it.
        allow_nonfinite: whether to accept weights that are NaN or infinite.
        action: take a `sample` or the `mode` of the policy; by default as in the evaluation of the
            project that trained the agent.

    Nothing in any file is executed.

    **Errors:** `FileNotFoundError` if there is no such agent, with the bundled names;
    `storage.store.Damaged` for a damaged file; `ValueError` for non-finite weights.

    >>> load("collect-half").about.environment["id"]
    'thinkslow/CollectGoodObjects-v0'
    """
    return agent_of(
        opened(
            source, format=format, classes=classes, vectors=vectors, allow_nonfinite=allow_nonfinite
        ),
        action=action,
    )


def opened(source: str | Path, *, format: str = "auto", **options: Any) -> "Saved":
    """The saved agent at a path or with a bundled name, with its manifest; see `load`."""
    from thinkslow import importers

    return importers.open_agent(located(source), format=format, **options)


def agent_of(saved: "Saved", *, action: ActionName | None = None) -> Agent:
    """The agent from its saved form."""
    manifest = saved.manifest
    training = manifest["training"]
    way = action or manifest.get("conventions", {}).get("action", "sample")
    about = About(
        name=saved.name,
        environment=stored(saved.environment),
        training={key: training.get(key) for key in ("steps", "seed", "preset")},
        source=manifest.get("source", {}).get("project"),
        action=way,
        curve=training.get("curve"),
    )
    policy = greedy_policy if way == "mode" else None
    known = training.get("returns")
    returns = None if known is None else max(1.0, known["high"] - known["low"])
    return Agent(saved.model, policy=policy, members=saved.members, about=about, returns=returns)
