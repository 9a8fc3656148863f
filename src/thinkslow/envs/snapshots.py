"""Snapshots: restore a moment of an episode as often as needed.

An environment is copied if that is exact: by its own `state()` and `restore(state)`, the emulator
clone of the Arcade Learning Environment, or the attributes of MiniGrid, with wrappers whose state
is known. Any other environment is restored by replaying its episode, and the result is checked by
its observation.

Copies are pickles, made and read by our own processes; they are for memory, not for files.
"""

import inspect
import pickle
from typing import Any, NamedTuple

import gymnasium
import numpy as np

WRAPPERS = {
    "thinkslow.Adapted": (),
    "gymnasium.TimeLimit": ("_elapsed_steps",),
    "gymnasium.OrderEnforcing": ("_has_reset",),
    "minigrid.RGBImgObsWrapper": (),
    "minigrid.RGBImgPartialObsWrapper": (),
}
"""By package and name, the attributes that change during an episode. A wrapper of the same name
from elsewhere, or a subclass, may have others.
"""
ATARI = "ale_py.AtariEnv"
FIXED = {"spec", "observation_space", "action_space", "mission_space", "window", "clock", "actions"}
"""Attributes of MiniGrid that do not change during an episode."""


class Snapshot(NamedTuple):
    """A moment of one environment's episode."""

    seed: int
    actions: tuple[Any, ...]
    """The actions of the episode so far."""
    first_seen: str
    seen: str
    """A hash of the observation."""
    observation: dict[str, np.ndarray]
    copy: bytes | None
    """The simulator's state; None: it is restored by replaying the actions."""


def copied(env: gymnasium.Env) -> dict[str, Any] | None:
    """The data that `put_back` needs to restore an environment; None if no exact way is known."""
    wrappers, base = _stack(env)
    if any(_kind(one) not in WRAPPERS for one in wrappers):
        return None
    if (state := _state(base)) is None:
        return None
    around = [{name: getattr(one, name) for name in WRAPPERS[_kind(one)]} for one in wrappers]
    return {"base": state, "wrappers": around}


def put_back(env: gymnasium.Env, copy: dict[str, Any]) -> None:
    """Restore the moment of another environment of the same kind."""
    wrappers, base = _stack(env)
    for one, attributes in zip(wrappers, copy["wrappers"], strict=True):
        for name, value in attributes.items():
            setattr(one, name, value)
    state = copy["base"]
    if _is_ours(base):
        base.restore(state)
    elif _kind(base) == ATARI:
        base.restore_state(state["emulator"])
        base.np_random.bit_generator.state = state["random"]
    else:
        vars(base).update(pickle.loads(state))


def _state(base: Any) -> Any:
    if _is_ours(base):
        return base.state()
    if _kind(base) == ATARI:
        return {
            "emulator": base.clone_state(include_rng=True),
            "random": base.np_random.bit_generator.state,
        }
    if type(base).__module__.startswith("minigrid."):
        changing = {name: value for name, value in vars(base).items() if name not in FIXED}
        try:
            return pickle.dumps(changing)
        except (pickle.PicklingError, AttributeError, TypeError):
            return None
    return None


def _is_ours(base: Any) -> bool:
    """Whether it has its own `state()` and `restore(state)`, as our tasks do."""
    try:
        inspect.signature(base.state).bind()
        inspect.signature(base.restore).bind(None)
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _kind(env: Any) -> str:
    """Its package and its class, such as `gymnasium.TimeLimit`."""
    return f"{type(env).__module__.partition('.')[0]}.{type(env).__name__}"


def _stack(env: Any) -> tuple[list[gymnasium.Wrapper], Any]:
    """The wrappers from the outermost, and the environment inside them."""
    wrappers = []
    while isinstance(env, gymnasium.Wrapper):
        wrappers.append(env)
        env = env.env
    return wrappers, env
