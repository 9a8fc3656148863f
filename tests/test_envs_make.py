"""Any environment in one dress, and errors that say what to install."""

import dataclasses
import inspect
import json
import math
import os
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np
import pytest
import tiny_envs
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec

from thinkslow.cli import evaluate, train
from thinkslow.cli.playing import options
from thinkslow.cli.usage import Usage
from thinkslow.envs import Unavailable, VectorEnv, make, rendering, requirements
from thinkslow.envs.adapt import adapted
from thinkslow.envs.descriptions import described, described_environment
from thinkslow.envs.failures import Mismatch
from thinkslow.envs.families import atari
from thinkslow.envs.make import Environment
from thinkslow.spaces import Space

TASK = "thinkslow/CollectGoodObjects-v0"


def test_a_box_action_is_stretched_to_bounds_and_left_alone_without():
    env = make("tiny_envs:tiny/Echo-v0")
    assert env.action == Space((2,), "float32")
    env.reset(seed=0)
    for action, native in (([-1, -7], [0, -7]), ([0, 0.5], [5, 0.5]), ([3, 9], [10, 9])):
        observation, *_ = env.step(np.array(action, np.float32))
        np.testing.assert_array_equal(observation["vector"], np.array(native, np.float32))
    assert env.observation_space.contains(observation)


def test_a_dictionary_keeps_its_keys_and_discrete_values_start_at_zero():
    env = make("tiny_envs:tiny/Gears-v0", size=10)
    assert env.observations == {
        "camera": Space((10, 10, 3), "uint8"),
        "gear": Space((), "int32", 4),
        "speed": Space((), "float32"),
    }
    assert env.action == Space((), "int32", 3)
    observation, _ = env.reset(seed=0)
    assert observation["gear"] == 0
    observation, *_ = env.step(2)
    assert observation["gear"] == 2
    assert env.observation_space.contains(observation)


def test_an_image_of_another_size_is_averaged_over_areas():
    env = make("tiny_envs:tiny/Gears-v0", size=5)
    camera = env.reset(seed=0)[0]["camera"]
    np.testing.assert_array_equal(camera[0, :, 0], [0, 0, 100, 200, 200])


def test_repeating_an_action_adds_its_rewards_and_stops_at_the_end():
    env = make("tiny_envs:tiny/Echo-v0", repeat=3)
    env.reset(seed=0)
    first, second = env.step(np.zeros(2)), env.step(np.zeros(2))
    assert (first[1], first[3]) == (1 + 2 + 3, False)
    assert (second[1], second[3]) == (4 + 5, True)


def test_an_environment_may_reuse_its_arrays_and_write_into_its_action():
    """The frame before a repeated one was the same array, so their maximum was the last frame."""

    class Reuses(tiny_envs.Echo):
        observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
        action_space = spaces.Box(-10, 10, (1,), np.float32)
        frame = np.zeros((16, 16, 3), np.uint8)

        def reset(self, **options: Any) -> Any:
            super().reset(**options)
            self.frame[:] = 9
            return self.frame, {}

        def step(self, action: Any) -> Any:
            action *= 2
            self.frame[:] = 0
            self.frame[self.time] = action
            return self.frame, *super().step(action)[1:]

    env = Environment(Reuses(), "its-id", size=16, repeat=2, pools=True)
    first, _ = env.reset()
    second, *_ = env.step(np.array([0.2]))
    third, *_ = env.step(np.array([0.1]))
    assert first["image"].min() == 9
    assert second["image"][:4, 0, 0].tolist() == [4, 4, 0, 0]
    assert third["image"][:4, 0, 0].tolist() == [0, 0, 2, 2]


def test_a_pair_of_repeated_frames_is_shown_as_it_is():
    """A wrapper that adds a number to Atari's image ended in NumPy's words on ragged arrays."""
    shown = (np.full((16, 16, 3), 7, np.uint8), np.ones(2, np.float32))

    class Pair(tiny_envs.Echo):
        observation_space = spaces.Tuple(
            (spaces.Box(0, 255, (16, 16, 3), np.uint8), spaces.Box(0, 1, (2,)))
        )

        def reset(self, **options: Any) -> Any:
            super().reset(**options)
            return shown, {}

        def step(self, action: Any) -> Any:
            return shown, *super().step(action)[1:]

    env = Environment(Pair(), "its-id", size=16, repeat=2, pools=True)
    env.reset()
    seen, *_ = env.step(np.zeros(2))
    np.testing.assert_array_equal(seen["0"], shown[0])


def test_keys_that_are_numbers_are_named_by_them():
    numbered: Any = {0: spaces.Discrete(3), 1: spaces.Discrete(2)}

    class Numbered(tiny_envs.Echo):
        observation_space = spaces.Dict(numbered)
        action_space = spaces.Dict(numbered)

        def reset(self, **options: Any) -> Any:
            super().reset(**options)
            return {0: 2, 1: 1}, {}

        def step(self, action: Any) -> Any:
            return action, *super().step(0)[1:]

    env = Environment(Numbered(), "its-id")
    assert env.reset()[0] == {"0": 2, "1": 1}
    assert env.step({"0": 1, "1": 0})[0] == {"0": 1, "1": 0}


def test_actions_that_change_after_a_reset_are_refused_with_both():
    """An agent chose among those of the first space and never saw the others."""

    class Grows(tiny_envs.Echo):
        action_space = spaces.Discrete(2)

        def reset(self, **options: Any) -> Any:
            self.action_space = spaces.Discrete(5)
            return super().reset(**options)

    with pytest.raises(Mismatch, match=r"Discrete\(5\) after a reset .* Discrete\(2\)"):
        Environment(Grows(), "its-id").reset()


def test_actions_of_another_integer_type_stay_the_same():
    """They were compared with a copy of the usual type, and no episode began."""

    class Small(tiny_envs.Echo):
        action_space = spaces.Discrete(2, dtype=np.int32)

    Environment(Small(), "its-id").reset()


def test_actions_that_change_in_place_are_refused_too():
    """The space was compared with itself, and actions were scaled to bounds of before."""
    taken = spaces.Box(0.0, 1.0, (2,))

    class Widens(tiny_envs.Echo):
        action_space = taken

        def reset(self, **options: Any) -> Any:
            taken.high[:] = 10.0
            return super().reset(**options)

    with pytest.raises(Mismatch, match=r"Box\(0.0, 10.0, .* after a reset .* Box\(0.0, 1.0, "):
        Environment(Widens(), "its-id").reset()


@pytest.mark.parametrize("flag", ["False", None, np.array([True, False]), 2, np.nan, np.ma.masked])
@pytest.mark.parametrize("which", ["terminated", "truncated"])
def test_an_end_that_is_no_truth_value_is_refused(which: str, flag: Any):
    """A text is true, so that each episode was of one step, and its task ended."""

    class Ends(tiny_envs.Echo):
        def step(self, action: Any) -> Any:
            ends = {"terminated": False, "truncated": False} | {which: flag}
            return np.zeros(2), 1.0, *ends.values(), {}

    env = Environment(Ends(), "its-id")
    env.reset()
    with pytest.raises(Mismatch, match=f"`{which}` must be true or false"):
        env.step(np.zeros(2))


@pytest.mark.parametrize("flag", [np.bool_(True), 1, np.array([1.0], np.float16)])
def test_an_end_of_any_type_is_an_end(flag):
    class Ends(tiny_envs.Echo):
        def step(self, action: Any) -> Any:
            return np.zeros(2), 1.0, flag, np.array([[False]]), {}

    env = Environment(Ends(), "its-id")
    env.reset()
    assert env.step(np.zeros(2))[2:4] == (True, False)


def test_an_image_with_its_channels_first_is_turned():
    assert make("tiny_envs:tiny/ChannelsFirst-v0").observations["image"].shape == (64, 64, 3)


def test_several_actions_at_once_have_names():
    env = make("tiny_envs:tiny/Pairs-v0")
    assert env.actions == {"action/0": Space((), "int32", 2), "action/1": Space((), "int32", 3)}
    env.reset(seed=0)
    observation, *_ = env.step({"action/0": 1, "action/1": 2})
    np.testing.assert_array_equal(observation["vector"], [1, 2])
    with pytest.raises(Unavailable, match="2 actions at once"):
        _ = env.action


def test_arguments_reach_the_constructor_and_a_missing_one_is_named():
    levels = "tiny_envs:tiny/Levels-v0"
    with pytest.raises(Unavailable, match=r"the option level.*`options={\"level\": VALUE}`"):
        make(levels)
    env = make(levels, options={"level": 3})
    np.testing.assert_array_equal(env.reset()[0]["vector"], [3, 3])


@pytest.mark.parametrize(
    ("id", "accepts"),
    [
        ("tiny_envs:tiny/Levels-v0", "level"),
        ("tiny_envs:level_of", "level, kind"),
        ("tiny_envs:Deeper", "depth, level"),
        ("CartPole-v1", "render_mode"),
        ("thinkslow/CollectGoodObjects-v0", "decisions"),
    ],
)
def test_an_unknown_option_is_named_with_those_that_are_known(id, accepts):
    """It was said to be an error in thinkslow's own code."""
    with pytest.raises(Unavailable) as told:
        make(id, options={"levl": 3})
    assert f"{id} has no option levl." in str(told.value)
    assert accepts in str(told.value)
    assert "thinkslow's own code" not in str(told.value)


def test_a_wrapper_that_needs_more_than_the_environment_is_told_so():
    """It was said to be an error in thinkslow's own code."""
    with pytest.raises(Unavailable, match=r"tiny_envs:Scaled also needs factor.*alone"):
        make("tiny_envs:tiny/Levels-v0", options={"level": 3}, wrappers=["tiny_envs:Scaled"])


def registered_with(monkeypatch: pytest.MonkeyPatch, wrapper: str) -> str:
    """The id of an environment whose registration names a wrapper."""
    spec = WrapperSpec("its", f"tiny_envs:{wrapper}", {})
    monkeypatch.setattr(gymnasium.registry["tiny/Echo-v0"], "additional_wrappers", (spec,))
    return "tiny_envs:tiny/Echo-v0"


@pytest.mark.parametrize("registered", [False, True])
def test_a_wrapper_may_have_the_interface_before_gym_026(registered, monkeypatch):
    """Its four results were said to be an error in thinkslow's own code."""
    if registered:
        env = make(registered_with(monkeypatch, "Former"))
    else:
        env = make("tiny_envs:tiny/Echo-v0", wrappers=["tiny_envs:Former"])
    env.reset(seed=0)
    assert env.step(np.zeros(2))[1:4] == (1.0, False, False)
    said = " ".join(env.notes)
    for what in ("`reset` takes no seed", "only an observation", "one `done`"):
        assert what in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "must have `reset`; NoneType does not"),
        ("several", "several at once, SyncVectorEnv"),
    ],
)
def test_a_wrapper_that_gives_no_environment_is_refused_for_what_it_gives(name, said, monkeypatch):
    """Several at once were played as one of another shape."""
    with pytest.raises(Unavailable, match=said):
        make("tiny_envs:tiny/Echo-v0", wrappers=[f"tiny_envs:{name}"])
    with pytest.raises(Unavailable, match=said):
        make(registered_with(monkeypatch, name))


def test_an_error_of_a_constructor_stays_its_own():
    with pytest.raises(Unavailable, match=r"could not be made\. TypeError: int.*your code"):
        make("tiny_envs:Deeper", options={"level": 3, "depth": None})
    for name in ("id", "disable_env_checker"):
        with pytest.raises(Unavailable, match=f"no option {name}"):
            make("CartPole-v1", options={name: 1})


def test_a_class_or_a_function_makes_an_environment_without_a_registration():
    for name in ("Levels", "level_of"):
        env = make(f"tiny_envs:{name}", options={"level": 4})
        np.testing.assert_array_equal(env.reset(seed=0)[0]["vector"], [4, 4])
    with pytest.raises(Unavailable, match="'Livels'"):
        make("tiny_envs:Livels")
    with pytest.raises(Unavailable, match="must have `reset`; dict does not"):
        make("tiny_envs:level_of", options={"level": 4, "kind": "none"})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Teams", r"`observation_space` must be a space of Gymnasium; that of Teams is a method"),
        ("spaceless", r"that of Env is a NoneType\. Set it in the constructor"),
        ("vectorised", r"must be a single one; got several at once, SyncVectorEnv"),
    ],
)
def test_what_is_no_single_environment_is_refused_for_what_it_is(name, said):
    """It was called a fault of our own code, or told by the first step."""
    with pytest.raises(Unavailable, match=said) as refusal:
        make(f"tiny_envs:{name}")
    assert "own code" not in str(refusal.value)


def test_wrappers_are_put_around_in_their_order():
    doubled = "tiny_envs:Doubled"
    env = make("tiny_envs:tiny/Levels-v0", options={"level": 3}, wrappers=[doubled, doubled])
    np.testing.assert_array_equal(env.reset()[0]["vector"], [12, 12])
    for wrong, problem in (
        ("Doubled", "module:Class"),
        ("tiny_envs:Tripled", "no class Tripled"),
        ("tiny_envs:LENGTH", "no class LENGTH"),
    ):
        with pytest.raises(ValueError, match=problem):
            make("tiny_envs:tiny/Echo-v0", wrappers=[wrong])


def test_a_simulator_that_keeps_its_seed_in_31_bits_gets_one_that_it_takes():
    """Half of the seeds that follow from a run's are larger, and its resets failed."""

    class Small(tiny_envs.Echo):
        def reset(self, *, seed=None, options=None):
            if seed is not None and seed >= 2**31:
                raise ValueError("Seed must be between 0 and 2**31 - 1")
            self.given = seed
            return super().reset(seed=seed)

    class Broken(tiny_envs.Echo):
        def reset(self, *, seed=None, options=None):
            raise ValueError("its map is missing")

    inner = Small()
    env = Environment(adapted(inner, lambda _: None), "small")
    for seed, given in ((5, 5), (2**31 - 1, 2**31 - 1), (2**31 + 5, 5), (2**32 - 1, 2**31 - 1)):
        env.reset(seed=seed)
        assert inner.given == given
    said: list[str] = []
    adapted(inner, said.append).reset(seed=2**31)
    assert [line for line in said if "without their highest bit" in line]
    with pytest.raises(ValueError, match="map"):
        adapted(Broken(), said.append).reset(seed=2**31)


def test_the_interface_before_gym_026_is_adapted_and_said():
    env = make("tiny_envs:tiny/Old-v0")
    observation, info = env.reset(seed=57)
    np.testing.assert_array_equal(observation["vector"], [7, 7])
    assert info == {}
    ends = [env.step(np.zeros(2))[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]
    # Once each: a note of every step filled the memory of a long episode.
    assert len([note for note in env.notes if "seed" in note]) == 1
    assert len([note for note in env.notes if "done" in note]) == 1


@pytest.mark.parametrize("info", [None, MappingProxyType({"a": 1}), {"a": 1}, {}])
@pytest.mark.parametrize("kind", [tuple, list])
def test_a_reset_may_return_its_info_in_any_form(monkeypatch, kind, info):
    """With None for info, the pair was taken for an observation of rows of different lengths."""
    monkeypatch.setattr(tiny_envs.Echo, "reset", lambda self, **_: kind([np.zeros(2), info]))
    env = make("tiny_envs:tiny/Echo-v0")
    observation, found = env.reset(seed=0)
    np.testing.assert_array_equal(observation["vector"], [0, 0])
    assert found == (info or {})
    assert not env.notes


def test_a_pair_that_is_an_observation_is_no_observation_and_info(monkeypatch):
    pair = spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Dict(a=spaces.Discrete(3))))
    monkeypatch.setattr(tiny_envs.Echo, "observation_space", pair)
    monkeypatch.setattr(tiny_envs.Echo, "reset", lambda self: (np.zeros(2), {"a": 2}))
    observation, info = make("tiny_envs:tiny/Echo-v0").reset()
    assert (observation["1/a"], info) == (2, {})


@pytest.mark.parametrize("info", [None, [{}], {"TimeLimit.truncated": False}])
def test_the_info_of_an_old_step_may_be_anything(monkeypatch, info):
    """It ended in AttributeError, in thinkslow's own code."""
    env = make("tiny_envs:tiny/Old-v0")
    env.reset(seed=0)
    monkeypatch.setattr(tiny_envs.Old, "step", lambda self, action: (np.zeros(2), 1, True, info))
    assert env.step(np.zeros(2))[2:4] == (True, False)


def test_a_step_may_return_any_mapping_as_its_info(monkeypatch):
    """One that is no dict was dropped."""
    played = (np.zeros(2), 0.0, False, False, MappingProxyType({"a": 1}))
    monkeypatch.setattr(tiny_envs.Echo, "step", lambda self, action: played)
    env = make("tiny_envs:tiny/Echo-v0")
    env.reset(seed=0)
    assert env.step(np.zeros(2))[4] == {"a": 1}


@pytest.mark.parametrize("returned", [None, 3, (0, 0.0, False)])
def test_a_step_that_returns_something_else_is_refused(monkeypatch, returned):
    env = make("tiny_envs:tiny/Echo-v0")
    env.reset(seed=0)
    monkeypatch.setattr(tiny_envs.Echo, "step", lambda self, action: returned)
    with pytest.raises(Mismatch, match="must return 5 values"):
        env.step(np.zeros(2))


def test_a_module_is_found_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "lies_here.py").write_text(
        "import gymnasium, tiny_envs\ngymnasium.register('here/Echo-v0', 'tiny_envs:Echo')\n"
    )
    (tmp_path / "broken_here.py").write_text("import nobody_has_this\n")
    (tmp_path / "wrong_here.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    assert make("lies_here:here/Echo-v0").action.shape == (2,)
    with pytest.raises(Unavailable, match=rf"no module lie_here: looked in {tmp_path}.*lies_here"):
        make("lie_here:here/Echo-v0")
    with pytest.raises(Unavailable, match=r"dots and without \.py, here inner\.lies"):
        make("./inner/lies_here.py:here/Echo-v0")
    with pytest.raises(Unavailable, match=r"broken_here failed.*'nobody_has_this'.*your code"):
        make("broken_here:here/Echo-v0")
    with pytest.raises(Unavailable, match=r"wrong_here failed: SyntaxError.*wrong_here.py:1"):
        make("wrong_here:here/Echo-v0")
    mine, theirs = tmp_path / "mine", Path(sys.prefix) / "lib"
    monkeypatch.setenv("PYTHONPATH", f"{theirs}{os.pathsep}{mine}")
    with pytest.raises(Unavailable, match=rf"looked in {tmp_path}, {mine} and in the installed"):
        make("nobody_has_this:here/Echo-v0")


def test_a_package_that_the_environments_own_code_misses_is_named_with_its_command():
    with pytest.raises(Unavailable, match=r"a_package_that_nobody_has'.*in __init__.*pip install"):
        make("tiny_envs:tiny/Lost-v0")
    with pytest.raises(Unavailable, match=r"Lazy could not .*a_package_that_nobody_has.*install"):
        make("tiny_envs:tiny/Echo-v0", wrappers=["tiny_envs:Lazy"])


def test_the_command_to_install_is_for_the_python_that_runs(monkeypatch, tmp_path):
    clone = Path(requirements.__file__).parents[3]
    monkeypatch.setattr(sys, "prefix", str(clone / ".venv"))
    monkeypatch.chdir(clone)
    assert requirements.install("ale-py") == "./uvw pip install ale-py"
    monkeypatch.chdir(tmp_path)
    assert requirements.install("ale-py") == f"{clone}/uvw pip install ale-py"
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert requirements.install("ale-py").startswith(("pip install", "uv pip install --python"))


@pytest.mark.parametrize("options", [{"size": 0}, {"repeat": 0}])
def test_impossible_sizes_are_refused(options):
    with pytest.raises(ValueError, match="must be 1 or more; got 0"):
        make(TASK, **options)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("options", 5, "a mapping; got 5"),
        ("wrappers", "module:Class", "a list of texts; got 'module:Class'"),
        ("image", [3], r"a list of texts; got \[3\]"),
        ("repeat", 2.5, "an integer; got 2.5"),
        ("size", True, "an integer; got True"),
        ("shift", None, "a text; got None"),
        ("id", 5, "a text; got 5"),
    ],
)
def test_a_setting_of_another_type_is_named_before_a_process_starts(name, value, said):
    """It was "'int' object is not iterable, in thinkslow's own code"."""
    making = {"id": "CartPole-v1", name: value}
    with pytest.raises(TypeError, match=f"`{name}` of an environment must be {said}"):
        VectorEnv(**making, count=1)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("id", gymnasium.Env, "a text; got <class"),
        ("wrappers", [gymnasium.Wrapper], "a list of texts; got"),
        ("repeat", "4", "an integer; got '4'"),
    ],
)
def test_make_names_a_setting_of_another_type_too(name, value, said):
    """It was that a type object has no attribute 'rpartition'."""
    making: dict[str, Any] = {"id": "CartPole-v1", name: value}
    with pytest.raises(TypeError, match=f"`{name}` of an environment must be {said}"):
        inspect.unwrap(make)(**making)  # without the types that only the tests check


@pytest.mark.parametrize("count", ["2", 2.0, None])
def test_a_number_of_environments_of_another_type_is_named(count):
    with pytest.raises(TypeError, match="`count` must be an integer; got"):
        inspect.unwrap(VectorEnv.__init__)(object.__new__(VectorEnv), "CartPole-v1", count)


def test_options_may_be_numbers_of_numpy():
    """Of a loop over an array, say: they were an 'Object of type bool' that is not JSON."""
    options = {"flag": np.bool_(True), "range": (np.float64(0.5), [np.int8(3)])}
    found = described_environment({"id": "Any-v0", "repeat": np.int64(2), "options": options})
    assert json.dumps(found["options"]) == '{"flag": true, "range": [0.5, [3]]}'
    assert type(found["repeat"]) is int


def test_options_of_other_classes_reach_the_environment_as_they_are():
    """A dictionary with attributes, as configurations are, became a plain one."""
    date = np.datetime64("2026-11-28", "ns")  # whose number alone says no unit

    class Config(dict[str, Any]):
        __getattr__ = dict.__getitem__

    config = Config(level=np.int8(3))
    found = described(
        {"id": "Any-v0", "options": MappingProxyType({"config": config, "start": date})}
    )
    assert type(found["options"]) is dict
    assert found["options"]["config"] is config
    assert found["options"]["start"] is date


def test_options_that_cannot_be_recorded_are_refused_by_name():
    for value in (len, np.zeros(2), {3}):
        with pytest.raises(TypeError, match=r"`options` of an environment are recorded.*type"):
            described_environment({"id": "Any-v0", "options": {"a": value}})
    with pytest.raises(ValueError, match="must not hold NaN"):
        described_environment({"id": "Any-v0", "options": {"a": [np.nan]}})


def test_an_unknown_id_names_the_nearest():
    with pytest.raises(Unavailable, match=r"Did you mean .*thinkslow/CollectGoodObjects-v0"):
        make("thinkslow/ColectGoodObjects-v0")
    with pytest.raises(Unavailable, match="no_such_module"):
        make("no_such_module:Task-v0")
    # It was not said that the module was found, nor which one it is.
    with pytest.raises(Unavailable, match=r"tiny_envs \(.*tiny_envs.py\) registers.*mean Ech?o"):
        make("tiny_envs:Eco")
    with pytest.raises(Unavailable, match=r"mean .*tiny/Hangs-v0"):
        make("tiny_envs:tiny/Hang-v0")
    with pytest.raises(Unavailable, match=r"of that name\. Register it there, or name what it has"):
        make("tiny_envs:xyzzy")


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    absent = dataclasses.replace(atari.FAMILY, module="absent_package")
    monkeypatch.setattr(requirements, "FAMILIES", (absent,))
    with pytest.raises(Unavailable, match=r"needs the Python package absent_package.*pip install"):
        make("ALE/Pong-v5")


def test_exactly_the_missing_debian_packages_are_named(monkeypatch):
    monkeypatch.setattr(rendering, "loads", lambda library: library == "libGL.so.1")
    monkeypatch.setattr(rendering, "DRIVERS", ())
    with pytest.raises(Unavailable) as error:
        make(TASK)
    assert str(error.value) == (
        f"{TASK} draws with OpenGL and this machine lacks libegl1, libglu1-mesa, "
        "libfreetype6, libfontconfig1, libgl1-mesa-dri. Install on Debian or Ubuntu: "
        "sudo apt-get install -y libegl1 libglu1-mesa libfreetype6 libfontconfig1 libgl1-mesa-dri"
    )


def test_a_simulator_that_fails_is_named_with_where_to_look(monkeypatch):
    """A broken driver used to end in the simulator's own words, without a remedy."""

    def broken(*_: object, **__: object) -> None:
        raise OSError("no usable config")

    monkeypatch.setattr(gymnasium, "make", broken)
    with pytest.raises(Unavailable, match=r"could not open a renderer here: OSError.*doctor"):
        make(TASK)
    with pytest.raises(Unavailable, match=r"could not be made\. OSError: no usable config"):
        make("CartPole-v1")  # draws nothing: its own words are all there is to say


def test_a_simulator_that_prints_leaves_the_output_alone(capsys):
    """`Falling back to num_samples=4` stood twice before the first decision of an example."""
    make("thinkslow/CollectGoodObjects-v0").close()
    assert capsys.readouterr().out == ""


def test_a_package_that_the_simulator_misses_is_told_in_its_own_words(monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed, pip install swig")

    monkeypatch.setattr(gymnasium, "make", broken)
    with pytest.raises(Unavailable, match=r"Box2D"):
        make("CartPole-v1")


def test_a_driver_elsewhere_is_no_reason_to_refuse(monkeypatch):
    monkeypatch.setattr(rendering, "loads", lambda library: library != rendering.NVIDIA)
    monkeypatch.setattr(rendering, "DRIVERS", ())
    assert rendering.missing_packages() == []


@pytest.mark.usefixtures("untyped")
def test_a_space_survives_json_and_refuses_nonsense():
    space = Space((3,), "int32", 4)
    assert Space.from_json(space.to_json()) == space
    with pytest.raises(ValueError, match="`classes` must be 1 or more"):
        Space((), "int32", 0)
    with pytest.raises(ValueError, match="A space has the keys"):
        Space.from_json({"shape": []})
    sound = {"shape": [3], "dtype": "float32", "classes": None}
    for wrong in (
        {"shape": 3},
        {"shape": [2.5]},
        {"shape": [True]},
        {"dtype": "object"},
        {"dtype": None},
        {"classes": 2.5},
        {"classes": True},
        {"shape": [-1]},
    ):
        with pytest.raises(ValueError, match=r"must|list of sizes"):
            Space.from_json(sound | wrong)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(0.7, inf)", [0.7, math.inf]),
        ("-inf", -math.inf),
        (".5", 0.5),
        ("+3", 3),
        ("1_000", 1000),
        ("[True, 'a']", [True, "a"]),
        ("{'a': (1,)}", {"a": [1]}),
        ("'q'", "'q'"),
        ("1,2", "1,2"),
        ("2024-10", "2024-10"),
        ("10.0.0.1", "10.0.0.1"),
        ("007", "007"),
        ("{1, 2}", "{1, 2}"),
        ("3j", "3j"),
        ("(a)", "(a)"),
        ("__import__('os')", "__import__('os')"),
        (r"C:\d", r"C:\d"),
        ("", ""),
        ("(" * 5000, "(" * 5000),
    ],
)
def test_an_option_may_be_written_as_in_python(text, value):
    """`healthy_z_range=(0.7, inf)`, as its documentation has it, reached the robot as a text."""
    (found,) = options((f"name={text}",)).values()
    assert (type(found), found) == (type(value), value)


def test_how_an_environment_is_made_can_be_said_on_the_command_line():
    words = [
        "--env-option",
        "level=3",
        "--env-option",
        "mode=hard",
        "--wrapper",
        "m:W",
        "--image",
        "k",
        "--shift",
        "dropped:3",
    ]
    made = {
        "options": {"level": 3, "mode": "hard"},
        "wrappers": ["m:W"],
        "image": ["k"],
        "shift": "dropped:3",
    }
    assert evaluate.parse(["AGENT", *words]).making() == made
    assert train.parse(["ENV", "--steps", "9", *words]).making() == made
    assert evaluate.parse(["AGENT"]).making() == {}
    for wrong in ("level", "=3", "a b=3"):
        with pytest.raises(Usage, match="NAME=VALUE"):
            evaluate.parse(["AGENT", "--env-option", wrong]).making()
    with pytest.raises(Usage, match="level was given twice"):
        evaluate.parse(["AGENT", *words, "--env-option", "level=4"]).making()
    with pytest.raises(Usage, match=r"--step-limit.*got 0"):
        train.parse(["ENV", "--steps", "9", "--step-limit", "0"])


SIMULATOR = """
import gymnasium, numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec

class Emulator:
    frames = 0
    def getFrameNumber(self):
        return self.frames

class AtariEnv(gymnasium.Env):
    observation_space, action_space = spaces.Box(0, 1, (2,)), spaces.Discrete(2)
    def __init__(self, game="pong", frameskip=4):
        self.ale, self._frameskip = Emulator(), frameskip
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}
    def step(self, action):
        self.ale.frames += self._frameskip
        return np.zeros(2, np.float32), float(self._frameskip), False, False, {}

class Mine(AtariEnv):
    def __init__(self):
        super().__init__(frameskip=3)

class Twice(gymnasium.Wrapper):
    def step(self, action):
        self.env.step(action)
        return self.env.step(action)

def function(**options):
    return gymnasium.Wrapper(AtariEnv(**options))

for name, made, given in (
    ("Text", "ale_py:AtariEnv", {}), ("Given", "ale_py:AtariEnv", {"frameskip": 4}),
    ("Class", AtariEnv, {}), ("Function", function, {}), ("Once", AtariEnv, {"frameskip": 1}),
):
    gymnasium.register(f"users-{name}-v0", made, kwargs=given)
"""


@pytest.fixture
def simulator(tmp_path, monkeypatch):
    """A stand-in for the Arcade Learning Environment, which repeats actions itself."""
    (tmp_path / "ale_py.py").write_text(SIMULATOR)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "ale_py", None)  # to be put back as it was
    del sys.modules["ale_py"]
    yield
    for id in [one for one in gymnasium.registry if one.startswith("users-")]:
        del gymnasium.registry[id]


def frames(env: Environment) -> int:
    base: Any = env.env.unwrapped
    env.reset(seed=0)
    env.step(0)
    return base.ale.frames


@pytest.mark.parametrize("name", ["Text", "Given", "Class", "Function", "AtariEnv", "Mine"])
def test_frames_are_not_repeated_twice_however_the_simulator_was_made(simulator, name):
    """Registrations, classes and functions of users repeated 16 frames, and nothing said so."""
    id = f"ale_py:{name}" if name in ("AtariEnv", "Mine") else f"ale_py:users-{name}-v0"
    env = make(id, repeat=4)
    assert frames(env) == 4
    assert len([note for note in env.notes if "frameskip=1" in note]) == len(env.notes) == 1
    alone = make(id)
    assert (frames(alone), alone.notes) == (3 if name == "Mine" else 4, [])


def test_frames_that_were_asked_for_twice_are_said(simulator):
    asked = make("ale_py:AtariEnv", repeat=4, options={"frameskip": 4})
    wrapped = make("ale_py:users-Once-v0", repeat=4, wrappers=["ale_py:Twice"])
    assert (frames(asked), frames(wrapped)) == (16, 8)
    assert ["16 frames, not the 4" in note for note in asked.notes] == [True]
    assert ["8 frames, not the 4" in note for note in wrapped.notes] == [True]
