"""Every family that is installed here: it plays, and an episode follows from its seed.

uv pip install -e '.[atari,minigrid,vizdoom,dm-control,crafter,memory-maze]'
pytest -m families tests/test_envs_families.py
"""

import json

import numpy as np
import pytest

from thinkslow.cli import envs as command
from thinkslow.cli import main
from thinkslow.envs import Unavailable, VectorEnv, make
from thinkslow.envs.families import FAMILIES, atari
from thinkslow.spaces import Space

# Whatever simulators and their libraries warn of while they are imported is theirs.
quiet = pytest.mark.filterwarnings("ignore")
needed = {family.name: pytest.mark.skipif(not family.installed, reason=f"no {family.module}")
          for family in FAMILIES}  # fmt: skip


@pytest.mark.families
@pytest.mark.parametrize(
    "family", [pytest.param(one, marks=needed[one.name], id=one.name) for one in FAMILIES]
)
def test_an_episode_follows_from_its_seed_in_every_process(family):
    with VectorEnv(family.example, 2, seed=1) as envs:
        steps = [envs.reset([7, 7])]
        assert envs.first_seen[0] == envs.first_seen[1]
        rng = np.random.default_rng(0)
        for _ in range(20):
            actions = {
                name: np.repeat([rng.integers(space.classes or 1) if space.discrete
                                 else rng.uniform(-1, 1, space.shape)], 2, axis=0)
                for name, space in envs.action_spaces.items()
            }  # fmt: skip
            steps.append(envs.step(actions))
        for step in steps:
            assert not step.crashed.any(), step.errors
            assert not step.nonfinite
            for array in step.observation.values():
                np.testing.assert_array_equal(array[0], array[1])
        name = next(name for name, space in envs.observation_space.items() if len(space.shape) == 3)
        assert len({step.observation[name][0].tobytes() for step in steps}) > 1
        assert envs.reset([8, 8]).is_first.all()


@quiet
@pytest.mark.families
@needed["Atari"]
def test_four_repeated_frames_are_the_four_of_the_id():
    own, ours = make("ALE/Breakout-v5"), make("ALE/Breakout-v5", repeat=4)
    assert [note for note in ours.notes if "frameskip=1" in note]
    assert not own.notes
    one, other = own.reset(seed=3)[0], ours.reset(seed=3)[0]
    for action in np.random.default_rng(0).integers(4, size=60):
        np.testing.assert_array_equal(one["image"], other["image"])
        (one, *mine, _), (other, *theirs, _) = own.step(action), ours.step(action)
        assert mine == theirs
    every = make("ALE/Breakout-v5", repeat=4, options={"frameskip": 4})  # asked for: sixteen
    assert not every.notes
    assert make("PongNoFrameskip-v4").action.classes == 6


@quiet
@pytest.mark.families
@needed["MiniGrid"]
def test_the_views_of_a_grid_are_of_the_same_level():
    views = {view: make("MiniGrid-DoorKey-8x8-v0", size=56, options={"view": view})
             for view in ("partial", "full", "cells")}  # fmt: skip
    for env in views.values():
        assert env.observations == {
            "direction": Space((), "int32", 4), "image": Space((56, 56, 3), "uint8")
        }  # fmt: skip
        assert [note for note in env.notes if "left out mission" in note]
        env.reset(seed=5)
    worlds = [str(env.env.unwrapped) for env in views.values()]
    assert len(set(worlds)) == 1
    with pytest.raises(ValueError, match="`view` must be one of partial, full, cells; got 'top'"):
        make("MiniGrid-DoorKey-8x8-v0", options={"view": "top"})


@quiet
@pytest.mark.families
@needed["DeepMind Control"]
def test_a_task_of_the_suite_shows_what_was_asked_for():
    shows = {show: make("dm_control/cartpole-swingup-v0", size=32, options={"show": show})
             for show in ("image", "vectors", "both")}  # fmt: skip
    assert list(shows["image"].observations) == ["image"]
    assert shows["vectors"].observations == {
        "position": Space((3,), "float32"), "velocity": Space((2,), "float32")
    }  # fmt: skip
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
    assert main(["envs", "no-such-thing"]) == 1
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
