"""A scripted player of the project's task, as a reference for scores."""

import math
from typing import Any

import numpy as np

from thinkslow.envs.make import Environment

LEFT, RIGHT, FORWARD = range(3)


def towards_good(env: Environment) -> int:
    """The action of a player that sees the whole world and walks to the nearest good box.

    `env` plays `thinkslow/CollectGoodObjects-v0` or its twin from above.
    """
    world: Any = env.env.unwrapped
    x, _, z = world.agent.pos
    goods = [thing.pos for thing in world.things if thing.reward > 0]
    near = [pos for pos in goods if pos[0] * x > 0] or goods
    goal = min(near, key=lambda pos: math.dist(pos, world.agent.pos))
    to_x, to_z = goal[0], goal[2]
    if abs(x) < 0.7:  # in the door: straight on
        to_x, to_z = np.sign(goal[0]), 0.0
    elif to_x * x < 0:  # the other room: face the middle of the door, then go through
        to_x, to_z = (np.sign(goal[0]), 0.0) if abs(z) < 0.2 else (0.9 * np.sign(x), 0.0)
    error = math.remainder(math.atan2(-(to_z - z), to_x - x) - world.agent.dir, 2 * math.pi)
    return FORWARD if abs(error) <= math.radians(14) else (LEFT if error > 0 else RIGHT)
