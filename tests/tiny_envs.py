"""Environments of a few lines that show what the real ones seldom do.

Reached as `tiny_envs:tiny/NAME-v0`, also from the processes of a `VectorEnv`.
"""

import argparse
import ctypes
import os
import signal
import sys
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Echo(gymnasium.Env):
    """Shows the action that came; ends in time at `LENGTH` steps, itself after three 1s."""

    LENGTH = 5
    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float64)
    action_space = spaces.Box(np.array([0.0, -np.inf]), np.array([10.0, np.inf]), dtype=np.float64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(2), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return np.array(action), float(self.time), False, self.time >= self.LENGTH, {}


class Gears(Echo):
    """A dictionary of every kind, and actions that start at 5."""

    observation_space = spaces.Dict(
        camera=spaces.Box(0, 255, (20, 30, 3), np.uint8),
        gear=spaces.Discrete(4, start=1),
        speed=spaces.Box(-1, 1, (), np.float32),
    )
    action_space = spaces.Discrete(3, start=5)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**options)
        return self._see(1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _, *rest = super().step(action)
        return self._see(action - 4), *rest  # pyright: ignore[reportReturnType]

    @staticmethod
    def _see(gear: int) -> dict[str, Any]:
        camera = np.zeros((20, 30, 3), np.uint8)
        camera[:, 15:] = 200
        return {"camera": camera, "gear": gear, "speed": np.float32(0.5)}


class Fragile(Echo):
    """Noise that follows from seed and actions; action 1 kills the process, action 2 raises."""

    LENGTH = 9
    observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action_space = spaces.Discrete(4)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**options)
        return self.np_random.integers(0, 255, (16, 16, 3), np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if action == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == 2:
            raise ArithmeticError("a bug of the environment")
        _, _, _, over, _ = super().step(action)
        image = self.np_random.integers(0, 255, (16, 16, 3), np.uint8)
        return image + np.uint8(action), float(self.np_random.normal()), False, over, {}


class Unborn(Echo):
    """Cannot be made."""

    def __init__(self) -> None:
        raise ArithmeticError("no memory for the map")


class Pairs(Echo):
    """Acts in two choices at once."""

    action_space = spaces.MultiDiscrete([2, 3])


class ChannelsFirst(Echo):
    """Shows its image the other way round."""

    observation_space = spaces.Box(0, 255, (3, 64, 64), np.uint8)


class Foreign(Echo):
    """Sees and does what the golden agents of case a do; noise that follows from the seed."""

    LENGTH = 6
    observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = spaces.Discrete(17)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**options)
        return self._noise(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _, _, *rest = super().step(action)
        return self._noise(), float(np.mean(action)), *rest  # pyright: ignore[reportReturnType]

    def _noise(self) -> Any:
        shapes = {name: space.shape for name, space in self._parts().items()}
        noise = {name: self.np_random.normal(size=shape) for name, shape in shapes.items()}
        noise["image"] = self.np_random.integers(0, 255, shapes["image"], np.uint8)
        return noise if isinstance(self.observation_space, spaces.Dict) else noise["image"]

    def _parts(self) -> dict[str, Any]:
        whole: Any = self.observation_space
        return dict(whole.spaces) if isinstance(whole, spaces.Dict) else {"image": whole}


class ForeignVectors(Foreign):
    """The same of case b: an image, vectors under their own names, continuous actions."""

    observation_space = spaces.Dict(
        image=spaces.Box(0, 255, (64, 64, 3), np.uint8),
        orientations=spaces.Box(-np.inf, np.inf, (7, 2), np.float32),
        height=spaces.Box(-np.inf, np.inf, (), np.float64),
        velocity=spaces.Box(-np.inf, np.inf, (9,), np.float32),
    )
    action_space = spaces.Box(-2.0, 2.0, (6,), np.float32)


for _class in (Echo, Gears, Fragile, Unborn, Pairs, ChannelsFirst, Foreign, ForeignVectors):
    gymnasium.register(f"tiny/{_class.__name__}-v0", f"tiny_envs:{_class.__name__}")


class Hangs(Echo):
    """Does not come back from its third step, nor can Python do anything about it."""

    LENGTH = 30

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.time == 2:
            signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGCHLD})
            ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock
        return super().step(action)


class Detaches(Echo):
    """Closes every file, as a process that becomes a daemon does, and goes on."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        os.closerange(3, 64)
        time.sleep(30)
        return super().step(action)


class HangsAtBirth(Echo):
    """Is never made."""

    def __init__(self) -> None:
        time.sleep(1000)


class HangsAtReset(Echo):
    """Needs half a minute for the second reset of its process."""

    resets = 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.resets += 1
        if self.resets == 2:
            time.sleep(30)
        return super().reset(**options)


class Talks(Echo):
    """Writes a megabyte to standard error in every step, and fails in the fourth."""

    LENGTH = 30

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        sys.stderr.write("a line of no interest\n" * 50_000)
        print("to standard output, too")
        if self.time == 3:
            sys.stderr.write("the last word\n")
            sys.stderr.flush()
            os._exit(7)
        return super().step(action)


class Forks(Echo):
    """Forks, without caring which of the two goes on; later dies and leaves a process behind."""

    LENGTH = 30

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.time == 0:
            os.fork()
        for _ in range(20 if self.time == 2 else 0):  # helpers end as any process does, and at once
            helper = os.fork()
            if not helper:
                time.sleep(30)
            os.kill(helper, signal.SIGTERM)
            os.waitpid(helper, 0)
        if self.time == 4:
            if not os.fork():
                time.sleep(30)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Waits(Echo):
    """Waits in each step for a file."""

    def __init__(self, file: str):
        self.file = file

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        while not os.path.exists(self.file):
            time.sleep(0.01)
        return super().step(action)


class Leaves(Echo):
    """Ends Python in a step, as some scripts do."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        raise SystemExit("licence expired")


class Parses(Echo):
    """Reads the command line when it is made, as a script without a `main` does."""

    def __init__(self):
        parser = argparse.ArgumentParser()
        parser.add_argument("--rate", required=True)
        parser.parse_args([])


class Unfinite(Echo):
    """The second observation holds NaN, the third reward is infinite, the fourth too small for
    float32, the fifth too large."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _, reward, *rest = super().step(action)
        seen = np.array([1.0, np.nan if self.time == 2 else 2.0])
        reward = {3: np.inf, 4: -1e-310, 5: 1e39}.get(self.time, reward)
        return seen, reward, *rest  # pyright: ignore[reportReturnType]


class Forgets(Echo):
    """Shows noise; what it gives as its state lacks its random numbers."""

    LENGTH = 30

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _, *rest = super().step(action)
        return self.np_random.normal(size=2), *rest  # pyright: ignore[reportReturnType]

    def state(self) -> int:
        return self.time

    def restore(self, state: int) -> None:
        self.time = state


class Reads(Forgets):
    """Its methods of these names are for something else."""

    def restore(self, state: Any) -> None:
        raise FileNotFoundError(state)


class Breaks(Echo):
    """Its state is exact, but its fourth step fails."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.time == 3:
            raise RuntimeError("a joint broke")
        return super().step(action)

    def state(self) -> int:
        return self.time

    def restore(self, state: int) -> None:
        self.time = state


class Recalls(Echo):
    """Its state is exact."""

    LENGTH = 40

    def state(self) -> int:
        return self.time

    def restore(self, state: int) -> None:
        self.time = state


class Asks(Recalls):
    """Its method of this name is for something else."""

    def state(self, key: str) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return key


class TimeLimit(gymnasium.Wrapper):
    """A user's own of this name: each episode has another limit."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._elapsed_steps, self.limit = 0, 20 + (seed or 0)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        *rest, truncated, info = self.env.step(action)
        self._elapsed_steps += 1
        return *rest, truncated or self._elapsed_steps >= self.limit, info


class Whimsical(Echo):
    """Follows from no seed."""

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**options)
        return np.random.default_rng().normal(size=2), {}


class Old(Echo):
    """The interface of gym before 0.26."""

    def seed(self, seed: int) -> None:
        self.first = float(seed % 50)

    def reset(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.time = 0
        return np.full(2, self.first)

    def step(self, action: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        observation, reward, _, over, info = super().step(action)
        return observation, reward, over, info | {"TimeLimit.truncated": over}


class Levels(Echo):
    """Needs to be told which."""

    def __init__(self, level: int):
        self.level = level

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**options)
        return np.full(2, float(self.level)), {}


class Deeper(Levels):
    """Passes on what it does not know."""

    def __init__(self, depth: Any = 1, **options: Any):
        super().__init__(**options)
        self.level += int(depth)


def level_of(level: int, kind: str = "Levels") -> Any:
    """Not a class."""
    return Levels(level) if kind == "Levels" else {}


class Teams:
    """Of several agents, as in PettingZoo."""

    def observation_space(self, agent: str) -> Any:
        return Echo.observation_space

    def action_space(self, agent: str) -> Any:
        return Echo.action_space

    reset = step = observation_space


def spaceless() -> Any:
    return gymnasium.Env()


def vectorised() -> Any:
    return gymnasium.vector.SyncVectorEnv([Echo, Echo])


class Lies(Echo):
    """Declares two numbers and shows three."""

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**options)
        return np.zeros(3), {}


class Scaled(gymnasium.Wrapper):
    """Also needs a factor."""

    def __init__(self, env: Any, factor: float):
        super().__init__(env)
        self.factor = factor


class Doubled(gymnasium.ObservationWrapper):
    """A wrapper of a user's."""

    def observation(self, observation: Any) -> Any:
        return 2 * observation


class Former(gymnasium.Wrapper):
    """A wrapper as before gym 0.26."""

    def reset(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.env.reset()[0]

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated or truncated, info


def several(env: Any) -> Any:
    return gymnasium.vector.SyncVectorEnv([lambda: env])


def nothing(env: Any) -> None:
    pass


def __getattr__(name: str) -> Any:
    """Imports what it is asked for only then, as `gymnasium.wrappers` does."""
    if name == "Lazy":
        import a_package_that_nobody_has  # noqa: F401  # pyright: ignore[reportMissingImports]
    raise AttributeError(name)


class Lost(Echo):
    """Its code imports a package that nobody has."""

    def __init__(self) -> None:
        import a_package_that_nobody_has  # noqa: F401  # pyright: ignore[reportMissingImports]


for _class in (
    Hangs,
    HangsAtBirth,
    Talks,
    Leaves,
    Parses,
    Unfinite,
    Forgets,
    Reads,
    Breaks,
    Recalls,
    Asks,
    Whimsical,
    Old,
    Levels,
    Lies,
    Lost,
):
    gymnasium.register(f"tiny/{_class.__name__}-v0", f"tiny_envs:{_class.__name__}")
