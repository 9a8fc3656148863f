"""Joint smoothing, where the true states are known: later frames inform earlier latents."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from thinkslow import toy
from thinkslow.agent.agent import Agent
from thinkslow.agent.past.smoothing import smoothed
from thinkslow.agent.past.window import Window
from thinkslow.agent.thinking import Thinking
from thinkslow.worldmodel import State

pytestmark = pytest.mark.usefixtures("strict")

PROBLEM = toy.ring(6, noise=0.2)
MODEL = toy.noisy(PROBLEM, 1.5, seed=3)
FRAMES, BATCH = 6, 256


@pytest.fixture(scope="module")
def played() -> tuple[Any, Any, Any]:
    """Windows of whole episodes, their true states, and the same with later frames shuffled."""
    actions = jr.randint(jr.key(0), (BATCH, FRAMES), 0, PROBLEM.actions)
    keys = jr.split(jr.key(1), BATCH)
    states, symbols = jax.vmap(lambda a, k: toy.simulate(PROBLEM, a, key=k))(actions, keys)
    start = MODEL.initial()
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (BATCH, FRAMES, *x.shape)), start)
    first = jnp.zeros((BATCH, FRAMES), bool).at[:, 0].set(True)
    taken = jax.nn.one_hot(actions, PROBLEM.actions)
    order = jnp.concatenate([jnp.array([0]), jr.permutation(jr.key(2), jnp.arange(1, FRAMES))])

    def window(symbols: Any) -> Window:
        return Window(
            State(many.memory, many.latent), taken, {"symbol": symbols}, first, jnp.ones_like(first)
        )

    return window(symbols), states, window(symbols[:, order])


def beliefs(window: Window, steps: int, nats: float = 1.0) -> np.ndarray:
    @jax.jit
    def all_of(window: Window) -> Any:
        one = lambda w: smoothed(MODEL, w, steps=steps, nats=nats, key=jr.key(0))[1].soft()  # noqa: E731
        return jax.vmap(one)(window)

    return np.asarray(all_of(window))


def score(found: np.ndarray, states: Any) -> np.ndarray:
    """Log belief in the true state of every frame, the mean of each episode."""
    true = np.take_along_axis(found, np.asarray(states)[..., None], -1)[..., 0]
    return np.log(np.maximum(true, 1e-9))[:, :-1].mean(1)


@pytest.mark.slow
def test_later_frames_inform_earlier_latents_and_shuffled_ones_do_not(played):
    """256 episodes; means of paired differences, three standard errors."""
    window, states, shuffled = played
    plain = score(beliefs(window, 0), states)
    gain = score(beliefs(window, 3), states) - plain
    assert gain.mean() > 3 * gain.std() / np.sqrt(BATCH)
    false = score(beliefs(shuffled, 3), states) - score(beliefs(shuffled, 0), states)
    apart = gain - false
    assert apart.mean() > 3 * apart.std() / np.sqrt(BATCH)


@pytest.mark.slow
def test_smoothing_of_no_nats_is_the_fixed_lag():
    """Its window holds the present frame too, so it is that of a lag one shorter."""
    seen = [{"symbol": np.array([s])} for s in (1, 0, 2, 1, 1)]
    states = []
    for settings in (Thinking(lag=2), Thinking(lag=3, smoothing=2, smoothing_nats=0.0)):
        agent = Agent(MODEL, settings)
        carry, thought = agent.start(1), None
        for time, frame in enumerate(seen):
            keys = jr.split(jr.key(time), 1)
            carry, _, thought = agent.act(carry, frame, np.array([time == 0]), keys=keys)
        assert thought is not None
        states.append(thought.after.soft())
    np.testing.assert_allclose(states[0], states[1], atol=1e-5)


@pytest.mark.usefixtures("untyped")
def test_smoothing_needs_a_window():
    with pytest.raises(ValueError, match="`lag` must be 1 or more; got 0"):
        Thinking(smoothing=2)
