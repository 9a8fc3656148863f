"""An agent in somebody's own loop: `predict` as Stable-Baselines3 has it."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thinkslow.agent.agent import Agent
from thinkslow.agent.player import Player
from thinkslow.agent.thinking import Thinking
from thinkslow.distributions import Gaussian
from thinkslow.readouts import Mode
from thinkslow.spaces import Space
from thinkslow.worldmodel import State, WorldModel


class Counter(WorldModel):
    """Its memory counts decisions; it acts on that, and on what it sees, with some noise."""

    @property
    def observation_spaces(self):
        return (("seen", Space((2,), "float32")),)

    @property
    def action_spaces(self):
        return (("action", Space((), "int32", 3)),)

    def initial(self):
        return State(jnp.zeros(1), jnp.zeros(2))

    def predict(self, state, action, is_first):
        memory = jnp.where(is_first, 1.0, state.memory + 1)
        return memory, Gaussian(jnp.zeros(2), jnp.zeros(2))

    def infer(self, memory, observation):
        return Gaussian(jnp.asarray(observation["seen"]), jnp.zeros(2))

    def decode(self, state):
        return {}

    def logits(self, state):
        return jnp.concatenate([state.latent, state.memory / 2])

    def policy(self, state, key):
        return jax.nn.one_hot(jax.random.categorical(key, self.logits(state)), 3)

    def greedy(self, state, key):
        return jax.nn.one_hot(jnp.argmax(self.logits(state)), 3)


SEEN = np.random.default_rng(0).normal(size=(8, 4, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def agent():
    return Agent(Counter(), Thinking(readout=Mode()))


def test_predict_of_one_environment_plays_as_the_player_does(agent):
    by_call, by_predict = agent.player(seed=3), agent.player(seed=3)
    state = None
    for decision, seen in enumerate(SEEN[:, 0]):
        action, state = by_predict.predict(seen, state, episode_start=decision == 0)
        assert isinstance(action, int)
        assert action == by_call(seen, first=decision == 0)


def test_predict_takes_several_environments_and_forgets_where_an_episode_starts(agent):
    state, player = None, agent.player()
    for decision, seen in enumerate(SEEN):
        starts = np.array([decision == 0, decision == 0, decision == 5, False])
        actions, state = player.predict({"seen": seen}, state, episode_start=starts)
        assert actions.shape == (4,)
    assert state is not None
    memory = np.asarray(state.carry.state.memory)[:, 0]
    assert memory.tolist() == [8.0, 8.0, 3.0, 8.0]


def test_without_a_state_every_episode_begins(agent):
    player = agent.player()
    first, _ = player.predict(SEEN[0])
    again, _ = player.predict(SEEN[0])
    assert first.tolist() == again.tolist()


def test_deterministic_takes_the_likeliest_action(agent):
    player = agent.player()
    action, _ = player.predict(np.array([5.0, 0.0], np.float32), deterministic=True)
    assert action == 0
    drawn = {player.predict(np.zeros(2, np.float32), s)[0] for s in [None]}
    assert drawn <= {0, 1, 2}


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (np.zeros((1, 4, 2), np.float32), "cannot be told"),
        ({"other": np.zeros(2, np.float32)}, "cannot be told"),
    ],
)
def test_an_observation_that_may_mean_two_things_is_refused(agent, observation, said):
    with pytest.raises(ValueError, match=said):
        agent.player().predict(observation)


def test_a_state_of_another_number_of_environments_is_refused(agent):
    player = agent.player()
    _, state = player.predict(SEEN[0])
    with pytest.raises(ValueError, match="of 4 environments; the observation is of 2"):
        player.predict(SEEN[0, :2], state)


def test_predict_takes_one_start_for_all_and_refuses_other_numbers(agent):
    """It named `keys`, which a caller does not know, or divided by zero."""
    player, seen = agent.player(), {"seen": SEEN[0]}
    (by_one, _), (by_each, _) = (
        player.predict(seen, episode_start=start) for start in (True, [True] * len(SEEN[0]))
    )
    np.testing.assert_array_equal(by_one, by_each)
    with pytest.raises(ValueError, match=r"`episode_start` must be one for each.*got 5"):
        player.predict(seen, episode_start=[True] * 5)
    with pytest.raises(ValueError, match="one or more environments; got 0"):
        player.predict({"seen": SEEN[0][:0]})


def test_predict_has_the_parameters_of_stable_baselines3():
    parameters = inspect.signature(Player.predict).parameters
    assert list(parameters)[1:] == ["observation", "state", "episode_start", "deterministic"]
    assert parameters["deterministic"].default is False
