"""One interface for all environments: named observations, actions in a known range."""

import contextlib
import copy
import io
import math
import pickle
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator

from thinkslow.envs import constructor
from thinkslow.envs.acting import actions
from thinkslow.envs.adapt import Adapted, adapted, made_anew
from thinkslow.envs.descriptions import described
from thinkslow.envs.failures import Mismatch
from thinkslow.envs.families.family import Family
from thinkslow.envs.nested import at, undeclared
from thinkslow.envs.observing import Sight, sights
from thinkslow.envs.requirements import (
    Unavailable,
    explained,
    factory,
    family_of,
    load,
    maker,
    prepare,
)
from thinkslow.envs.returned import flag_of, reward_of
from thinkslow.envs.shifts import shifts
from thinkslow.envs.snapshots import copied, put_back
from thinkslow.plural import plural
from thinkslow.spaces import Space


def make(
    id: str,
    *,
    size: int = 64,
    repeat: int = 1,
    image: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    wrappers: Sequence[str] = (),
    shift: str = "",
) -> "Environment":
    """Make an environment.

    Observations are dictionaries: `image` (size, size, channels) uint8 for an image, `vector`
    float32 for other boxes; discrete observations are int32. The keys of a dictionary are kept.
    Every observation is compared with the declared space. Discrete actions are integers from 0;
    continuous actions are float32 in [-1, 1] and are scaled to the environment's bounds.

    Args:
        id: an id of Gymnasium; `module:id`, if importing the module registers the id; or
            `module:function`, a class or function that makes the environment.
        size: side of the images, pixels.
        repeat: how often an action is repeated; the rewards are added. If an id repeats actions
            itself, this is switched off or set to the same number, unless `repeat` is 1. For Atari
            the maximum of the last two frames is shown.
        image: names of observations to read as images although they are not recognised as such.
        options: arguments of the environment's constructor.
        wrappers: Gymnasium wrappers, the innermost first, each as `module:Class`.
        shift: a disturbance that training did not have, such as `dropped:3`.

    **Errors:** `Unavailable` if the id is unknown, a requirement is missing, the environment cannot
    be made, or its spaces are not supported; `ValueError` for impossible arguments, `TypeError` for
    those of another type. Later
    `Mismatch` for an observation that does not match its space.
    """
    given = {"id": id, "size": size, "repeat": repeat, "image": image, "options": options}
    options = described({**given, "wrappers": wrappers, "shift": shift})["options"]
    for name, value in (("size", size), ("repeat", repeat)):
        if value < 1:
            raise ValueError(f"`{name}` must be 1 or more; got {value}.")
    notes: list[str] = []
    family, asked = family_of(id), dict(options or {})
    prepared = prepare(id, size=size, repeat=repeat, asked=asked)
    given, repeat = prepared.arguments, prepared.repeat
    own = (
        {}
        if family is None
        else {name: asked.pop(name, default) for name, default in family.options.items()}
    )
    # Simulators print while they begin, such as the number of samples that a renderer lacks.
    with contextlib.redirect_stdout(io.StringIO()) if family else contextlib.nullcontext():
        env = _constructed(id, given, asked, notes, also=own)
    home = maker(env, id)
    if home is not None and repeat > 1 and home.repeats not in asked:
        _once_each(env.unwrapped, home, repeat, notes)
    if family is not None:
        env = family.dress(env, size, **own)
    for wrapper in wrappers:
        env = _wrapped(env, wrapper, notes)
    return Environment(
        env,
        id,
        size=size,
        repeat=repeat,
        pools=home is not None and home.pools,
        clock=None if home is None or home.clock is None else partial(home.clock, env.unwrapped),
        image=image,
        shift=shift,
        notes=notes,
        drawn=prepared.drawn,
    )


class Environment(gymnasium.Env):
    """An environment seen through `make`; `observations` and `actions` describe it."""

    def __init__(
        self,
        env: gymnasium.Env,
        id: str,
        *,
        size: int = 64,
        repeat: int = 1,
        pools: bool = False,
        clock: Callable[[], int] | None = None,
        image: Sequence[str] = (),
        shift: str = "",
        notes: list[str] | None = None,
        drawn: str = "",
    ):
        self.drawn = drawn
        """How it renders, if a renderer was chosen: `without a display, by EGL`."""
        self.env, self.id, self.repeat = env, id, repeat
        self.pools = pools and isinstance(env.observation_space, spaces.Box)
        self._clock = clock if repeat > 1 else None
        self.notes: list[str] = [] if notes is None else notes
        """Messages about conversions, adaptations and parts that are left out, once each."""
        self._begun = False
        self.nonfinite: tuple[str, ...] = ()
        """Names of the non-finite observations, and `reward`, of the last step."""
        self.sights: list[Sight] = sights(
            id, env.observation_space, size=size, image=image, say=self._say
        )
        self.observations: dict[str, Space] = {one.name: one.space for one in self.sights}
        self._shifts = shifts(shift, self.observations, env.unwrapped) if shift else []
        for one in self._shifts:
            self.observations |= one.adds
        self._acts = actions(id, env.action_space, self._say)
        self._takes = made_anew(env.action_space)
        self.actions: dict[str, Space] = self._acts.names
        self.observation_space = spaces.Dict(
            {name: _gymnasium(space) for name, space in self.observations.items()}
        )
        acts = {name: _gymnasium(space, bound=1.0) for name, space in self.actions.items()}
        self.action_space = spaces.Dict(acts) if len(acts) > 1 else next(iter(acts.values()))

    @property
    def action(self) -> Space:
        """The action of an environment with a single action.

        **Errors:** `Unavailable` if it has several.
        """
        return only(self.id, self.actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        begun = np.random.SeedSequence().generate_state(1)[0] if seed is None else seed
        for one in self._shifts:
            one.begin(int(begun))
            one.change_world(self.env.unwrapped)
        observation, info = self.env.reset(seed=seed, options=options)
        self._check_actions()
        self.nonfinite = ()
        if not self._begun:  # the names of later episodes may be without end
            extra = [*undeclared(self.env.observation_space, observation)]
            more = f" and {len(extra) - 5} more" if len(extra) > 5 else ""
            if extra:
                self._say(f"left out {', '.join(extra[:5])}{more}: shown and not declared")
        self._begun = True
        return self._dress(observation), info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Play one action, or a dictionary of actions if the environment has several."""
        named = action if isinstance(action, Mapping) else {next(iter(self.actions)): action}
        for one in self._shifts:
            named = one.act(named)
        total, repeats, observation = 0.0, 0, None
        begun = 0 if self._clock is None else self._clock()
        while True:
            # Copies, as an environment may write into its action and reuse its observation.
            before = np.array(observation) if self.pools and repeats else None
            observation, reward, *ends, info = self.env.step(self._native(named))
            terminated, truncated = map(flag_of, ("terminated", "truncated"), ends)
            total, repeats = total + reward_of(reward), repeats + 1
            if terminated or truncated or repeats == self.repeat:
                break
        if before is not None and before.ndim > 1:
            observation = np.maximum(before, observation)
        if self._clock is not None and not (terminated or truncated):
            self._count(self._clock() - begun)
        self.nonfinite = () if math.isfinite(total) else ("reward",)
        return self._dress(observation), total, terminated, truncated, info

    def copy(self) -> bytes | None:
        """Data from which `put_back` restores this moment of the episode; None if only playing it
        again is exact.
        """
        world = copied(self.env)
        return None if world is None else pickle.dumps((world, self._shifts))

    def put_back(self, copy: bytes) -> None:
        """Restore the moment of a `copy`, from this or another environment of the same kind."""
        world, self._shifts = pickle.loads(copy)
        put_back(self.env, world)

    def close(self) -> None:
        self.env.close()

    def _check_actions(self) -> None:
        """**Errors:** `Mismatch` if the environment takes other actions than when it was made."""
        now = made_anew(self.env.action_space)
        if now != self._takes:
            raise Mismatch(
                f"its action_space is {now} after a reset and was {self._takes} when it "
                "was made; an agent needs one that stays. Declare one that holds the actions of "
                "all episodes."
            )

    def _count(self, frames: int) -> None:
        """Say once if a decision is of more frames than asked for."""
        if frames != self.repeat:
            self._say(
                f"a decision is {plural(frames, 'frame')}, not the {self.repeat} of "
                f"`repeat={self.repeat}`, because an option or a wrapper repeats actions, too"
            )
        self._clock = None

    @np.errstate(all="ignore")  # the environment may have asked NumPy to raise
    def _native(self, action: Mapping[str, Any]) -> Any:
        return self._acts.native(action)

    @np.errstate(all="ignore")
    def _dress(self, observation: Any) -> dict[str, np.ndarray]:
        out = {}
        for sight in self.sights:
            out[sight.name], finite = sight.see(at(observation, sight.path))
            if not finite:
                self.nonfinite += (sight.name,)
        for one in self._shifts:
            out = one.see(out)
        return out

    def _say(self, what: str) -> None:
        _note(self.notes, what)


def _note(notes: list[str], what: str) -> None:
    """Once: what is said at every step would fill the memory."""
    if what not in notes:
        notes.append(what)


def only(id: str, actions: Mapping[str, Space]) -> Space:
    """The single action of `actions`.

    **Errors:** `Unavailable` if there are several.
    """
    if len(actions) > 1:
        raise Unavailable(
            f"{id} takes {plural(len(actions), 'action')} at once ({', '.join(actions)}); one "
            "was expected."
        )
    return next(iter(actions.values()))


def _constructed(
    id: str,
    given: Mapping[str, Any],
    asked: Mapping[str, Any],
    notes: list[str],
    also: Collection[str],
) -> gymnasium.Env:
    """The Gymnasium environment of an id, with the present interface.

    Args:
        id: the environment.
        given: our own arguments of its constructor.
        asked: the user's.
        notes: receives messages.
        also: names of options that the family uses itself.
    """
    own = factory(id)
    name = re.sub(r"\W", "-", id)
    spec = (
        EnvSpec(f"{name}-v0", entry_point=own, order_enforce=False)
        if own
        else copy.copy(gymnasium.spec(id.rpartition(":")[2]))
    )
    creator = spec.entry_point
    made: list[Adapted] = []

    def create(**every: Any) -> gymnasium.Env:
        build: Any = load_env_creator(creator) if isinstance(creator, str) else creator
        if said := constructor.refused(id, build, asked, also):
            raise Unavailable(said)
        try:
            env = build(**every)
        except TypeError as error:
            if said := constructor.of_error(id, build, error, asked, also):
                raise Unavailable(said) from error
            raise
        made.append(adapted(env, partial(_note, notes)))
        return made[0].env

    spec.entry_point = create
    usable = {name: value for name, value in asked.items() if name not in constructor.TAKEN}
    try:
        env: Any = gymnasium.make(spec, disable_env_checker=True, **{**given, **usable})
        env = _replaced(env, made[0])
        return adapted(env, partial(_note, notes)) if spec.additional_wrappers else env
    except Unavailable:
        raise
    except Exception as error:  # a simulator may raise anything
        cause = error.__cause__ if isinstance(error.__cause__, TypeError) else error
        raise Unavailable(explained(id, cause)) from error


def _once_each(base: Any, home: Family, repeat: int, notes: list[str]) -> None:
    """Let a simulator that repeats each action itself play it once.

    If both the agent and it repeated four times, the agent would see every sixteenth frame.
    """
    own = getattr(base, home.counter, 1) if home.counter else 1
    if own == 1:
        return
    setattr(base, home.counter, 1)
    if isinstance(own, tuple | list):  # a range to draw from, without its end
        own = f"{own[0]} to {own[1] - 1}"
    notes.append(
        f"it repeats each action {own} times itself; set to {home.repeats}=1, so that a "
        f"decision is the {plural(repeat, 'frame')} of `repeat={repeat}`. To take its own, "
        "pass `repeat=1`"
    )


def _replaced(env: Any, by: Any) -> Any:
    """The same wrappers, with `by` around what it wraps, unless a user's own kind hides it."""
    if env is by.env:
        return by
    outer = env
    while isinstance(outer, gymnasium.Wrapper):
        if outer.env is by.env:
            outer.env = by
            break
        outer = outer.env
    return env


def _wrapped(env: gymnasium.Env, wrapper: str, notes: list[str]) -> gymnasium.Env:
    module, _, name = wrapper.rpartition(":")
    if not module:
        raise ValueError(f"`wrappers` must be `module:Class`; got {wrapper!r}.")
    loaded = load(module)
    try:
        found: Any = getattr(loaded, name, None)  # which may import a module of its own
        if not callable(found):
            raise Unavailable(f"`wrappers` must be `module:Class`; {module} has no class {name}.")
        around = adapted(found(env), partial(_note, notes))
    except Unavailable:
        raise
    except Exception as error:  # the user's code may raise anything
        if needs := constructor.missing(error):
            raise Unavailable(
                f"{wrapper} also needs {', '.join(needs)}, and a wrapper is given the environment "
                "alone: write a subclass or a function that passes the rest."
            ) from error
        raise Unavailable(explained(wrapper, error)) from error
    return around


def _gymnasium(space: Space, *, bound: float = np.inf) -> spaces.Space:
    """Gymnasium's own description of a space; `bound` limits numbers that are not pixels."""
    if space.classes is not None:
        return spaces.Discrete(space.classes, dtype=np.int32)
    if space.dtype == "uint8":
        return spaces.Box(0, 255, space.shape, np.uint8)
    return spaces.Box(-bound, bound, space.shape, np.float32)
