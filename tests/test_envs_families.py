"""Every family that is installed here: it plays, and an episode follows from its seed.

uv pip install -e '.[atari,minigrid,vizdoom,dm-control,crafter,memory-maze,procgen]'
pytest -m families tests/test_envs_families.py tests/test_envs_snapshots.py

and once more in another environment, because of `pygame`, with '.[craftax,popgym-arcade]'.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from thinkslow.cli import envs as command
from thinkslow.cli import main
from thinkslow.envs import Unavailable, VectorEnv, make
from thinkslow.envs.families import FAMILIES, atari, dmlab
from thinkslow.spaces import Space

# Whatever simulators and their libraries warn of while they are imported is theirs.
quiet = pytest.mark.filterwarnings("ignore")
needed = {
    family.name: pytest.mark.skipif(not family.installed, reason=f"no {family.module}")
    for family in FAMILIES
}


@pytest.mark.families
@pytest.mark.parametrize(
    "family", [pytest.param(one, marks=needed[one.name], id=one.name) for one in FAMILIES]
)
def test_an_episode_follows_from_its_seed_in_every_process(family):
    with VectorEnv(family.example, 2, seed=1) as envs:
        steps = [envs.reset([7, 7])]
        assert envs.first_seen[0] == envs.first_seen[1]
        rng = np.random.default_rng(0)
        for _ in range(200):
            if steps[-1].is_last.any():  # the seeds of the next episodes would differ
                steps.append(envs.reset([8, 8]))
            actions = {
                name: np.repeat(
                    [
                        rng.integers(space.classes or 1)
                        if space.discrete
                        else rng.uniform(-1, 1, space.shape)
                    ],
                    2,
                    axis=0,
                )
                for name, space in envs.action_spaces.items()
            }
            steps.append(envs.step(actions))
        for step in steps:
            assert not step.crashed.any(), step.errors
            assert not step.nonfinite
            assert step.reward[0] == step.reward[1]
            assert set(step.observation) == set(envs.observation_space)
            for name, array in step.observation.items():
                space = envs.observation_space[name]
                assert (array.shape[1:], array.dtype) == (space.shape, space.dtype)
                np.testing.assert_array_equal(array[0], array[1])
        name = next(name for name, space in envs.observation_space.items() if len(space.shape) == 3)
        shown = {step.observation[name][0].tobytes() for step in steps}
        assert len(shown) > 5, "the picture hardly moves"
        assert max(step.observation[name].std() for step in steps) > 1, "the picture is of a colour"
        assert envs.reset([8, 8]).is_first.all()


TRUNCATED = {
    "thinkslow": ("thinkslow/CollectGoodObjects-v0", {"decisions": 20}, 0, 20),
    "MiniWorld": ("MiniWorld-OneRoom-v0", {}, 0, 180),
    "Atari": ("ALE/Pong-v5", {"max_num_frames_per_episode": 80}, 0, 20),
    "Atari as DreamerV3": ("atari100k/Pong-v0", {"length": 80}, 0, 20),
    "MiniGrid": ("MiniGrid-DoorKey-5x5-v0", {"max_steps": 20}, 0, 20),
    "ViZDoom": ("VizdoomBasic-v1", {"episode_timeout": 30}, 0, 30),
    "DeepMind Control": ("dm_control/cartpole-swingup-v0", {"show": "vectors"}, [0.0], 1000),
    "Crafter": ("CrafterReward-v1", {"length": 20}, 0, 20),
    "Craftax": ("Craftax-Classic-Pixels-v1", {"length": 20}, 0, 20),
    "POPGym Arcade": ("popgym-arcade/NavigatorEasy-v0", {}, 0, 64),
    "Memory Maze": ("MemoryMaze-9x9-v0", {"control_freq": 0.4}, 0, 100),
    "Procgen": ("procgen/CoinrunEasy-v0", {"max_episode_steps": 20}, 4, 20),
}
"""By family: an id, its options, an action that does nothing, and when the clock ends it."""


@quiet
@pytest.mark.families
@pytest.mark.parametrize("name", [pytest.param(one, marks=needed[one]) for one in TRUNCATED])
def test_an_end_by_the_clock_is_no_end_of_the_task(name):
    id, options, action, decisions = TRUNCATED[name]
    env = make(id, options=options)
    env.reset(seed=0)
    ends = [env.step(action)[2:4] for _ in range(decisions)]
    env.close()
    assert ends == [(False, False)] * (decisions - 1) + [(False, True)]


def test_the_clock_of_every_family_is_tried():
    lab = {family.name for family in (dmlab.FAMILY, dmlab.GYM)}  # by a fake: test_envs_dmlab.py
    assert set(TRUNCATED) == {family.name for family in FAMILIES} - lab


def test_the_stand_in_for_an_engine_is_not_on_the_path():
    """A run of all tests collected it, and so imported it and took it for DeepMind Lab."""
    assert str(Path(__file__).parent / "fakes") not in sys.path


@quiet
@pytest.mark.families
@needed["POPGym Arcade"]
def test_both_views_of_an_arcade_game_are_of_the_same_game():
    one, other = (make(f"popgym-arcade/CartPoleEasy{view}-v0") for view in ("", "Partial"))
    one.reset(seed=2)
    other.reset(seed=2)
    differ = 0
    for action in np.random.default_rng(0).integers(5, size=30):
        (mine, *here), (theirs, *there) = one.step(action), other.step(action)
        assert here == there
        differ += not np.array_equal(mine["image"], theirs["image"])
        if here[1]:
            assert here[1:3] == [True, False], "a pole that falls is an end"
            break
    assert differ


@quiet
@pytest.mark.families
@needed["Atari"]
def test_four_repeated_frames_are_the_four_of_the_id_and_show_the_last_two():
    given = {"repeat_action_probability": 0.0}
    own, ours = make("ALE/Breakout-v5", options=given), make("ALE/Breakout-v5", repeat=4)
    assert [note for note in ours.notes if "frameskip=1" in note]
    assert not own.notes
    ours = make("ALE/Breakout-v5", repeat=4, options=given)
    third = make("ALE/Breakout-v5", options={"frameskip": 3, **given})
    for env in (own, ours, third):
        env.reset(seed=3)
    for action in np.random.default_rng(0).integers(4, size=60):
        (_, *mine, _), (shown, *theirs, _) = own.step(action), ours.step(action)
        assert mine == theirs
        third.env.step(int(action))
        raw = third.env.unwrapped.ale.getScreenRGB()  # pyright: ignore[reportAttributeAccessIssue]
        third.env.unwrapped.ale.act(  # pyright: ignore[reportAttributeAccessIssue]
            third.env.unwrapped._action_set[action]  # pyright: ignore[reportAttributeAccessIssue]
        )
        last = third.env.unwrapped.ale.getScreenRGB()  # pyright: ignore[reportAttributeAccessIssue]
        np.testing.assert_array_equal(shown["image"], ours.sights[0].see(np.maximum(raw, last))[0])
    every = make("ALE/Breakout-v5", repeat=4, options={"frameskip": 4})  # asked for: sixteen
    every.reset(seed=0)
    every.step(0)
    assert ["16 frames" in note for note in every.notes] == [True]
    assert make("PongNoFrameskip-v4").action.classes == 6


@quiet
@pytest.mark.families
@needed["Atari"]
@pytest.mark.parametrize("id", ["ale_py:Pong-v4", "Pong-v0"])
def test_old_ids_that_skip_two_to_four_frames_do_not_skip_them_again(id):
    """Four repeats were eight to sixteen frames, and nothing said so."""
    make("ALE/Pong-v5").close()  # registers them
    env = make(id, repeat=4)
    assert [note for note in env.notes if "repeats each action 2 to 4 times itself" in note]
    env.reset(seed=0)
    emulator = env.env.unwrapped.ale  # pyright: ignore[reportAttributeAccessIssue]
    before = emulator.getEpisodeFrameNumber()
    env.step(0)
    assert emulator.getEpisodeFrameNumber() == before + 4


@quiet
@pytest.mark.families
@needed["Atari"]
def test_the_two_settings_of_dreamer_differ_as_there():
    full = make("atari/Pong-v0", size=96)
    needed_ = make("atari100k/Pong-v0")
    assert full.observations == {"image": Space((96, 96, 1), "uint8")}
    assert full.action.classes == 18
    assert needed_.observations == {"image": Space((64, 64, 3), "uint8")}
    assert needed_.action.classes == 6
    # Sticky actions: for other seeds of the emulator the same actions lead elsewhere.
    for env, sticks in ((full, True), (needed_, False)):
        scores = []
        for seed in range(2):
            game = make(env.id, size=32, options={"noops": 0})
            game.reset(seed=seed)
            scores.append([game.step(i % 6)[0]["image"].tobytes() for i in range(60)])
        assert (scores[0] != scores[1]) == sticks
    boxing = make("atari100k/Boxing-v0")
    starts = {boxing.reset(seed=seed)[0]["image"].tobytes() for seed in range(8)}
    assert len(starts) > 1
    short = make("atari100k/Pong-v0", options={"length": 40})
    short.reset(seed=1)
    assert [short.step(0)[2:4] for _ in range(10)] == [(False, False)] * 9 + [(False, True)]
    # Repeating is left to it: what is shown is the maximum of the last two frames.
    assert make("atari100k/Pong-v0", repeat=2).repeat == 1
    for wrong in ({"lives": "some"}, {"sticky": 1.5}, {"noops": -1}, {"actions": "few"}):
        with pytest.raises(Unavailable, match=f"`{next(iter(wrong))}` must be"):
            make("atari100k/Pong-v0", options=wrong)


@quiet
@pytest.mark.families
@needed["Atari"]
def test_a_life_may_end_an_episode():
    whole, each = (
        make("atari100k/Breakout-v0", options={"lives": lives, "noops": 0})
        for lives in ("unused", "reset")
    )
    lengths = []
    for env in (whole, each):
        env.reset(seed=0)
        steps = 1
        while not env.step(1 + steps % 2)[2]:
            steps += 1
        lengths.append(steps)
    assert lengths[1] < lengths[0]


@quiet
@pytest.mark.families
@needed["ViZDoom"]
def test_the_engine_of_doom_leaves_nothing_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = make("VizdoomHealthGathering-v1", repeat=4)
    env.reset(seed=1)
    env.step(0)
    env.close()
    assert not [*tmp_path.iterdir()]


@quiet
@pytest.mark.families
@needed["MiniGrid"]
def test_the_views_of_a_grid_are_of_the_same_level():
    views = {
        view: make("MiniGrid-DoorKey-8x8-v0", size=56, options={"view": view})
        for view in ("partial", "full", "cells")
    }
    for env in views.values():
        assert env.observations == {
            "direction": Space((), "int32", 4),
            "image": Space((56, 56, 3), "uint8"),
        }
        assert [note for note in env.notes if "left out mission" in note]
        env.reset(seed=5)
    worlds = [str(env.env.unwrapped) for env in views.values()]
    assert len(set(worlds)) == 1
    with pytest.raises(ValueError, match=r"`view`.*got 'top'"):
        make("MiniGrid-DoorKey-8x8-v0", options={"view": "top"})


@quiet
@pytest.mark.families
@needed["DeepMind Control"]
def test_a_task_of_the_suite_shows_what_was_asked_for():
    shows = {
        show: make("dm_control/cartpole-swingup-v0", size=32, options={"show": show})
        for show in ("image", "vectors", "both")
    }
    assert list(shows["image"].observations) == ["image"]
    assert shows["vectors"].observations == {
        "position": Space((3,), "float32"),
        "velocity": Space((2,), "float32"),
    }
    assert set(shows["both"].observations) == {"image", "position", "velocity"}
    seen = {show: env.reset(seed=1)[0] for show, env in shows.items()}
    np.testing.assert_array_equal(seen["both"]["image"], seen["image"]["image"])
    np.testing.assert_array_equal(seen["both"]["position"], seen["vectors"]["position"])
    ends = [shows["vectors"].step(np.zeros(1))[2:4] for _ in range(1000)]
    assert ends == [(False, False)] * 999 + [(False, True)]


@quiet
@pytest.mark.families
@needed["Crafter"]
def test_crafter_follows_from_its_seed_for_long():
    def play(seed: int) -> list[bytes]:
        env = make("CrafterReward-v1")
        images = [env.reset(seed=seed)[0]["image"]]
        actions = np.random.default_rng(1).integers(17, size=150)
        images += [env.step(action)[0]["image"] for action in actions]
        return [image.tobytes() for image in images]

    junk = [object() for _ in range(100_000)]  # other addresses
    one = play(4)
    del junk
    assert one == play(4)


def test_every_family_says_how_to_install_it(capsys):
    assert main(["envs", "--json"]) == 0
    listed = {one["family"]: one for one in json.loads(capsys.readouterr().out)["families"]}
    assert set(listed) == {family.name for family in FAMILIES}
    for family in FAMILIES:
        one = listed[family.name]
        assert one["installed"] == family.installed
        if not family.installed:
            assert family.packages.split()[0] in one["install"]
    assert listed["thinkslow"]["ids"] >= ["thinkslow/CollectGoodObjects-v0"]


def test_environments_are_found_by_a_part_of_their_name(capsys):
    assert main(["envs", "collectgood"]) == 0
    said = capsys.readouterr().out
    assert "thinkslow/CollectGoodObjects-v0" in said
    assert "CartPole" not in said
    assert main(["envs", "pong"]) == 0
    assert "ale-py" in capsys.readouterr().out or atari.FAMILY.installed
    assert main(["envs", "no-such-thing"]) == 2
    assert "CartPole-v1" in command.find("cartpole")["others"]


def test_a_package_that_does_not_import_is_told(monkeypatch):
    def broken() -> None:
        raise ImportError("libGL.so.1: cannot open shared object file")

    import dataclasses

    from thinkslow.envs import requirements

    family = dataclasses.replace(atari.FAMILY, module="json", registers=broken)
    monkeypatch.setattr(requirements, "FAMILIES", (family,))
    with pytest.raises(Unavailable, match=r"Importing json failed: ImportError: libGL.so.1"):
        make("ALE/Pong-v5")
