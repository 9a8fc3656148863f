"""A moment of an episode, brought back: what follows is what would have followed."""

import os
import signal

import numpy as np
import pytest

from thinkslow.envs import Step, VectorEnv
from thinkslow.envs.families import FAMILIES

COUNTING = "counting:thinkslow-test/Counting-v0"
COLLECT = "thinkslow/CollectGoodObjects"
INSTALLED = {family.name: family.installed for family in FAMILIES}


def actions_of(envs: VectorEnv, seed: int, steps: int) -> list[np.ndarray]:
    """The same for every environment, at random."""
    rng = np.random.default_rng(seed)
    classes = envs.action_space.classes or 1
    return [np.full(envs.count, rng.integers(classes)) for _ in range(steps)]


def alike(step: Step, index: int, other: Step, there: int) -> None:
    for name, array in step.observation.items():
        np.testing.assert_array_equal(array[index], other.observation[name][there], err_msg=name)
    for name in ("reward", "is_last", "is_terminal"):
        assert getattr(step, name)[index] == getattr(other, name)[there], name


def family(name: str) -> list:
    absent = pytest.mark.skipif(not INSTALLED[name], reason=f"no {name}")
    return [pytest.mark.families, absent, pytest.mark.filterwarnings("ignore")]


KINDS = [
    pytest.param(COUNTING, {"size": 16}, False, id="by replay"),
    pytest.param(COUNTING, {"size": 16, "shift": "dropped:3,noise:2"}, False, id="shifted replay"),
    pytest.param(f"{COLLECT}-v0", {"size": 16}, True, id="ours"),
    pytest.param(
        f"{COLLECT}Informed-v1", {"size": 16}, True, id="ours, version 1", marks=pytest.mark.slow
    ),
    pytest.param(
        f"{COLLECT}Panorama-v0",
        {"size": 16, "shift": "delayed:2,textures:5"},
        True,
        id="ours, shifted",
        marks=pytest.mark.slow,
    ),
    pytest.param("ALE/Breakout-v5", {"repeat": 4}, True, id="Atari", marks=family("Atari")),
    pytest.param("atari100k/Boxing-v0", {}, True, id="Atari as DreamerV3", marks=family("Atari")),
    pytest.param("procgen/CoinrunEasy-v0", {}, False, id="Procgen", marks=family("Procgen")),
    pytest.param(
        "popgym-arcade/SkittlesEasyPartial-v0",
        {},
        True,
        id="POPGym Arcade",
        marks=family("POPGym Arcade"),
    ),
    pytest.param("Craftax-Classic-Pixels-v1", {}, True, id="Craftax", marks=family("Craftax")),
    pytest.param(
        "VizdoomHealthGathering-v1", {"repeat": 4}, False, id="ViZDoom", marks=family("ViZDoom")
    ),
    pytest.param("CrafterReward-v1", {}, False, id="Crafter", marks=family("Crafter")),
    pytest.param(
        "MiniGrid-Dynamic-Obstacles-6x6-v0",
        {"size": 56},
        True,
        id="MiniGrid",
        marks=family("MiniGrid"),
    ),
]


@pytest.mark.parametrize(("id", "options", "copied"), KINDS)
def test_what_follows_a_snapshot_follows_again(id, options, copied):
    with VectorEnv(id, 2, **options) as envs:
        envs.reset([3, 4])
        before = [envs.step(action) for action in actions_of(envs, 0, 4)][-1]
        assert not before.is_last.any()
        snapshots = envs.snapshot()
        rest = actions_of(envs, 1, 6)
        once = [envs.step(action) for action in rest]
        envs.reset([8, 9])
        # Twice, and the second time each in the other's place.
        for order in ((0, 1), (1, 0)):
            again = envs.resume([snapshots[index] for index in order])
            assert not again.is_first.any()
            assert again.errors == (None, None)
            for place, index in enumerate(order):
                for name, array in before.observation.items():
                    np.testing.assert_array_equal(array[index], again.observation[name][place])
            for action, step in zip(rest, once, strict=True):
                more = envs.step(action)
                for place, index in enumerate(order):
                    alike(step, index, more, place)
                if step.is_last.any():
                    break
    assert [one is not None and one.copy is not None for one in snapshots] == [copied, copied]


@pytest.mark.parametrize(
    ("name", "said"),
    [("Forgets", "do not lead back to the same moment"), ("Reads", "FileNotFoundError")],
)
def test_a_state_that_leads_elsewhere_is_not_used(name, said, caplog):
    """Methods of these names were believed, and every play-out was of another world."""
    with VectorEnv(f"tiny_envs:tiny/{name}-v0", 2) as envs:
        envs.reset([3, 4])
        envs.step(np.zeros((2, 2)))
        snapshots = envs.snapshot()
        assert [one is not None and one.copy for one in snapshots] == [None, None]
        assert said in caplog.text
        once = [envs.step(np.zeros((2, 2))) for _ in range(4)]
        assert envs.resume(snapshots).errors == (None, None)
        for step in once:
            more = envs.step(np.zeros((2, 2)))
            for index in range(2):
                alike(step, index, more, index)


def test_a_failure_in_the_trial_of_a_copy_ends_no_episode(caplog):
    """The log said that it did, every snapshot tried again, and the third raised `Failed`."""
    with VectorEnv("tiny_envs:tiny/Breaks-v0", 1) as envs:
        envs.reset([3])
        for _ in range(4):
            (snapshot,) = envs.snapshot()
            assert snapshot is not None
            assert snapshot.copy is None
        assert not envs.step(np.zeros((1, 2))).is_last.any()
    assert [line.rpartition("; ")[2] for line in caplog.messages] == [
        "its episodes are played again instead of copied."
    ]


def test_what_only_has_the_name_of_a_known_wrapper_is_not_copied():
    """Its step was copied, not its limit: an episode ended when the one before it would have."""
    with VectorEnv("tiny_envs:tiny/Recalls-v0", 2, wrappers=["tiny_envs:TimeLimit"]) as envs:
        envs.reset([3, 6])
        envs.step(np.zeros((2, 2)))
        once, other = envs.snapshot()
        envs.resume([other, once])
        ends = [envs.step(np.zeros((2, 2))).is_last.tolist() for _ in range(25)]
    assert [[row[index] for row in ends].index(True) for index in range(2)] == [24, 21]


def test_a_method_that_takes_something_else_gives_no_state(caplog):
    """It was called, and its error was said to be of our code."""
    with VectorEnv("tiny_envs:tiny/Asks-v0", 1) as envs:
        envs.reset([3])
        (snapshot,) = envs.snapshot()
    assert snapshot is not None
    assert snapshot.copy is None
    assert not caplog.messages


def test_a_first_moment_is_brought_back_as_a_first():
    with VectorEnv(COUNTING, 1, size=16) as envs:
        first = envs.reset([3])
        (snapshot,) = envs.snapshot()
        envs.step(np.array([2]))
        again = envs.resume([snapshot])
        assert again.is_first.all()
        np.testing.assert_array_equal(again.observation["image"], first.observation["image"])


def test_an_episode_that_is_over_has_no_snapshot():
    with VectorEnv(COUNTING, 1, size=16) as envs:
        envs.reset([3])
        while not envs.step(np.array([0])).is_last[0]:
            pass
        assert envs.snapshot() == [None]
        with pytest.raises(ValueError, match="episode that is over"):
            envs.resume([None])
        with pytest.raises(ValueError, match="one per environment, 1; got 0"):
            envs.resume([])


def test_an_episode_that_leads_elsewhere_is_marked():
    whim = "tiny_envs:tiny/Whimsical-v0"
    with VectorEnv(whim, 1) as envs:
        envs.reset([3])
        step = envs.resume(envs.snapshot())
        assert step.crashed[0]
        (failure,) = step.errors
        assert failure is not None
        assert failure.kind == "NotReplayed"
        assert envs.step(np.zeros((1, 2))).is_first[0]


@pytest.mark.slow
def test_a_worker_that_dies_meanwhile_is_no_loss():
    with VectorEnv(f"{COLLECT}-v0", 1, size=16) as envs:
        envs.reset([3])
        actions = actions_of(envs, 0, 5)
        for action in actions[:3]:
            envs.step(action)
        snapshots = envs.snapshot()
        once = [envs.step(action) for action in actions[3:]]
        os.kill(envs.pids[0], signal.SIGKILL)
        envs.resume(snapshots)
        for action, step in zip(actions[3:], once, strict=True):
            alike(step, 0, envs.step(action), 0)
