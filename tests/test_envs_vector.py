"""Environments side by side: the same whenever it is made, and whatever dies."""

import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from thinkslow.envs import Step, Unavailable, VectorEnv, make

FRAGILE = "tiny_envs:tiny/Fragile-v0"
KILL, RAISE = 1, 2  # actions of Fragile


def play(envs: VectorEnv, steps: int, seed: int = 0) -> list[Step]:
    """Harmless random actions."""
    rng = np.random.default_rng(seed)
    return [envs.step(rng.choice([0, 3], envs.count)) for _ in range(steps)]


def same(one: Step, other: Step) -> None:
    for name, array in one.observation.items():
        np.testing.assert_array_equal(array, other.observation[name])
    for name in Step._fields[1:]:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def pids(envs: VectorEnv) -> list[int]:
    return [worker.process.pid for worker in envs._workers]


def wait_until_gone(processes: list[int]) -> None:
    _, alive = psutil.wait_procs([psutil.Process(p) for p in processes if psutil.pid_exists(p)], 10)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def test_a_run_follows_from_its_seed():
    with VectorEnv(FRAGILE, 2, seed=1) as one, VectorEnv(FRAGILE, 2, seed=1) as again:
        for a, b in zip(
            [one.reset(), *play(one, 25)], [again.reset(), *play(again, 25)], strict=True
        ):
            same(a, b)
        assert one.state() == again.state()
        assert len({*one.state()["seeds"]}) == 2


def test_it_is_what_the_environment_alone_does():
    env = make(FRAGILE)
    with VectorEnv(FRAGILE, 2) as envs:
        step = envs.reset([3, 4])
        assert envs.observation_space == env.observations
        assert envs.action_space == env.action
        alone, _ = env.reset(seed=4)
        for action in (0, 3, 3, 0):
            np.testing.assert_array_equal(step.observation["image"][1], alone["image"])
            step = envs.step(np.array([3, action]))
            alone, reward, *_ = env.step(action)
            assert step.reward[1] == np.float32(reward)


def test_the_step_after_a_last_one_is_a_reset():
    with VectorEnv(FRAGILE, 1) as envs:
        steps = [envs.reset(), *play(envs, 20)]
    assert np.flatnonzero([s.is_first[0] for s in steps]).tolist() == [0, 10, 20]
    assert np.flatnonzero([s.is_last[0] for s in steps]).tolist() == [9, 19]
    assert not any(s.is_terminal[0] or s.crashed[0] for s in steps)
    assert [bool(s.reward[0]) for s in steps] == [not s.is_first[0] for s in steps]
    assert steps[0].reward.dtype == np.float32


def test_the_end_of_the_task_is_told_from_the_end_of_time():
    with VectorEnv("CartPole-v1", 1) as envs:
        envs.reset()
        while not (step := envs.step(np.array([0]))).is_last[0]:
            pass
    assert step.is_terminal[0]


def test_one_step_is_not_overwritten_by_the_next():
    with VectorEnv(FRAGILE, 1) as envs:
        first = envs.reset()
        image = first.observation["image"].copy()
        play(envs, 3)
        np.testing.assert_array_equal(first.observation["image"], image)


@pytest.mark.parametrize("action", [KILL, RAISE])
def test_a_death_ends_the_episode_marked_and_disturbs_nobody_else(action):
    with VectorEnv(FRAGILE, 2) as envs, VectorEnv(FRAGILE, 2) as calm:
        envs.reset()
        calm.reset()
        before = envs.step(np.array([0, 0])), calm.step(np.array([0, 0]))
        step, undisturbed = envs.step(np.array([3, action])), calm.step(np.array([3, 0]))
        assert step.is_last.tolist() == step.crashed.tolist() == [False, True]
        assert not step.is_terminal.any()
        assert step.reward[1] == 0
        seen = step.observation["image"]
        np.testing.assert_array_equal(seen[1], before[0].observation["image"][1])
        np.testing.assert_array_equal(seen[0], undisturbed.observation["image"][0])
        after = envs.step(np.array([0, 0]))
        assert after.is_first.tolist() == [False, True]
        assert not after.crashed.any()


def test_a_worker_killed_from_outside_is_replaced():
    with VectorEnv(FRAGILE, 2) as envs:
        envs.reset()
        os.kill(pids(envs)[0], signal.SIGKILL)
        assert envs.step(np.array([0, 0])).crashed.tolist() == [True, False]
        assert not any(step.crashed.any() for step in play(envs, 12))


def test_a_worker_that_dies_before_a_reset_costs_nothing():
    with VectorEnv(FRAGILE, 2) as envs, VectorEnv(FRAGILE, 2) as calm:
        os.kill(pids(envs)[1], signal.SIGKILL)
        same(envs.reset(), calm.reset())


def test_an_environment_that_keeps_dying_is_given_up_with_its_own_words():
    with VectorEnv(FRAGILE, 1) as envs:
        envs.reset()
        for _ in range(2):
            assert envs.step(np.array([RAISE])).crashed[0]
            assert envs.step(np.array([0])).is_first[0]
        with pytest.raises(RuntimeError, match="died 3 times in a row") as error:
            envs.step(np.array([RAISE]))
    assert "Fragile" in str(error.value)
    assert "ArithmeticError: a bug of the environment" in str(error.value)


def test_what_cannot_be_made_says_why():
    with pytest.raises(Unavailable, match="Did you mean"):
        VectorEnv("CartPole-v11", 2)
    with pytest.raises(RuntimeError, match="no memory for the map"):
        VectorEnv("tiny_envs:tiny/Unborn-v0", 2)


@pytest.mark.parametrize("steps", [0, 3, 9, 10, 14])
def test_a_restored_state_continues_as_if_nothing_had_happened(steps):
    with VectorEnv(FRAGILE, 2, seed=2) as envs:
        before = [envs.reset(), *play(envs, steps)][-1]
        state = json.loads(json.dumps(envs.state()))
        rest = play(envs, 12, seed=9)
    with VectorEnv(FRAGILE, 2, seed=2) as envs:
        same(envs.restore(state), before)
        assert envs.state() == state
        for one, other in zip(play(envs, 12, seed=9), rest, strict=True):
            same(one, other)


@pytest.mark.parametrize("steps", [0, 2])
def test_a_state_saved_at_a_crash_shows_what_was_seen_before_it(steps):
    # The action that killed was once replayed too, and changed the observation.
    with VectorEnv(FRAGILE, 2, seed=2) as envs:
        envs.reset()
        play(envs, steps)
        os.kill(pids(envs)[0], signal.SIGKILL)
        crash = envs.step(np.array([3, 3]))
        state, after = envs.state(), play(envs, 4)
    with VectorEnv(FRAGILE, 2, seed=2) as envs:
        restored = envs.restore(state)
        same(restored, crash)
        for one, other in zip(play(envs, 4), after, strict=True):
            same(one, other)


def test_continuous_actions_are_restored_exactly():
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 1, 2)).astype(np.float32)
    with VectorEnv("tiny_envs:tiny/Echo-v0", 1) as envs:
        envs.reset()
        last = [envs.step(action) for action in actions][-1]
        state = json.loads(json.dumps(envs.state()))
        same(envs.restore(state), last)


def test_wrong_numbers_and_wrong_order_are_refused():
    with pytest.raises(ValueError, match="`count` must be 1 or more; got 0"):
        VectorEnv(FRAGILE, 0)
    with VectorEnv(FRAGILE, 1) as envs:
        for too_early in (envs.state, lambda: envs.step(np.array([0]))):
            with pytest.raises(RuntimeError, match="Call `reset` first"):
                too_early()
        with pytest.raises(ValueError, match="`seeds` must be one per environment, 1; got 2"):
            envs.reset([1, 2])
        envs.reset()
        with pytest.raises(ValueError, match="`actions` must be one per environment, 1; got 2"):
            envs.step(np.array([0, 0]))
        state = envs.state()
    with pytest.raises(RuntimeError, match="closed"):
        envs.reset()
    with VectorEnv(FRAGILE, 2) as envs, pytest.raises(ValueError, match="of 1 environments"):
        envs.restore(state)


def test_closing_or_forgetting_ends_all_processes():
    envs = VectorEnv(FRAGILE, 2)
    closed = pids(envs)
    envs.close()
    envs.close()
    assert not any(psutil.pid_exists(pid) for pid in closed)
    forgotten = VectorEnv(FRAGILE, 1)
    left = pids(forgotten)
    del forgotten
    gc.collect()
    assert not any(psutil.pid_exists(pid) for pid in left)


def test_workers_ignore_ctrl_c():
    with VectorEnv(FRAGILE, 1) as envs:
        envs.reset()
        os.kill(pids(envs)[0], signal.SIGINT)
        assert not any(step.crashed[0] for step in play(envs, 3))


# No `if __name__ == "__main__"`: workers must not run the script again.
SCRIPT = """
import time
from thinkslow.envs import VectorEnv
envs = VectorEnv("CartPole-v1", 2)
envs.reset()
print(*[worker.process.pid for worker in envs._workers], flush=True)
time.sleep({sleep})
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", [True, False])
def test_workers_end_with_their_parent_however_it_ends(killed, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(sleep=60 if killed else 0))
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        if killed:
            parent.kill()
        assert parent.wait(20) == (-signal.SIGKILL if killed else 0)
        assert parent.stderr.read() == ""
    wait_until_gone(workers)
