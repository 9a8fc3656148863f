"""From a name or a path to an agent that can think: one call, whoever trained it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thinkslow import zoo
from thinkslow.agent.agent import About, Agent, greedy_policy
from thinkslow.registry import nearest
from thinkslow.storage.store import Missing

if TYPE_CHECKING:
    from thinkslow.dreamer.saved import Saved

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
    """An agent from disk, with its ensemble and its source's way to take an action.

    Args:
        source: the name of a bundled agent (`collect-half`), an agent folder of ours, or what
            another project wrote: a log folder, a checkpoint.
        format: the project that trained it; `auto` recognises it from the files.
        classes: the number of classes of the latent, where the checkpoint has no configuration.
        vectors: the names of vector observations in their order, where the checkpoint does not
            store it.
        allow_nonfinite: whether to accept weights that are NaN or infinite.
        action: take a `sample` or the `mode` of the policy; by default as the project that
            trained it does when it evaluates.

    Nothing in any file is executed.

    **Errors:** `FileNotFoundError` where there is nothing, with the bundled names;
    `storage.store.Damaged` for a file that is not what was written; `ValueError` for weights
    that are not finite.

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
    """What lies at a path or under a bundled name, with its manifest; see `load`."""
    from thinkslow import importers

    return importers.open_agent(located(source), source=format, **options)


def located(source: str | Path) -> Path:
    """The path of an agent; a name without a folder of its own is a bundled agent's.

    **Errors:** `FileNotFoundError` where there is neither.
    """
    path = Path(source)
    if path.exists():
        return path
    names = zoo.names()
    if str(source) in names:
        return zoo.path(str(source))
    raise Missing(
        f"There is no file, folder or bundled agent {str(source)!r}{nearest(str(source), names)}"
    )


def agent_of(saved: "Saved", *, action: ActionName | None = None) -> Agent:
    """The agent of what was read from disk."""
    manifest = saved.manifest
    training = manifest["training"]
    way = action or manifest.get("conventions", {}).get("action", "sample")
    about = About(
        name=saved.name,
        environment=saved.environment,
        training={key: training.get(key) for key in ("steps", "seed", "preset")},
        source=manifest.get("source", {}).get("project"),
        action=way,
        curve=training.get("curve"),
    )
    policy = greedy_policy if way == "mode" else None
    known = training.get("returns")
    returns = None if known is None else max(1.0, known["high"] - known["low"])
    return Agent(saved.model, policy=policy, members=saved.members, about=about, returns=returns)
