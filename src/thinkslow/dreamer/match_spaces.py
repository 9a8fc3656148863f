"""Match an agent to an environment that has other names for the same observations and actions.

An agent of another project has its own keys for observations, knows a vector only by its width, and
sometimes knows several vectors only by their total width. An environment here has names and shapes.
If both match, the agent takes the environment's names; if not, the error lists every difference.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from thinkslow.dreamer.actor_critic import ActorCritic
from thinkslow.dreamer.config import ModelConfig
from thinkslow.dreamer.vision import width
from thinkslow.objectives.members import Members
from thinkslow.plural import plural
from thinkslow.spaces import Space
from thinkslow.storage import checks, store
from thinkslow.weights import named, shaped, with_named, with_only

JOINED = "+"
"""Separator between the names of vectors of which an agent knows only the total width."""
SETS = {9: "the 9 of IMPALA", 15: "the 15 of PopArt"}
"""Known action sets of DeepMind Lab, by size."""

HEADS = ("dec/vec/", "wm/dec/mlp/dist_")
"""Prefixes of the names of weights that contain the name of a vector."""

Spaces = Mapping[str, Space]


def match_spaces(
    model: ActorCritic,
    members: Members | None,
    observations: Spaces,
    actions: Spaces,
    *,
    name: str,
    id: str,
) -> tuple[ActorCritic, Members | None]:
    """The model with the observations and actions named and shaped as in the environment `id`.

    Args:
        model: the model with its own names.
        members: its plausible parameters, if any.
        observations: the environment's spaces, by name.
        actions: the environment's actions, by name.
        name: the agent's name, for errors.
        id: the environment's id, for errors.

    **Errors:** `store.Misfit` with every difference, field by field.
    """
    ours, acts = dict(model.observation_spaces), dict(model.action_spaces)
    if acts == dict(actions) and all(observations.get(k) == ours[k] for k in ours):
        return model, members
    names, faults = _matched(ours, observations)
    faults += _action_faults(acts, actions)
    if faults:
        raise store.Misfit(
            f"{name} does not fit {id}: {'; '.join(faults)}. Give the environment "
            'that it was trained on, or wrap this one: `wrappers=["module:Class"]`.'
        )
    renamed = {name: observations[name] for parts in names.values() for name in parts}
    weights = _renamed(model, names, renamed, _paired(acts, actions))
    decoded = model.config.decoded
    if decoded is not None:
        decoded = tuple(name for old in decoded for name in names[old])
    config = dataclasses.replace(model.config, decoded=decoded)
    shape = shaped(lambda key: config.build(renamed, actions, key=key))
    expected = {name: leaf.shape for name, leaf in named(shape).items()}
    checks.match(weights, expected, what=f"{name} does not fit {id}")
    if members is not None:
        # The arrays of an ensemble do not depend on names, so they stay as they are.
        members = Members(with_only(shape, named(members.differing)))
    return with_named(shape, weights), members


def _matched(ours: Spaces, theirs: Spaces) -> tuple[dict[str, list[str]], list[str]]:
    """The environment's name for each name of the agent, and every mismatch."""
    out: dict[str, list[str]] = {}
    faults: list[str] = []
    for kind, picture in (("image", True), ("vector", False)):
        mine = {k: space for k, space in ours.items() if space.is_image == picture}
        other = {k: space for k, space in theirs.items() if space.is_image == picture}
        for name, space in mine.items():
            parts = name.split(JOINED)
            if not set(parts) <= set(other):
                free = [k for k in other if k not in mine]
                if len(mine) != 1 or not free:
                    shown = ", ".join(other) or f"no {kind}"
                    what = kind if kind == name else f"{kind} {name}"
                    faults.append(f"it sees the {what}, the environment shows {shown}")
                    continue
                # The only one of its kind may have another name, if only one of theirs fits.
                fitting = [k for k in free if _difference(name, space, [other[k]]) is None]
                if len(fitting) > 1:
                    faults.append(f"its {name} may be any of {', '.join(fitting)}")
                    continue
                together = sum(width(other[k]) for k in free) == width(space)
                parts = sorted(free) if together else fitting or free[:1]
            fault = _difference(name, space, [other[part] for part in parts])
            faults += [fault] if fault else []
            out[name] = parts
    return out, faults


def _difference(name: str, ours: Space, theirs: list[Space]) -> str | None:
    """Why two spaces do not hold the same numbers in another shape; None if they do."""
    if ours.is_image:
        sizes = {space.shape[:2] for space in theirs}
        if sizes == {ours.shape[:2]} and sum(s.shape[2] for s in theirs) == ours.shape[2]:
            return None
        shown = " and ".join(map(_sides, theirs))
        square = ours.shape[0] == ours.shape[1] and sizes != {ours.shape[:2]}
        remedy = f" (make it with `size` {ours.shape[0]})" if square else ""
        return f"its {name} is {_sides(ours)}, the environment's {shown}{remedy}"
    kinds = {space.discrete for space in theirs}
    if kinds != {ours.discrete}:
        words = {True: "discrete", False: "continuous"}
        return f"its {name} is {words[ours.discrete]}, the environment's {words[not ours.discrete]}"
    number = sum(map(width, theirs))
    if number != width(ours):
        return f"its {name} has {plural(width(ours), 'number')}, the environment's {number}"
    return None


def _action_faults(ours: Spaces, theirs: Spaces) -> list[str]:
    """The mismatches of the actions. Several actions are matched in their order."""
    if len(ours) != len(theirs):
        mine, other = (
            f"{plural(len(acts), 'action')} at once ({', '.join(acts)})"
            if len(acts) > 1
            else "one action"
            for acts in (ours, theirs)
        )
        return [f"it takes {mine}, the environment {other}"]
    pairs = _paired(ours, theirs).items()
    return [fault for a, b in pairs for fault in _action_fault(ours[a], theirs[b])]


def _paired(ours: Spaces, theirs: Spaces) -> dict[str, str]:
    """The environment's action for each action of the agent: by name, otherwise in their order."""
    same = set(ours) == set(theirs)
    return {name: name for name in ours} if same else dict(zip(ours, theirs, strict=True))


def _action_fault(mine: Space, theirs: Space) -> list[str]:
    words = {True: "one of {} actions", False: "{} continuous numbers"}
    if mine.discrete != theirs.discrete or width(mine) != width(theirs):
        sizes = {width(mine), width(theirs)}
        hint = (
            f" (DeepMind Lab has two action sets, {' and '.join(SETS.values())})"
            if mine.discrete and theirs.discrete and sizes == set(SETS)
            else ""
        )
        return [
            f"it takes {words[mine.discrete].format(width(mine))}, the environment "
            f"{words[theirs.discrete].format(width(theirs))}{hint}"
        ]
    return []


def _sides(space: Space) -> str:
    return "x".join(map(str, space.shape))


def _renamed_head(name: str, actions: Mapping[str, str]) -> str:
    for ours, theirs in actions.items():
        if name.startswith(f"pol/head/{ours}/"):
            return name.replace(f"pol/head/{ours}/", f"pol/head/{theirs}/", 1)
    return name


def _renamed(
    model: ActorCritic, names: Mapping[str, list[str]], spaces: Spaces, actions: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """The weights under the environment's names, with heads split and renamed and inputs
    reordered.
    """
    out: dict[str, np.ndarray] = {}
    for name, leaf in named(model).items():
        array = np.asarray(leaf)
        head = next(
            (
                before + old
                for before in HEADS
                for old in names
                if name.startswith(f"{before}{old}/")
            ),
            None,
        )
        if head is None:
            out[_renamed_head(name, actions)] = array
            continue
        before = next(before for before in HEADS if head.startswith(before))
        start = 0
        for part in names[head.removeprefix(before)]:
            here = slice(start, start := start + width(spaces[part]))
            out[f"{before}{part}{name.removeprefix(head)}"] = array[..., here]
    kernel = "enc/mlp0/kernel"
    if isinstance(model.config, ModelConfig) and kernel in out:
        # Inputs are joined in the sorted order of their names, and the names may have changed.
        rows: dict[str, np.ndarray] = {}
        start = 0
        for old in sorted(k for k in names if len(spaces[names[k][0]].shape) < 3):
            for part in names[old]:
                here = np.arange(start, start := start + width(spaces[part]))
                rows[part] = here
        order = np.concatenate([rows[name] for name in sorted(rows)])
        out[kernel] = out[kernel][order]
    return out
