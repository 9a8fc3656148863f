"""DeepMind Lab, played through a strict stand-in for its engine (tests/fakes/deepmind_lab.py)."""

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from thinkslow.envs import Unavailable, VectorEnv, make
from thinkslow.envs.families import dmlab
from thinkslow.spaces import Space

LEVEL = "dmlab/rooms_collect_good_objects_train-v0"
FORWARD = 0
BACKWARD = 1


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "fakes"))
    yield
    sys.modules.pop("deepmind_lab", None)


def test_a_level_is_played_in_either_set_of_actions():
    env = make(LEVEL)
    assert env.observations == {"image": Space((64, 64, 3), "uint8")}
    assert env.action == Space((), "int32", 15)
    assert make(LEVEL, options={"actions": "impala"}).action == Space((), "int32", 9)
    env.reset(seed=3)
    # Four frames of walking a decision: the goal is ten decisions away, and a true end.
    steps = [env.step(FORWARD)[1:4] for _ in range(10)]
    assert steps == [(0.0, False, False)] * 9 + [(1.0, True, False)]
    env.reset(seed=4)
    for action in range(15):
        env.step(action)
    env.close()
    with pytest.raises(Unavailable, match="`actions` must be one of impala, popart; got 'all'"):
        make(LEVEL, options={"actions": "all"})


def test_both_sets_are_those_of_the_papers():
    impala = np.array(dmlab.ACTIONS["impala"])
    assert impala.shape == (9, 7)
    assert len({tuple(one) for one in impala}) == 9
    assert sorted(impala[:, 0]) == [-20, -20, 0, 0, 0, 0, 0, 20, 20]
    popart = np.array(dmlab.ACTIONS["popart"])
    assert popart.shape == (15, 7)
    assert len({tuple(one) for one in popart}) == 15
    assert sorted(popart[:, 0]) == [-60, -60, -10, -10, *[0] * 7, 10, 10, 60, 60]
    assert sorted(popart[:, 1])[0::14] == [-10, 10]


@pytest.mark.parametrize(("options", "frames"), [({}, 30), ({"repeat": 8}, 15), ({"fps": 30}, 15)])
def test_an_end_by_the_clock_is_a_truncation(options, frames):
    env = make(LEVEL, options=options)
    env.reset(seed=0)
    ends = [env.step(BACKWARD)[2:4] for _ in range(frames)]
    assert ends == [(False, False)] * (frames - 1) + [(False, True)]
    episodic = make(LEVEL, options={"episodic": True, **options})
    episodic.reset(seed=0)
    assert [episodic.step(BACKWARD)[2:4] for _ in range(frames)][-1] == (True, False)


def test_an_engine_that_tells_no_time_ends_by_itself():
    old = {"level": "tests/old_build"}
    env = make("dmlab/level-v0", options=old)
    env.reset(seed=0)
    assert [env.step(BACKWARD)[2:4] for _ in range(30)][-1] == (True, False)
    top = make("dmlab/level-v0", options={**old, "view": "top"}, size=32)
    assert top.observations == {"image": Space((32, 32, 3), "uint8")}
    top.reset(seed=0)


def test_the_view_from_above_is_of_the_same_level():
    first, top = make(LEVEL), make(LEVEL, options={"view": "top"})
    np.testing.assert_array_equal(first.reset(seed=5)[0]["image"], top.reset(seed=5)[0]["image"])
    for action in (0, 5, 12):
        one, other = first.step(action), top.step(action)
        np.testing.assert_array_equal(one[0]["image"], other[0]["image"])


def test_an_episode_follows_from_its_seed_in_every_process_and_however_often():
    with VectorEnv(LEVEL, 2, seed=1) as envs:
        envs.reset([7, 9])
        first = envs.first_seen
        envs.step(np.array([0, 3]))
        snapshots = envs.snapshot()
        assert envs.reset([9, 7]).is_first.all()
        assert envs.first_seen == first[::-1]
        again = envs.resume(snapshots)
        assert again.errors == (None, None)


def test_instructions_are_left_out_and_named():
    env = make("dmlab/language_select_described_object-v0")
    assert list(env.observations) == ["image"]
    assert [note for note in env.notes if "left out instr (Text)" in note]
    env.reset(seed=0)
    env.step(0)


def test_what_the_engine_refuses_is_told_as_it_says_it():
    with pytest.raises(Unavailable, match=r"`?level'?"):
        make("dmlab/level-v0")
    with pytest.raises(Unavailable, match="Invalid levelName flag 'nowhere'"):
        make("dmlab/level-v0", options={"level": "nowhere"})
    with pytest.raises(Unavailable, match='must be "hardware" or "software"'):
        make(LEVEL, options={"renderer": "paper"})


def test_compiled_levels_are_kept_in_a_folder(tmp_path):
    kept = tmp_path / "levels"
    for _ in range(2):
        env = make(LEVEL, options={"cache": str(kept)})
        env.reset(seed=1)
        env.close()
    assert len([*kept.iterdir()]) == 1


def test_an_absent_engine_is_named_with_the_way_to_build_it(monkeypatch):
    monkeypatch.undo()
    if dmlab.FAMILY.installed:
        pytest.skip("the engine is installed")
    with pytest.raises(Unavailable, match=r"deepmind_lab.*pip install dmlab-gym; then build"):
        make(LEVEL)


class GymLab(gymnasium.Env):
    """As dmlab-gym shows a level: a box of seven whole numbers to act in."""

    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Box(
        np.array([-512, -512, -1, -1, 0, 0, 0], np.intc),
        np.array([512, 512, 1, 1, 1, 1, 1], np.intc),
        dtype=np.intc,
    )

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action.dtype == np.intc
        assert self.action_space.contains(action)
        return np.zeros((64, 64, 3), np.uint8), float(action[0]), False, False, {}


def test_the_levels_of_dmlab_gym_take_the_same_actions():
    env = dmlab.GYM.dress(GymLab(), 64, actions="impala")
    assert env.action_space == gymnasium.spaces.Discrete(9)
    assert [env.step(action)[1] for action in range(9)] == [0, 0, 0, 0, -20, 20, -20, 20, 0]
    with pytest.raises(ValueError, match="`actions` must be one of impala, popart"):
        dmlab.GYM.dress(GymLab(), 64, actions="mine")
