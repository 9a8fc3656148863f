"""The settings of a training run, and `config.json`, which stores them."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from thinkslow import settings
from thinkslow.dreamer.config import ModelConfig, TrainConfig
from thinkslow.dreamer.training.logs import log
from thinkslow.plural import plural
from thinkslow.saved.provenance import provenance, revision
from thinkslow.settings import setting
from thinkslow.spaces import Space
from thinkslow.storage import headers, jsontext, saves, store
from thinkslow.storage.reading import is_file, read_json
from thinkslow.storage.typed import built

CONFIG = "config.json"
FREE = ("budgets", "save_every", "step_limit", "reset_limit")
"""Settings that do not change what is learnt, so that a run may continue with others."""
WRITTEN = ("metrics.jsonl", "agents", "saves", "replay", "tensorboard")
"""What a run writes into its folder, and other projects into theirs."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The settings of a training run."""

    environment: str
    """Gymnasium id of the environment."""
    preset: str = "tiny"
    """Name of the preset, for the records."""
    seed: int = settings.seed()
    """Seed of the weights, the environments and every sample."""
    environments: int = setting(4, least=1)
    """Number of environments in parallel, one process each."""
    size: int = setting(64, least=1, most=settings.MOST_SIZE)
    """Width and height of the images, in pixels."""
    repeat: int = setting(1, least=1, most=settings.MOST_REPEAT)
    """Number of times that each action is repeated."""
    making: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further arguments of `envs.make`: constructor options, wrappers, names of images."""
    step_limit: float = setting(60.0, above=0)
    """Time limit for a step of an environment, in seconds."""
    reset_limit: float = setting(300.0, above=0)
    """Time limit for a reset of an environment, in seconds."""
    budgets: tuple[int, ...] = ()
    """Numbers of decisions at which the agent is stored under `agents/`."""
    log_every: int = setting(1000, least=1)
    """Number of decisions between two lines of metrics."""
    save_every: float = setting(300.0, above=0)
    """Time between two saves, in seconds."""

    def __post_init__(self) -> None:
        settings.check(self)


@dataclasses.dataclass(frozen=True)
class Described:
    """The content of `config.json`."""

    run: RunConfig
    model: ModelConfig
    learning: TrainConfig
    observations: dict[str, Space]
    actions: dict[str, Space]


def describe(
    run: RunConfig,
    model: ModelConfig,
    learning: TrainConfig,
    observations: Mapping[str, Space],
    actions: Mapping[str, Space],
) -> str:
    """The text of `config.json`."""
    described = {
        "run": dataclasses.asdict(run),
        "model": dataclasses.asdict(model),
        "learning": dataclasses.asdict(learning),
        "observations": {name: space.to_json() for name, space in observations.items()},
        "actions": {name: space.to_json() for name, space in actions.items()},
        "command": shlex.join(sys.argv),
        **provenance(),
    }
    return jsontext.dumps(described, indent=1)


def made_by() -> dict[str, Any]:
    """The code and libraries that train now. The numbers of a run may depend on them."""
    found = provenance()
    return {"revision": found["revision"], **found["versions"]}


def told_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The entries of one `made_by` that differ from another.

    >>> told_apart({"revision": "a1", "jax": "0.9"}, {"revision": "a1", "jax": "0.8"})
    'jax 0.9'
    """
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return ", ".join(f"{name} {one.get(name, 'not set')}" for name in names)


def read(folder: Path) -> Described:
    """The run in a folder.

    **Errors:** `store.Missing` if it holds none; `store.Damaged`.
    """
    path = folder / CONFIG
    if not is_file(path):
        raise store.Missing(
            f"{folder} holds no run to resume: {CONFIG} is missing. Choose another folder."
        )
    described = read_json(path, "the settings of a run")
    try:
        known = described  # with facts of what wrote it, besides
        if isinstance(described, dict):
            names = [field.name for field in dataclasses.fields(Described)]
            known = {name: described[name] for name in names if name in described}
        found = built(Described, known)
    except (TypeError, ValueError) as error:
        why = str(error).rstrip(".")
        by = described.get("revision") if isinstance(described, dict) else None
        remedy = (
            "Copy it again"
            if by in (None, revision())
            else f"Restore it, or use revision {by}, which wrote it"
        )
        raise store.Damaged(
            f"{path} does not describe a run of this version: {why}. {remedy}, or begin a run in "
            "another folder. Its agents may still be read."
        ) from error
    for part in ("run", "model", "learning"):
        used = vars(getattr(found, part))
        if absent := sorted(used.keys() - described[part].keys()):
            values = ", ".join(f"{name} {used[name]}" for name in absent)
            log.warning("%s lacks settings of `%s`; the defaults are used: %s.", path, part, values)
    return found


def differences(
    run: Path, config: RunConfig, model: ModelConfig, learning: TrainConfig
) -> dict[str, str]:
    """The settings of the run in a folder that are not these, by name, as text. Those in `FREE` do
    not count.

    **Errors:** those of `read`.
    """
    there = read(run)
    then = _plain(there.run) | _plain(there.model) | _plain(there.learning)
    now = _plain(config) | _plain(model) | _plain(learning)
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    return {
        name: f"`{name}` is {then.get(name)}, not {now.get(name)}"
        for name in names
        if name not in FREE
    }


def _plain(settings: Any) -> dict[str, Any]:
    """Settings as JSON gives them back."""
    found = json.loads(jsontext.dumps(dataclasses.asdict(settings)))
    return found | found.pop("making", {})


def refuse_used(run: Path, because: Iterable[str] = ()) -> None:
    """**Errors:** `FileExistsError` if the folder holds a run, with how to continue it, or what
    a run would write over.

    Args:
        run: the folder.
        because: the settings in which its run differs.
    """
    if not is_file(run / CONFIG):
        if there := [name for name in WRITTEN if (run / name).exists()]:
            raise FileExistsError(
                f"{run} holds {there[0]}, of no run of this version. Choose another folder."
            )
        try:
            headers.refuse_other(run, "metrics.jsonl")
        except headers.Occupied as error:
            raise FileExistsError(str(error)) from None
        return
    done = ""
    try:
        save = saves.latest(run / "saves")
        if save is not None:
            done = f" of {store.read_manifest(save)['counters']['steps']:,} decisions"
    except (store.Damaged, store.Missing, KeyError):
        done = " (its save cannot be read)"
    differing = "; ".join(because)
    other = f", with other settings: {differing}" if differing else ""
    raise FileExistsError(
        f"{run} holds a run{done} already{other}. Continue it: thinkslow train --resume --run "
        f"{run} --steps N or --minutes M. Or choose another folder."
    )


def check_saved(run: Path) -> None:
    """Check that a run which has kept an agent has a save, as every agent is kept after one.

    **Errors:** `store.Missing` if its saves are gone: it would begin again, over its own agents and
    logs.
    """
    kept = [path for path in (run / "agents").glob("*") if path.name.isdigit()]
    if kept and saves.latest(run / "saves") is None:
        newest = max(kept, key=lambda path: int(path.name))
        raise store.Missing(
            f"{run} holds no save to continue from: {run / 'saves'} was emptied, or not copied. "
            f"Restore it, or choose another folder for a new run. Its newest agent is {newest}."
        )


def check_spaces(
    described: Described, observations: Mapping[str, Space], actions: Mapping[str, Space]
) -> None:
    """Check that an environment is still the one that a run was trained with.

    **Errors:** `ValueError` with the observations or actions of now and then.
    """
    faults = []
    if actions != described.actions:
        now, then = (_action(spaces) for spaces in (actions, described.actions))
        faults.append(f"the environment has {now} now, the run was trained with {then}")
    for name in sorted(observations.keys() | described.observations.keys()):
        now, then = (
            _said(spaces[name]) if name in spaces else "nothing"
            for spaces in (observations, described.observations)
        )
        if now != then:
            faults.append(
                f"the environment shows {now} as `{name}` now, the run was trained with {then}"
            )
    if faults:
        raise ValueError(
            f"{described.run.environment}: {'; '.join(faults)}. Resume with the environment as it "
            "was, or begin another run."
        )


def _action(spaces: Mapping[str, Space]) -> str:
    if len(spaces) != 1:
        said = [f"{name}: {_said(space)}" for name, space in spaces.items()]
        return ", ".join(said) or "no action"
    (space,) = spaces.values()
    if space.classes is not None and not space.shape:
        return plural(space.classes, "action")
    return f"an action of {_said(space)}"


def _said(space: Space) -> str:
    what = space.dtype if space.classes is None else f"one of {space.classes}"
    return f"{what}, {space.shape}" if space.shape else what
