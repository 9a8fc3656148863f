"""An environment of your own, made by a function; nothing has to be registered.

cd examples; thinkslow train own_environment:lights --minutes 10 --run ../runs/lights
"""

import gymnasium
import numpy as np
from gymnasium import spaces

from thinkslow import envs


class Lights(gymnasium.Env):
    """A light flashes in one of four corners and goes off. The agent must go there from memory."""

    observation_space = spaces.Dict(
        {"image": spaces.Box(0, 255, (16, 16, 3), np.uint8), "left": spaces.Box(0.0, 1.0, (1,))}
    )
    action_space = spaces.Discrete(4)

    def __init__(self, waiting: int = 3):
        self.waiting = waiting

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)  # everything drawn from np_random is the same for a seed
        self.corner, self.time = int(self.np_random.integers(4)), 0
        return self._seen(), {}

    def step(self, action):
        self.time += 1
        over = self.time > self.waiting
        return self._seen(), float(over and action == self.corner), over, False, {}

    def _seen(self):
        image = np.zeros((16, 16, 3), np.uint8)
        if self.time == 0:
            row, column = divmod(self.corner, 2)
            image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
        return {"image": image, "left": np.array([1 - self.time / (self.waiting + 1)], np.float32)}


def lights(waiting: int = 3) -> gymnasium.Env:
    return Lights(waiting)


if __name__ == "__main__":
    env = envs.make("own_environment:lights", size=16, options={"waiting": 5})
    print(env.observations, env.actions)
    first, _ = env.reset(seed=0)
    again, _ = env.reset(seed=0)
    print("seeded:", all(np.array_equal(first[name], again[name]) for name in first))
