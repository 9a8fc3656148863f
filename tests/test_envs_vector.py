"""Environments side by side: the same whenever it is made, and whatever dies."""

import gc
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from helpers import slow
from odd_episodes import id_of, importable

from thinkslow import ending, standard_streams
from thinkslow.envs import (
    Failed,
    Mismatch,
    Nonfinite,
    Step,
    Unavailable,
    VectorEnv,
    make,
    worker,
)
from thinkslow.envs.failures import ended, failure

FRAGILE = "tiny_envs:tiny/Fragile-v0"
KILL, RAISE = 1, 2  # actions of Fragile


def play(envs: VectorEnv, steps: int, seed: int = 0) -> list[Step]:
    """Harmless random actions."""
    rng = np.random.default_rng(seed)
    return [envs.step(rng.choice([0, 3], envs.count)) for _ in range(steps)]


def same(one: Step, other: Step) -> None:
    for name, array in one.observation.items():
        np.testing.assert_array_equal(array, other.observation[name])
    assert (one.errors, one.nonfinite) == (other.errors, other.nonfinite)
    for name in ("reward", "is_first", "is_last", "is_terminal", "crashed"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def wait_until_gone(processes: list[int]) -> None:
    _, alive = psutil.wait_procs([psutil.Process(p) for p in processes if psutil.pid_exists(p)], 10)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def fragile():
    """Two environments for many tests, whose workers may die: starting one costs 0.2 s."""
    with VectorEnv(FRAGILE, 2, seed=2) as envs:
        yield envs


@pytest.fixture(scope="module")
def calm():
    """Two more, which nothing disturbs."""
    with VectorEnv(FRAGILE, 2) as envs:
        yield envs


def test_a_run_follows_from_its_seed():
    with VectorEnv(FRAGILE, 2, seed=1) as one, VectorEnv(FRAGILE, 2, seed=1) as again:
        for a, b in zip(
            [one.reset(), *play(one, 25)], [again.reset(), *play(again, 25)], strict=True
        ):
            same(a, b)
        assert one.state() == again.state()
        assert len({*one.state()["seeds"]}) == 2


def test_it_is_what_the_environment_alone_does(calm):
    env = make(FRAGILE)
    step = calm.reset([3, 4])
    assert calm.observation_space == env.observations
    assert calm.action_space == env.action
    alone, _ = env.reset(seed=4)
    for action in (0, 3, 3, 0):
        np.testing.assert_array_equal(step.observation["image"][1], alone["image"])
        step = calm.step(np.array([3, action]))
        alone, reward, *_ = env.step(action)
        assert step.reward[1] == np.float32(reward)


def test_the_step_after_a_last_one_is_a_reset(calm):
    steps = [calm.reset(), *play(calm, 20)]
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


def test_one_step_is_not_overwritten_by_the_next(calm):
    first = calm.reset()
    image = first.observation["image"].copy()
    play(calm, 3)
    np.testing.assert_array_equal(first.observation["image"], image)


@pytest.mark.parametrize("action", [KILL, RAISE])
def test_a_death_ends_the_episode_marked_and_disturbs_nobody_else(fragile, calm, action):
    for envs in (fragile, calm):
        envs.reset([3, 4])
    before = fragile.step(np.array([0, 0])), calm.step(np.array([0, 0]))
    step, undisturbed = fragile.step(np.array([3, action])), calm.step(np.array([3, 0]))
    assert step.is_last.tolist() == step.crashed.tolist() == [False, True]
    assert not step.is_terminal.any()
    assert step.reward[1] == 0
    seen = step.observation["image"]
    np.testing.assert_array_equal(seen[1], before[0].observation["image"][1])
    np.testing.assert_array_equal(seen[0], undisturbed.observation["image"][0])
    after = fragile.step(np.array([0, 0]))
    assert after.is_first.tolist() == [False, True]
    assert not after.crashed.any()


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_the_traceback_of_a_failure_is_for_debugging(caplog, level):
    """`evaluate --debug` never showed the lines of the user's environment."""
    with caplog.at_level(level, "thinkslow"), VectorEnv(FRAGILE, 1) as envs:
        envs.reset()
        envs.step(np.array([RAISE]))
    told = [line for line in caplog.messages if "\n" in line]
    assert len(told) == (level == "DEBUG")
    assert all("tiny_envs.py" in line and "ArithmeticError" in line for line in told)


def test_a_worker_killed_from_outside_is_replaced(fragile):
    fragile.reset()
    os.kill(fragile.pids[0], signal.SIGKILL)
    assert fragile.step(np.array([0, 0])).crashed.tolist() == [True, False]
    assert not any(step.crashed.any() for step in play(fragile, 12))


@pytest.mark.slow
def test_what_an_environment_forks_neither_answers_nor_hides_its_death():
    """Two processes answered one question, and a dead one was waited for as if it hung."""
    with VectorEnv("tiny_envs:Forks", 1, step_limit_s=5.0) as envs:
        envs.reset()
        played = [envs.step(np.zeros((1, 2))) for _ in range(5)]
    assert [float(step.reward[0]) for step in played] == [1, 2, 3, 4, 0]
    (error,) = played[-1].errors
    assert error is not None
    assert (error.kind, played[-1].crashed.all()) == ("Killed", True)


def test_a_worker_that_dies_before_a_reset_costs_nothing(fragile, calm):
    os.kill(fragile.pids[1], signal.SIGKILL)
    same(fragile.reset([3, 4]), calm.reset([3, 4]))


def test_an_environment_that_keeps_dying_is_given_up_with_its_own_words():
    with VectorEnv(FRAGILE, 1) as envs:
        envs.reset()
        for _ in range(2):
            assert envs.step(np.array([RAISE])).crashed[0]
            assert envs.step(np.array([0])).is_first[0]
        with pytest.raises(Failed, match=r"Fragile.*failed 3 times in a row") as error:
            envs.step(np.array([RAISE]))
    assert "ArithmeticError: a bug of the environment" in str(error.value)
    assert "\n" not in str(error.value)
    assert "Traceback" in error.value.__notes__[0]


def test_why_an_environment_failed_is_data(fragile):
    fragile.reset()
    play(fragile, 2)
    step = fragile.step(np.array([RAISE, 0]))
    failure, nothing = step.errors
    assert nothing is None
    assert failure is not None
    assert (failure.call, failure.kind) == ("step", "ArithmeticError")
    assert failure.message == "a bug of the environment"
    assert "tiny_envs.py" in failure.where
    assert "your code" in failure.where
    assert failure.traceback.startswith("Traceback")
    assert json.loads(json.dumps(failure.to_json()))["line"] == failure.line
    (killed, _) = fragile.step(np.array([0, 0])).errors
    assert killed is None
    (_, killed) = fragile.step(np.array([0, KILL])).errors
    assert killed is not None
    assert (killed.kind, "SIGKILL" in killed.message) == ("Killed", True)


def test_an_environment_that_ends_python_has_failed_like_any_other():
    with VectorEnv("tiny_envs:tiny/Leaves-v0", 1) as envs:
        envs.reset()
        (failure,) = envs.step(np.zeros((1, 2))).errors
    assert failure is not None
    assert failure.line.startswith("SystemExit: licence expired")


def test_code_that_ends_python_with_a_number_is_told_by_its_last_output():
    """All that was said of it was `SystemExit: 2`."""
    with pytest.raises(Failed, match=r"exit code 2; .*required: --rate \(.*your code"):
        VectorEnv("tiny_envs:tiny/Parses-v0", 1)


def test_a_simulator_that_hangs_is_ended_in_its_time_and_marked():
    with VectorEnv("tiny_envs:tiny/Hangs-v0", 2, step_limit_s=1.0) as envs:
        envs.reset()
        envs.step(np.zeros((2, 2)))
        envs.step(np.zeros((2, 2)))
        before = envs.pids
        step = envs.step(np.zeros((2, 2)))
        assert step.crashed.all()
        assert all(
            one is not None and (one.kind, one.call) == ("Hang", "step") for one in step.errors
        )
        assert envs.step(np.zeros((2, 2))).is_first.all()
        assert not any(psutil.pid_exists(pid) for pid in before)


def test_a_reset_that_hangs_is_ended_in_its_time_and_done_again(caplog):
    class Soon:
        """A second for this reset, and time enough for the process that does it again."""

        step_s = 60.0
        reset_s = property(lambda _: next(seconds))

    seconds = itertools.chain([1.0], itertools.repeat(300.0))
    with VectorEnv("tiny_envs:HangsAtReset", 1) as envs:
        envs.reset()
        envs._pool.limits = Soon()  # pyright: ignore[reportAttributeAccessIssue]
        step = envs.reset()
    assert step.is_first.all()
    assert not step.crashed.any()
    (said,) = caplog.messages
    assert re.search(r"Hang: no answer within \d+ s \(in `reset`\); the reset is tried again", said)


def test_a_simulator_that_closes_the_pipe_and_goes_on_is_ended(monkeypatch):
    """Its end was waited for without a limit."""
    monkeypatch.setattr(worker, "PATIENCE_S", 0.1)
    with VectorEnv("tiny_envs:Detaches", 1) as envs:
        envs.reset()
        (failure,) = envs.step(np.zeros((1, 2))).errors
    assert failure is not None
    assert (failure.kind, "closed the pipe" in failure.message) == ("Hang", True)


@pytest.mark.slow
def test_a_job_that_was_suspended_did_not_wait_meanwhile(monkeypatch, tmp_path):
    """After an hour of SIGSTOP for all of a job, every step in progress was called a hang."""
    file, moment, glances = tmp_path / "go", time.monotonic, itertools.count()

    def jumping() -> float:
        if next(glances) <= 3:
            return moment()
        file.touch()  # the steps end only after a glance has seen the jump
        return moment() + 3600

    with VectorEnv("tiny_envs:Waits", 2, step_limit_s=60.0, options={"file": str(file)}) as envs:
        envs.reset()
        monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=jumping))
        monkeypatch.setattr(worker.AWAKE, "suspended", 0.0)
        step = envs.step(np.zeros((2, 2)))
        assert worker.AWAKE.suspended > 3000
        monkeypatch.undo()
    assert not step.crashed.any()
    assert step.reward.tolist() == [1, 1]


def test_whoever_wants_to_stop_need_not_wait():
    with VectorEnv("tiny_envs:tiny/Hangs-v0", 1) as envs:  # a minute, otherwise
        envs.reset()
        envs.step(np.zeros((1, 2)))
        envs.step(np.zeros((1, 2)))
        threading.Timer(0.2, envs.hurry, [0.5]).start()
        assert envs.step(np.zeros((1, 2))).crashed[0]


@pytest.mark.slow
def test_an_environment_that_is_never_made_is_told():
    with pytest.raises(Failed, match=r"could not be made\. Hang: no answer within"):
        VectorEnv("tiny_envs:tiny/HangsAtBirth-v0", 1, reset_limit_s=2.0)


def test_what_a_simulator_writes_neither_blocks_nor_grows():
    with VectorEnv("tiny_envs:tiny/Talks-v0", 1) as envs:
        envs.reset()
        for _ in range(3):
            assert not envs.step(np.zeros((1, 2))).crashed[0]
        (failure,) = envs.step(np.zeros((1, 2))).errors
    assert failure is not None
    assert failure.message == "its process ended with exit code 7; its last output: the last word"
    assert len(failure.traceback) < 5000


def test_numbers_that_are_not_finite_are_reported_where_they_came(caplog):
    with VectorEnv("tiny_envs:tiny/Unfinite-v0", 2) as envs:
        first = envs.reset()
        steps = [envs.step(np.zeros((2, 2))) for _ in range(7)]
    assert not first.nonfinite
    assert not steps[0].nonfinite
    assert steps[1].nonfinite == (Nonfinite("vector", 0, 0, 2), Nonfinite("vector", 1, 0, 2))
    np.testing.assert_array_equal(steps[1].observation["vector"], [[1, 0], [1, 0]])
    assert steps[2].nonfinite == (Nonfinite("reward", 0, 0, 3), Nonfinite("reward", 1, 0, 3))
    assert np.isinf(steps[2].reward).all()
    assert steps[4].nonfinite == (Nonfinite("reward", 0, 0, 5), Nonfinite("reward", 1, 0, 5))
    assert np.isinf(steps[4].reward).all()
    assert not any(one.nonfinite for one in (steps[3], *steps[5:]))
    # One that float32 does not hold was 0 without a word.
    assert not steps[3].reward.any()
    assert ["count as 0" in line for line in caplog.messages if "below" in line] == [True]
    said = [line for line in caplog.messages if "non-finite" in line]
    assert len(said) == 2, "each environment is named once"
    assert "environment 1, episode 0, step 2: `vector` is non-finite" in said[1]


def test_what_was_adapted_is_said_once(caplog):
    with VectorEnv("tiny_envs:tiny/Old-v0", 2) as envs:
        envs.reset()
        for _ in range(7):
            envs.step(np.zeros((2, 2)))
    said = [record.message for record in caplog.records]
    assert len(said) == len(set(said)) > 0
    assert [line for line in said if "takes no seed" in line]


def test_a_seed_tells_two_episodes_that_are_a_pair():
    with VectorEnv(FRAGILE, 3) as envs:
        envs.reset([5, 6, 5])
        one, other, again = envs.first_seen
        play(envs, 2)
        assert envs.first_seen == [one, other, again]
    assert one == again != other
    with VectorEnv("tiny_envs:tiny/Whimsical-v0", 2) as envs:
        envs.reset([5, 5])
        assert len({*envs.first_seen}) == 2


def test_an_episode_that_does_not_replay_is_told_and_another_begins():
    whim = "tiny_envs:tiny/Whimsical-v0"
    with VectorEnv(whim, 2) as envs:
        envs.reset()
        state = envs.state()
        envs.step(np.zeros((2, 2)))
        later = envs.state()  # shows what was done, which does replay
    with VectorEnv(whim, 2) as envs:
        step = envs.restore(state)
        assert step.is_first.all()
        assert all(one is not None and one.kind == "NotReplayed" for one in step.errors)
        assert envs.state()["seeds"] != state["seeds"]
        assert not envs.restore(later).is_first.any()


def test_an_interrupted_step_leaves_the_state_before_it(fragile, calm, request):
    # a process in the background of a shell begins with Ctrl-C ignored
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
    actions = np.array([0, 0])
    for both in (fragile, calm):
        both.reset([3, 4])
        play(both, 8)
    before = fragile.state()
    with pytest.raises(KeyboardInterrupt):
        interrupted(fragile, actions)
    assert fragile.state() == before
    with pytest.raises(RuntimeError, match="was interrupted"):
        fragile.step(actions)
    fragile.restore(before)
    same(fragile.step(actions), calm.step(actions))
    with pytest.raises(KeyboardInterrupt):
        interrupted(fragile, actions)
    same(fragile.reset([1, 2]), calm.reset([1, 2]))


def interrupted(envs: VectorEnv, actions: np.ndarray) -> None:
    """A step during which Ctrl-C is pressed, while the workers do not answer."""
    for pid in envs.pids:
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)  # until it has stopped: a busy machine takes its time
    threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
    try:
        envs.step(actions)
    finally:
        for pid in envs.pids:
            os.kill(pid, signal.SIGCONT)


def test_several_actions_at_once_are_a_dictionary():
    with VectorEnv("tiny_envs:tiny/Pairs-v0", 2) as envs:
        envs.reset()
        assert set(envs.action_spaces) == {"action/0", "action/1"}
        step = envs.step({"action/0": np.array([0, 1]), "action/1": np.array([2, 1])})
        np.testing.assert_array_equal(step.observation["vector"], [[0, 2], [1, 1]])
        same(envs.restore(json.loads(json.dumps(envs.state()))), step._replace(reward=step.reward))
        with pytest.raises(ValueError, match="must be of action/0, action/1; got action/0"):
            envs.step({"action/0": np.array([0, 1])})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_action_that_is_not_finite_is_the_agents_fault(bad):
    with VectorEnv("tiny_envs:tiny/Echo-v0", 1) as envs:
        envs.reset()
        with pytest.raises(ValueError, match="`actions` must be finite"):
            envs.step(np.array([[0.0, bad]]))
        assert not envs.step(np.zeros((1, 2))).crashed[0]


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "<&- >&- 2>&-"])
def test_environments_play_where_standard_streams_are_closed(closed):
    """The shared memory was descriptor 0, in whose place a worker found the null device."""
    script = "from thinkslow.envs import VectorEnv\nVectorEnv('CartPole-v1', 1).reset()"
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", script]
    assert subprocess.run(command, check=False).returncode == 0


def test_a_closed_standard_stream_is_no_place_for_a_file(tmp_path):
    kept = os.dup(0)
    os.close(0)
    try:
        standard_streams.reserve()
        with open(tmp_path / "file", "w") as file:
            assert file.fileno() > 2
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_what_cannot_be_made_says_why():
    with pytest.raises(Unavailable, match="Did you mean"):
        VectorEnv("CartPole-v11", 2)
    with pytest.raises(Unavailable, match="no memory for the map") as error:
        VectorEnv("tiny_envs:tiny/Unborn-v0", 2)
    assert "\n" not in str(error.value)
    assert "tiny_envs.py" in error.value.__notes__[0]  # the traceback, for --debug
    with pytest.raises(Mismatch, match=r"environment 0, episode 0, step 0: .*shows \(3,\)"):
        VectorEnv("tiny_envs:tiny/Lies-v0", 2).reset()


@pytest.mark.parametrize("steps", [slow(0), 3, slow(9), slow(10), 14])
def test_a_restored_state_continues_as_if_nothing_had_happened(fragile, steps):
    before = [fragile.reset(), *play(fragile, steps)][-1]
    state = json.loads(json.dumps(fragile.state()))
    rest = play(fragile, 12, seed=9)
    with VectorEnv(FRAGILE, 2, seed=2) as envs:
        same(envs.restore(state), before)
        assert envs.state() == state
        for one, other in zip(play(envs, 12, seed=9), rest, strict=True):
            same(one, other)


@pytest.mark.parametrize("steps", [slow(0), 2])
def test_a_state_saved_at_a_crash_shows_what_was_seen_before_it(fragile, steps):
    # The action that killed was once replayed too, and changed the observation.
    fragile.reset()
    play(fragile, steps)
    os.kill(fragile.pids[0], signal.SIGKILL)
    crash = fragile.step(np.array([3, 3]))
    state, after = fragile.state(), play(fragile, 4)
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


def test_where_nobody_plays_nothing_happens():
    with VectorEnv(FRAGILE, 2, seed=1) as envs, VectorEnv(FRAGILE, 2, seed=1) as both:
        first = envs.reset([3, 4])
        both.reset([3, 4])
        for _ in range(12):  # the episodes end after nine
            one = envs.step(np.array([0, KILL]), playing=np.array([True, False]))
            other = both.step(np.array([0, 0]))
            for name, array in one.observation.items():
                np.testing.assert_array_equal(array[0], other.observation[name][0])
                np.testing.assert_array_equal(array[1], first.observation[name][1])
            assert (one.reward[1], one.is_last[1], one.is_first[1]) == (0, True, False)
            assert not one.crashed.any()


def test_a_restart_forgets_what_environments_keep_between_episodes(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", importable())
    with VectorEnv(id_of("Warms"), 2) as envs:
        paid, before = [], envs.pids
        for begins in (1, 3, 0):
            for _ in range(begins):
                envs.reset([4, 5])
            if not begins:
                envs.restart()
                with pytest.raises(RuntimeError, match="Call `reset` first"):
                    envs.step(np.zeros(2))
                envs.reset([4, 5])
            paid.append(envs.step(np.zeros(2)).reward.tolist())
        assert paid == [[1, 1], [4, 4], [1, 1]]
        wait_until_gone([*before])
        assert not set(before) & set(envs.pids)


def test_wrong_numbers_and_wrong_order_are_refused():
    with pytest.raises(ValueError, match=r"`count`.*got 0"):
        VectorEnv(FRAGILE, 0)
    with VectorEnv(FRAGILE, 1) as envs:
        for too_early in (envs.state, lambda: envs.step(np.array([0]))):
            with pytest.raises(RuntimeError, match="Call `reset` first"):
                too_early()
        with pytest.raises(ValueError, match=r"`seeds`.*got 2"):
            envs.reset([1, 2])
        envs.reset()
        with pytest.raises(ValueError, match=r"`actions`.*got 2"):
            envs.step(np.array([0, 0]))
        state = envs.state()
    with pytest.raises(RuntimeError, match="closed"):
        envs.reset()
    with VectorEnv(FRAGILE, 2) as envs, pytest.raises(ValueError, match="of 1 environments"):
        envs.restore(state)


@pytest.mark.slow
def test_closing_or_forgetting_ends_all_processes():
    envs = VectorEnv(FRAGILE, 2)
    closed = envs.pids
    envs.close()
    envs.close()
    assert not any(psutil.pid_exists(pid) for pid in closed)
    forgotten = VectorEnv(FRAGILE, 1)
    left = forgotten.pids
    del forgotten
    gc.collect()
    assert not any(psutil.pid_exists(pid) for pid in left)


@pytest.mark.parametrize("sent", [signal.SIGINT, *ending.SIGNALS])
def test_workers_leave_the_end_to_their_parent(fragile, sent):
    """A batch system ends every process of a job; an episode was marked as crashed and saved so."""
    fragile.reset()
    os.kill(fragile.pids[0], sent)
    assert not any(step.crashed[0] for step in play(fragile, 3))


def test_a_fork_that_ends_leaves_the_processes_to_their_parent(fragile, monkeypatch):
    """It unwound what it had copied, and killed the environments of its parent."""
    fragile.reset()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        fragile.close()
    assert not any(step.crashed.any() for step in play(fragile, 3))


# No `if __name__ == "__main__"`: workers must not run the script again.
SCRIPT = """
import time
import numpy as np
from thinkslow.envs import VectorEnv
envs = VectorEnv("tiny_envs:tiny/Hangs-v0", 2)
envs.reset()
print(*envs.pids, flush=True)
if {hangs}:
    for _ in range(3):
        envs.step(np.zeros((2, 2)))
time.sleep({sleep})
"""


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "hangs"), [(True, True), (True, False), (False, False)])
def test_workers_end_with_their_parent_whatever_they_do(killed, hangs, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(sleep=60 if killed else 0, hangs=hangs))
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    ) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        if killed:
            time.sleep(1.0 if hangs else 0.0)  # for the third step to begin
            parent.kill()
        assert parent.wait(20) == (-signal.SIGKILL if killed else 0)
        assert parent.stderr.read() == ""
    wait_until_gone(workers)


def test_an_argument_that_cannot_be_is_told_in_our_own_words():
    """It was said to be a ValueError in thinkslow's own code."""
    with pytest.raises(Unavailable, match=r"^`image` must name observations"):
        VectorEnv("CartPole-v1", 1, image=["pixels"])


class Wordless(Exception):
    def __str__(self):
        raise KeyError("no words")


def noted() -> Exception:
    error = RuntimeError("the wall is gone")
    error.add_note("see the manual")
    return error


def test_the_last_output_is_no_line_of_source():
    """What a killed process had said was given as `gym.logger.warn(`."""
    words = "the map is large\nmaze.py:3: UserWarning: rounded\n\n  gym.logger.warn(\n"
    assert ended(-9, "step", words).message.endswith("output: maze.py:3: UserWarning: rounded")


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (RuntimeError("L" * 5_000_000), "RuntimeError", "LLL ... LLL"),
        (Wordless(), "Wordless", "its text cannot be made (KeyError)"),
        (noted(), "RuntimeError", "the wall is gone"),
        (SyntaxError("bad", ("maze.py", 3, 1, "x")), "SyntaxError", "bad"),
        (
            ExceptionGroup("tasks", [LookupError("no door"), KeyError("key")]),
            "ExceptionGroup",
            "tasks (2 sub-exceptions), the first of them LookupError: no door",
        ),
    ],
    ids=["long", "wordless", "noted", "syntax", "several"],
)
def test_whatever_an_environment_raises_is_a_short_line(error, kind, said):
    """A message of 5 MB was printed and kept whole, and a note was taken for the message."""
    found = failure(error, "step")
    assert found.kind == kind
    assert said in found.line
    assert len(found.line) < 2_000
