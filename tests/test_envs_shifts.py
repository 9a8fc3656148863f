"""Shifts: nothing at severity 0, the same for a seed, more with severity, and as they are named."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from thinkslow.envs import VectorEnv, make
from thinkslow.envs.make import Environment
from thinkslow.envs.shifts import SHIFTS, lateness, shifts
from thinkslow.envs.shifts.frames import Dropped
from thinkslow.spaces import Space

COUNTING = "counting:thinkslow-test/Counting-v0"
PICTURES = sorted(
    name for name, kind in SHIFTS.items() if kind.pictured and not issubclass(kind, Dropped)
)
LONG = 2000


class Clock(gymnasium.Env):
    """Shows the time, and the action that came; a picture of one colour."""

    observation_space = spaces.Dict(
        time=spaces.Box(0, np.inf, (), np.float32),
        action=spaces.Discrete(9),
        image=spaces.Box(0, 255, (32, 32, 3), np.uint8),
    )
    action_space = spaces.Discrete(9)

    def resize(self, factor: float) -> None:
        self.base = round(20 * factor)

    def cover(self, rng: np.random.Generator, count: int) -> None:
        self.base = count + rng.integers(3)

    base = 0

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        self.time = 0
        return self._see(0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self._see(action), 1.0, False, False, {}

    def _see(self, action: int) -> dict[str, Any]:
        image = np.full((32, 32, 3), [90 + self.base, 140, 100], np.uint8)
        image[8:24, 8:24] = [200, 40, 60]
        return {"time": np.float32(self.time), "action": action, "image": image}


def play(shift: str, steps: int = 60, seed: int = 3) -> dict[str, np.ndarray]:
    """What was seen, stacked; action t is t modulo 9."""
    player = Environment(Clock(), "clock", size=32, shift=shift)
    seen = [player.reset(seed=seed)[0]]
    seen += [player.step(time % 9)[0] for time in range(1, steps + 1)]
    assert all(player.observation_space.contains(one) for one in (seen[0], seen[-1]))
    return {name: np.stack([one[name] for one in seen]) for name in seen[0]}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", SHIFTS)
def test_severity_zero_is_no_shift(name):
    assert same(play(f"{name}:0"), play(""))


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_follows_from_the_seed(name):
    one = play(f"{name}:3")
    assert same(one, play(f"{name}:3"))
    assert same(one, play(f"{name}-v1:3"))
    assert not same(one, play(""))
    if name not in ("blur", "contrast", "delayed"):  # these draw nothing
        assert any(not same(one, play(f"{name}:3", seed=seed)) for seed in range(4, 8))


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_differ_more_with_severity(name):
    clean = play("")["image"].astype(float)
    errors = [
        np.mean(
            [
                np.abs(play(f"{name}:{level}", 20, seed)["image"] - clean[:21]).mean()
                for seed in range(4)
            ]
        )
        for level in range(6)
    ]
    assert errors[0] == 0
    assert (np.diff(errors) > 0).all(), errors


@pytest.mark.parametrize("name", PICTURES)
def test_other_observations_are_left_alone(name):
    one, clean = play(f"{name}:5"), play("")
    np.testing.assert_array_equal(one["time"], clean["time"])
    assert "missing" not in one


@pytest.mark.parametrize(("level", "share"), [(1, 0.1), (2, 0.25), (3, 0.5), (4, 0.75), (5, 0.9)])
@pytest.mark.parametrize("name", ["dropped", "dropped-bursts"])
def test_frames_are_dropped_in_their_share_and_told(name, level, share):
    seen = play(f"{name}:{level}", LONG)
    missing = seen["missing"].astype(bool)
    assert not missing[0]
    # 2,000 frames, or 400 bursts: four standard deviations.
    count = LONG / (5 if "bursts" in name else 1)
    assert abs(missing.mean() - share) < 4 * np.sqrt(share * (1 - share) / count) + 0.002
    assert (seen["time"][missing] == 0).all()
    assert (seen["image"][missing] == 0).all()
    np.testing.assert_array_equal(seen["time"][~missing], np.arange(LONG + 1)[~missing])
    runs = np.diff(np.flatnonzero(np.diff(np.r_[0, missing, 0])))[::2]
    if "bursts" in name:
        assert all(run % 5 == 0 for run in runs[:-1])
    else:
        assert 1 in runs
    silent = play(f"{name}-silent:{level}", 100)
    assert "missing" not in silent


@pytest.mark.parametrize("late", [1, 2, 5])
def test_frames_come_late_by_the_severity(late):
    seen = play(f"delayed:{late}")
    np.testing.assert_array_equal(seen["time"], np.maximum(np.arange(61) - late, 0))
    np.testing.assert_array_equal(seen["age"], np.minimum(np.arange(61), late))


def test_frames_that_come_late_at_random_never_go_back():
    seen = play("delayed-random:4", LONG)
    age = np.arange(LONG + 1) - seen["time"]
    np.testing.assert_array_equal(seen["age"], age)
    assert (np.diff(seen["time"]) >= 0).all()
    assert set(age.astype(int)) == {0, 1, 2, 3, 4}


def test_sticky_actions_repeat_the_one_before_as_often_as_said():
    taken = play("sticky:2", LONG)["action"][1:]
    wanted = np.arange(1, LONG + 1) % 9
    stuck = taken[1:] == taken[:-1]
    assert (taken[1:][~stuck] == wanted[1:][~stuck]).all()
    assert abs(stuck.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / LONG)


def test_other_textures_are_of_the_same_world():
    task = "thinkslow/CollectGoodObjects-v0"
    plain, other = make(task, size=32), make(task, size=32, shift="textures:5")
    one, two = plain.reset(seed=4)[0], other.reset(seed=4)[0]
    for action in np.random.default_rng(0).choice(3, 60, p=[0.2, 0.2, 0.6]):
        assert not np.array_equal(one["image"], two["image"])
        (one, *mine), (two, *theirs) = plain.step(action), other.step(action)
        assert mine == theirs
    first = [other.reset(seed=seed)[0]["image"] for seed in (4, 5, 4)]
    np.testing.assert_array_equal(first[0], first[2])
    with pytest.raises(ValueError, match="method `cover"):
        make("CartPole-v1", shift="textures:1")


def test_the_rooms_of_any_task_of_miniworld_can_be_covered_anew():
    task = "MiniWorld-OneRoom-v0"
    plain, other = make(task, size=32), make(task, size=32, shift="textures:5")
    (one, _), (two, _) = plain.reset(seed=4), other.reset(seed=4)
    assert not np.array_equal(one["image"], two["image"])
    for action in np.random.default_rng(0).integers(3, size=30):
        (_, *mine), (_, *theirs) = plain.step(action), other.step(action)
        assert mine == theirs
    np.testing.assert_array_equal(other.reset(seed=4)[0]["image"], two["image"])


def test_rooms_become_larger_or_smaller_for_an_episode():
    task = "thinkslow/CollectGoodObjects-v0"
    env = make(task, size=32, shift="rooms:5")
    world: Any = env.env.unwrapped
    halves, firsts = [], []
    for seed in (0, 1, 2, 3, 4, 5, 0):
        firsts.append(env.reset(seed=seed)[0]["image"])
        halves.append(world.half)
        for action in np.random.default_rng(seed).choice(3, 40, p=[0.2, 0.2, 0.6]):
            env.step(action)
        assert np.abs([thing.pos for thing in world.things]).max() < world.half
    assert sorted({round(half / 4.65, 6) for half in halves}) == [round(1 / 1.5, 6), 1.5]
    np.testing.assert_array_equal(firsts[0], firsts[-1])
    with pytest.raises(ValueError, match="method `resize"):
        make("MiniWorld-OneRoom-v0", size=32, shift="rooms:1")


def test_hues_turn_round_grey():
    turned = play("colour:5")["image"][0].astype(float)
    clean = play("")["image"][0].astype(float)
    # 120 degrees are a change of channels, to one side or the other.
    assert any(np.abs(turned - np.roll(clean, by, -1)).max() <= 1 for by in (1, 2))


def test_shifts_act_one_after_the_other():
    seen = play("dropped:3,delayed:2")
    missing = seen["missing"].astype(bool)
    np.testing.assert_array_equal(seen["age"][2:], 2)
    assert (seen["time"][missing] == 0).all()
    clean = play("dropped:3")["missing"]
    np.testing.assert_array_equal(seen["missing"][2:], clean[:-2])


@pytest.mark.parametrize(
    ("shift", "problem"),
    [
        ("fog:2", "Available: .*noise"),
        ("nois:2", "mean noise"),
        ("noise:6", "0 to 5"),
        ("noise", "NAME:SEVERITY"),
        ("noise:-1", "0 to 5"),
        ("noise-v2:3", "has version 1"),
        ("dropped:1,dropped:2", "missing is there"),
    ],
)
def test_a_shift_that_is_not_one_is_refused(shift, problem):
    with pytest.raises(ValueError, match=problem):
        make(COUNTING, size=16, shift=shift)


def test_a_misspelt_delay_is_not_taken_for_no_delay():
    """It was 0, and its name was refused only by the processes of the environments."""
    with pytest.raises(ValueError, match="mean delayed"):
        lateness("delayd:2")


def test_a_shift_of_pictures_wants_a_picture():
    with pytest.raises(ValueError, match="no image, only vector"):
        shifts("noise:1", {"vector": Space((3,), "float32")})


def test_a_shifted_episode_is_restored_by_replay():
    with VectorEnv(COUNTING, 2, seed=4, size=16, shift="dropped:3,noise:2,sticky:2") as envs:
        envs.reset()
        rng = np.random.default_rng(0)
        last = [envs.step(rng.integers(3, size=2)) for _ in range(6)][-1]
        assert "missing" in envs.observation_space
        again = envs.restore(envs.state())
        assert again.errors == (None, None)
        for name, array in last.observation.items():
            np.testing.assert_array_equal(array, again.observation[name])


def test_a_coloured_cover_keeps_its_colour_for_as_long_as_its_place():
    (shift,) = shifts("occlusion-coloured:3", {"image": Space((10, 10, 3), "uint8")})
    shift.begin(4)
    shown = [shift.see({"image": np.zeros((10, 10, 3), np.uint8)})["image"] for _ in range(20)]
    colours = []
    for frame in shown:
        (colour,) = {tuple(pixel) for pixel in frame[frame.any(-1)].tolist()}
        assert frame.any(-1).sum() == 16
        colours.append(colour)
    assert [len(set(colours[:10])), len(set(colours[10:])), len(set(colours))] == [1, 1, 2]


@pytest.mark.parametrize("fill", ["coloured", "noise"])
def test_lost_frames_that_are_not_black_are_lost_as_often_and_not_told(fill):
    seen = play(f"dropped-bursts-silent-{fill}:3", LONG)
    assert "missing" not in seen
    lost = seen["time"][1:] == 0
    assert abs(lost.mean() - 0.5) < 4 * np.sqrt(0.25 / (LONG / 5)) + 0.002
    np.testing.assert_array_equal(
        (seen["image"] != play("", LONG)["image"]).any((1, 2, 3))[1:], lost
    )
    assert (seen["image"][1:][lost] != 0).any((1, 2, 3)).all()


def test_a_lost_frame_shows_the_colour_of_its_episode():
    colours = []
    for seed in range(4):
        seen = play("dropped-bursts-silent-coloured:3", seed=seed)
        lost = seen["image"][1:][seen["time"][1:] == 0]
        (colour,) = {tuple(pixel) for pixel in lost.reshape(-1, 3).tolist()}
        colours.append(colour)
    assert len(set(colours)) == 4


def test_noise_in_the_place_of_a_lost_frame_is_uniform_and_new_in_each():
    seen = play("dropped-bursts-silent-noise:3", LONG)
    lost = seen["image"][1:][seen["time"][1:] == 0].astype(float)
    assert not np.array_equal(lost[0], lost[1])
    # About three million pixels: five standard deviations.
    assert abs(lost.mean() - 127.5) < 5 * 73.9 / np.sqrt(lost.size)
    assert [lost.min(), lost.max()] == [0, 255]


def test_a_lost_frame_of_any_number_of_channels_has_a_colour():
    (shift,) = shifts("dropped-bursts-silent-coloured:5", {"image": Space((4, 4, 6), "uint8")})
    shift.begin(1)
    shown = [shift.see({"image": np.zeros((4, 4, 6), np.uint8)})["image"] for _ in range(20)]
    (colour,) = {tuple(pixel) for frame in shown for pixel in frame[frame.any(-1)].tolist()}
    assert colour[:3] == colour[3:]


@pytest.mark.parametrize("fill", ["coloured", "noise"])
def test_lost_frames_that_are_not_black_want_a_picture(fill):
    with pytest.raises(ValueError, match="no image, only vector"):
        shifts(f"dropped-bursts-silent-{fill}:3", {"vector": Space((3,), "float32")})
