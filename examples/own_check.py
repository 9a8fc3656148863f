"""A check of your own: an image of one colour is a lost signal. The arm `blank` uses it.

thinkslow evaluate collect-half --import examples/own_check.py --arms blank --shift dropped-silent:3
"""

import jax.numpy as jnp

import thinkslow
from thinkslow import envs
from thinkslow.needs import DECODES_IMAGES


class Blank(thinkslow.Check):
    """The prior replaces the posterior where no image has contrast."""

    contrast: float = 2.0

    @property
    def needs(self):
        return (DECODES_IMAGES,)

    def suspects(self, frame, distance):
        images = [x for x in frame.observation.values() if x.ndim == 3]
        spreads = [jnp.std(jnp.asarray(image, jnp.float32)) for image in images]
        return jnp.max(jnp.stack(spreads)) < self.contrast

    def judge(self, frame, suspicious):
        return frame.rejected(suspicious)


def blank():
    """Frames of one colour are replaced by the prior."""
    return thinkslow.Thinking(check=Blank())


thinkslow.register("check", "blank", Blank)
thinkslow.register("arm", "blank", blank)

if __name__ == "__main__":
    agent = thinkslow.load("collect-half")
    place = agent.about.environment
    player = thinkslow.calibrated(agent.thinking(blank()), place, batch=1).player()
    with envs.make(**place) as env:
        seen, _ = env.reset(seed=0)
        for frame in (seen, {name: 0 * value for name, value in seen.items()}):
            player(frame, first=frame is seen)
            print("suspicious:", player.thought.checked.suspicious[0])
