"""Any Gymnasium environment in one dress: named observations, one action in a known range."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from thinkslow.envs.requirements import Unavailable, failure, prepare
from thinkslow.spaces import Space


def make(id: str, *, size: int = 64, repeat: int = 1) -> "Player":
    """Make an environment.

    Observations are dictionaries: `image` (size, size, channels) uint8 for an image,
    `vector` float32 for other boxes, the keys of a dictionary kept; discrete ones int32.
    Discrete actions are integers from 0, continuous ones float32 in [-1, 1], stretched to the
    environment's bounds. An action is repeated `repeat` times and the rewards added.

    **Errors:** `Unavailable` if the id is unknown, something it needs is missing, or its spaces
    are of a kind that no agent here can play; `ValueError` for impossible sizes.
    """
    for name, value in (("size", size), ("repeat", repeat)):
        if value < 1:
            raise ValueError(f"`{name}` must be 1 or more; got {value}.")
    options = prepare(id, size=size)
    try:
        env = gymnasium.make(id, disable_env_checker=True, **options)
    except Exception as error:  # whatever the simulator raises, from wherever
        if (said := failure(id, error)) is None:
            raise
        raise Unavailable(said) from error
    return Player(env, id, size, repeat)


class Player(gymnasium.Env):
    """An environment seen through `make`; `observations` and `action` describe it."""

    def __init__(self, env: gymnasium.Env, id: str, size: int, repeat: int):
        self.env, self.size, self.repeat = env, size, repeat
        given = env.observation_space
        self.keys = dict(given.spaces) if isinstance(given, spaces.Dict) else {"": given}
        self.observations: dict[str, Space] = {}
        self.names: dict[str, str] = {}
        for key, space in self.keys.items():
            described = _observation(id, key, space, size)
            name = key or ("image" if len(described.shape) == 3 else "vector")
            self.names[key], self.observations[name] = name, described
        self.action = _action(id, env.action_space)
        self.observation_space = spaces.Dict(
            {name: _gymnasium(space) for name, space in self.observations.items()}
        )
        self.action_space = _gymnasium(self.action, bound=1.0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._dress(observation), info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        native = self._native(action)
        total, repeats = 0.0, 0
        while True:
            observation, reward, terminated, truncated, info = self.env.step(native)
            total, repeats = total + float(reward), repeats + 1
            if terminated or truncated or repeats == self.repeat:
                return self._dress(observation), total, bool(terminated), bool(truncated), info

    def close(self) -> None:
        self.env.close()

    def _dress(self, observation: Any) -> dict[str, np.ndarray]:
        values = observation if isinstance(observation, dict) else {"": observation}
        out = {}
        for key, name in self.names.items():
            space, value = self.observations[name], np.asarray(values[key])
            if len(space.shape) == 3 and value.shape != space.shape:
                value = _resize(value, self.size)
            if space.discrete:
                value = value - getattr(self.keys[key], "start", 0)
            out[name] = np.asarray(value, space.dtype).reshape(space.shape)
        return out

    def _native(self, action: Any) -> Any:
        """The environment's own action for one in the agent's range."""
        space = self.env.action_space
        if isinstance(space, spaces.Discrete):
            return int(action) + int(space.start)
        assert isinstance(space, spaces.Box)
        bounded = np.isfinite(space.low) & np.isfinite(space.high)
        low, high = np.where(bounded, space.low, 0), np.where(bounded, space.high, 0)
        action = np.asarray(action, np.float32)
        stretched = low + (np.clip(action, -1, 1) + 1) / 2 * (high - low)
        return np.where(bounded, stretched, action).astype(space.dtype)


def _observation(id: str, key: str, space: spaces.Space, size: int) -> Space:
    if isinstance(space, spaces.Discrete):
        return Space((), "int32", int(space.n))
    if isinstance(space, spaces.Box):
        if len(space.shape) == 3 and space.dtype == np.uint8 and space.shape[-1] <= 4:
            return Space((size, size, space.shape[-1]), "uint8")
        if len(space.shape) < 3:
            return Space(tuple(space.shape), "float32")
    raise Unavailable(
        f"{id} shows {key or 'its observation'} as {space}, which no agent here reads. "
        "Observations must be uint8 images (height, width, at most 4 channels), vectors or "
        "discrete: wrap the environment."
    )


def _action(id: str, space: spaces.Space) -> Space:
    if isinstance(space, spaces.Discrete):
        return Space((), "int32", int(space.n))
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return Space(tuple(space.shape), "float32")
    raise Unavailable(
        f"{id} acts in {space}. Actions must be Discrete or a Box of rank 1: wrap the environment."
    )


def _gymnasium(space: Space, *, bound: float = np.inf) -> spaces.Space:
    """Gymnasium's own description of a space; `bound` limits numbers that are not pixels."""
    if space.classes is not None:
        return spaces.Discrete(space.classes, dtype=np.int32)
    if space.dtype == "uint8":
        return spaces.Box(0, 255, space.shape, np.uint8)
    return spaces.Box(-bound, bound, space.shape, np.float32)


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    """Area-averaged to a square of that side, as the official agents see it."""
    channels = [
        np.asarray(Image.fromarray(image[..., index]).resize((size, size), Image.Resampling.BOX))
        for index in range(image.shape[-1])
    ]
    return np.stack(channels, -1)
