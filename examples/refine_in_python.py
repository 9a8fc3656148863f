"""Play a bundled agent that thinks before it acts, and look at what thinking did."""

import dataclasses

import thinkslow
from thinkslow import envs

agent = thinkslow.load("collect-half")
how = dataclasses.replace(thinkslow.arm("evidence").thinking, record=True)  # the last loss too
player = agent.thinking(how).player(seed=0)
env = envs.make("thinkslow/CollectGoodObjects-v0")

observation, _ = env.reset(seed=0)
for decision in range(25):
    action = player(observation, first=decision == 0)
    observation, reward, *_ = env.step(action)
    refined = player.thought.refined
    loss, moved = refined.loss[0], refined.moved[0, -1]
    print(f"objective {loss[0]:.0f} -> {loss[-1]:.0f}, moved {moved:.1f} nats, reward {reward:+g}")
env.close()
