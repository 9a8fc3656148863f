"""Environments in parallel, one process each, with observations in shared memory.

The convention is that of DreamerV3: the step after a last one is a reset; its action is ignored and
its reward is 0. Episode seeds follow from the seed, the environment's index and the number of its
episode, so runs are reproducible. A process that dies, fails or does not answer in time is
restarted; its episode ends with a mark and with the cause as data.

Gymnasium's `AsyncVectorEnv` has the same convention (`AutoresetMode.NEXT_STEP`) and shared memory.
But it does not restart a dead worker, has no time limits, gives no seeds to the episodes that it
begins itself, cannot restore a state by replay, and runs the user's script again in every spawned
worker.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thinkslow.envs.descriptions import described
from thinkslow.envs.failures import Failure, Nonfinite
from thinkslow.envs.make import only
from thinkslow.envs.pool import Limits, Pool
from thinkslow.envs.snapshots import Snapshot
from thinkslow.envs.steps import Episode, Step, end, hash_of, rows_of
from thinkslow.envs.worker import Played
from thinkslow.settings import plain
from thinkslow.spaces import Space

LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)

NOT_REPLAYED = Failure(
    "replay",
    "NotReplayed",
    "the seed and the actions of the episode led to another observation",
)

log = logging.getLogger("thinkslow")


class VectorEnv:
    """`count` environments of one id, stepped together.

    >>> with VectorEnv("CartPole-v1", 2) as envs:
    ...     first = envs.reset()
    ...     step = envs.step(np.array([0, 1]))
    >>> step.observation["vector"].shape, step.reward
    ((2, 4), array([1., 1.], dtype=float32))

    Args:
        id: as for `make`.
        count: the number of environments, one process each.
        seed: the seeds of the episodes follow from it.
        step_limit_s: seconds that a step may take before its environment counts as hung.
        reset_limit_s: seconds that a reset may take, and making the environment.
        making: further arguments of `make`.

    **Errors:** at construction, the errors of `make`. Later `Failed`, with the traceback of the
    environment's process as a note, if an environment keeps failing; `Mismatch` for an observation
    that does not match its space.
    """

    def __init__(
        self,
        id: str,
        count: int,
        *,
        seed: int = 0,
        step_limit_s: float = 60.0,
        reset_limit_s: float = 300.0,
        **making: Any,
    ):
        if type(count := plain(count)) is not int:
            raise TypeError(f"`count` must be an integer; got {count!r}.")
        if count < 1:
            raise ValueError(f"`count` must be 1 or more; got {count}.")
        for name, value in (("step_limit_s", step_limit_s), ("reset_limit_s", reset_limit_s)):
            if not value > 0:
                raise ValueError(f"`{name}` must be above 0; got {value}.")
        self.id, self.count, self.seed = id, count, seed
        limits = Limits(float(step_limit_s), float(reset_limit_s))
        # Consent is known here and not in the processes of the environments.
        self._pool = Pool(described({"id": id, **making}), count, seed, limits)
        self.observation_space: dict[str, Space] = self._pool.spaces.observations
        self.action_spaces: dict[str, Space] = self._pool.spaces.actions
        self._started = False
        self._warned: set[int] = set()

    @property
    def action_space(self) -> Space:
        """The action of environments with a single action.

        **Errors:** `Unavailable` if they have several.
        """
        return only(self.id, self.action_spaces)

    @property
    def pids(self) -> list[int]:
        """The process of each environment; a dead process is replaced."""
        return self._pool.pids

    @property
    def first_seen(self) -> list[str]:
        """A hash of the first observation of each environment's episode.

        Two episodes with one seed are a pair only if these hashes are equal.
        """
        return [episode.first_seen for episode in self._pool.episodes]

    def reset(self, seeds: Sequence[int] | None = None) -> Step:
        """Begin a new episode in every environment.

        Args:
            seeds: one for each environment; None: the next ones that follow from `seed`.
        """
        self._check_open()
        if seeds is not None and len(seeds) != self.count:
            raise ValueError(
                f"`seeds` must be one per environment, {self.count}; got {len(seeds)}."
            )
        self._pool.settle()
        self._started = True
        with self._pool.undone_if_interrupted():
            for index in range(self.count):
                self._pool.begin(index, None if seeds is None else int(seeds[index]))
            return self._remember(self._collect([True] * self.count))

    def step(
        self,
        actions: np.ndarray | Mapping[str, np.ndarray],
        *,
        playing: np.ndarray | None = None,
    ) -> Step:
        """Play one action in each environment; if its episode is over, begin a new one.

        Args:
            actions: one row for each environment; a dictionary of such arrays if an environment
                has several actions.
            playing: where false, the environment does nothing: it shows its last observation again
                and begins no new episode. None: all play.
        """
        self._check_started()
        rows = rows_of(actions, self.action_spaces, self.count)
        self._check_settled()
        first = [episode.over for episode in self._pool.episodes]
        idle = () if playing is None else np.flatnonzero(~playing).tolist()
        with self._pool.undone_if_interrupted():
            for index, over in enumerate(first):
                if index in idle:
                    continue
                if over:
                    self._pool.begin(index, None)
                else:
                    self._pool.step(index, rows[index])
            return self._remember(self._collect(first, idle=idle))

    def hurry(self, seconds: float) -> None:
        """Limit the waiting time for pending answers, in order to stop.

        Args:
            seconds: the limit, from now.

        May be called from a signal handler while `step` or `reset` waits.
        """
        self._pool.hurry(seconds)

    def state(self) -> dict[str, Any]:
        """The state of every environment as JSON, for `restore`."""
        self._check_started()
        episodes = self._pool.episodes
        crashes = [episode.crash for episode in episodes]
        return {
            "episodes": [episode.drawn for episode in episodes],
            "seeds": [episode.seed for episode in episodes],
            "actions": [list(episode.actions) for episode in episodes],
            "crashed": [one is not None for one in crashes],
            "errors": [None if one is None else one.to_json() for one in crashes],
            "first_seen": self.first_seen,
            "seen": [hash_of(self._shown, index) for index in range(self.count)],
        }

    def restore(self, state: dict[str, Any]) -> Step:
        """Restore a state by replaying each unfinished episode; returns its last step.

        This is exact if an episode follows from its seed and its actions. If a replay shows another
        observation than the saved one, a new episode begins: `is_first` is set, and `errors` says
        so. Later episodes follow from this object's own `seed`.

        Args:
            state: from `state`, of the same number of environments.

        **Errors:** `ValueError` for another number of environments.
        """
        self._check_open()
        if len(state["seeds"]) != self.count:
            raise ValueError(
                f"The state is of {len(state['seeds'])} environments; this has {self.count}."
            )
        self._pool.settle()
        self._started = True
        self._pool.episodes = [
            Episode(seed, list(actions), begun=drawn, drawn=drawn)
            for seed, actions, drawn in zip(
                state["seeds"], state["actions"], state["episodes"], strict=True
            )
        ]
        for index in range(self.count):
            self._pool.replay(index)
        first = [not episode.actions for episode in self._pool.episodes]
        step = self._collect([True] * self.count)
        step.is_first[:] = first
        crashes = [None if one is None else Failure.from_json(one) for one in state["errors"]]
        for index in np.flatnonzero(state["crashed"]):
            step.is_first[index] = False
            end(int(index), step)
        step = step._replace(errors=tuple(crashes))
        found = [hash_of(self._pool.observation, index) for index in range(self.count)]
        unfaithful = [
            i for i, (one, kept) in enumerate(zip(found, state["seen"], strict=True)) if one != kept
        ]
        for episode, first_seen in zip(self._pool.episodes, state["first_seen"], strict=True):
            episode.first_seen = first_seen
        return self._remember(self._renewed(unfaithful, step))

    def snapshot(self) -> list[Snapshot | None]:
        """A snapshot of each environment's episode; None for an episode that is over.

        **Cost:** a message to each process. If a simulator cannot be copied, `resume` replays the
        episode.
        """
        self._check_started()
        self._check_settled()
        return [
            None if episode.over else self._snapshot(index, episode)
            for index, episode in enumerate(self._pool.episodes)
        ]

    def _snapshot(self, index: int, episode: Episode) -> Snapshot:
        copy = self._pool.copy(index)
        return Snapshot(
            episode.seed,
            tuple(episode.actions),
            episode.first_seen,
            hash_of(self._shown, index),
            {k: a[index].copy() for k, a in self._shown.items()},
            copy,
        )

    def resume(self, snapshots: Sequence[Snapshot | None]) -> Step:
        """Restore a snapshot in each environment; it may come from any of them.

        Returns the step at that moment, with reward 0. If a replay reaches another state, the
        episode is marked as `crashed`, with `NotReplayed` in `errors`.

        Args:
            snapshots: one for each environment, from `snapshot`.

        **Errors:** `ValueError` for another number of snapshots, or one of an episode that is over.
        """
        self._check_open()
        if len(snapshots) != self.count:
            raise ValueError(
                f"`snapshots` must be one per environment, {self.count}; got {len(snapshots)}."
            )
        wanted = [one for one in snapshots if one is not None]
        if len(wanted) < self.count:
            raise ValueError("`snapshots` must be of moments; got one of an episode that is over.")
        self._pool.settle()
        self._started = True
        with self._pool.undone_if_interrupted():
            for index, one in enumerate(wanted):
                episode = self._pool.episodes[index]
                episode.begun += 1
                episode.seed, episode.actions = one.seed, list(one.actions)
                self._pool.bring(index, one)
            step = self._collect([True] * self.count, wanted)
            for episode, one in zip(self._pool.episodes, wanted, strict=True):
                episode.first_seen = one.first_seen
            step.is_first[:] = [not one.actions for one in wanted]
            step.reward[:] = 0.0
            errors = list(step.errors)
            for index, one in enumerate(wanted):
                if one.copy is None and hash_of(step.observation, index) != one.seen:
                    errors[index] = NOT_REPLAYED
                    end(index, step)
                else:
                    for name, array in one.observation.items():
                        self._pool.observation[name][index] = step.observation[name][index] = array
            return self._remember(step._replace(errors=tuple(errors)))

    def restart(self) -> None:
        """Replace all processes by new ones, without what environments keep between episodes. Call
        `reset` next.

        **Errors:** those of making them.
        """
        self._check_open()
        self._pool.settle()
        self._started = False
        self._pool.restart()

    def close(self) -> None:
        """End all processes. A second call does nothing."""
        self._pool.close()

    def __enter__(self) -> "VectorEnv":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._pool.closed:
            raise RuntimeError("This VectorEnv is closed. Make another.")

    def _check_started(self) -> None:
        self._check_open()
        if not self._started:
            raise RuntimeError("No episode has begun. Call `reset` first.")

    def _check_settled(self) -> None:
        if not self._pool.settled:
            raise RuntimeError("The step before was interrupted. Call `reset`, or `restore`.")

    def _collect(
        self,
        replayed: Sequence[bool],
        brought: Sequence[Snapshot] | None = None,
        *,
        idle: Sequence[int] = (),
    ) -> Step:
        """Collect the answers of the environments. If a process died, its episode ends, unless it
        was replaying.
        """
        count = self.count
        errors: list[Failure | None] = [None] * count
        nonfinite: list[Nonfinite] = []
        rewards = [0.0] * count
        step = Step(
            observation={},
            reward=np.zeros(count, np.float32),
            is_first=np.array(replayed),
            is_last=np.zeros(count, bool),
            is_terminal=np.zeros(count, bool),
            crashed=np.zeros(count, bool),
        )
        for index in range(count):
            if index in idle:
                step.is_first[index], step.is_last[index] = False, True
                continue
            snapshot = None if brought is None else brought[index]
            played = self._pool.receive(index, replayed=replayed[index], brought=snapshot)
            if isinstance(played, Failure):
                errors[index] = played
                self._pool.episodes[index].actions.pop()  # its result was not used
                for name, array in self._pool.observation.items():
                    array[index] = self._shown[name][index]
                end(index, step)
                continue
            rewards[index] = played.reward
            if 0 < abs(played.reward) < SMALLEST:
                self._pool.say([f"rewards below {SMALLEST:.0e} count as 0"])
            step.is_last[index], step.is_terminal[index] = played.over, played.terminated
            keys = [*played.nonfinite]
            if "reward" not in keys and not abs(played.reward) <= LARGEST:
                keys.append("reward")
            if keys:
                episode = self._pool.episodes[index]
                moment = (index, episode.begun - 1, len(episode.actions))
                nonfinite += [Nonfinite(key, *moment) for key in keys]
                self._warn(nonfinite[-len(keys)])
            self._pool.say(played.notes)
            if replayed[index]:
                self._pool.episodes[index].first_seen = hash_of(self._pool.observation, index)
        step.observation.update({name: a.copy() for name, a in self._pool.observation.items()})
        with np.errstate(over="ignore"):  # infinite then, and listed
            step.reward[:] = rewards
        return step._replace(errors=tuple(errors), nonfinite=tuple(nonfinite))

    def _warn(self, found: Nonfinite) -> None:
        """Report a non-finite value, once for each environment."""
        if found.environment not in self._warned:
            self._warned.add(found.environment)
            log.warning(
                "%s, environment %d, episode %d, step %d: `%s` is non-finite. Agents see and learn "
                "from 0 instead; sums of such rewards are null. Fix the environment (float32 ends "
                "at 3.4e38). This is reported once for each environment.",
                self.id,
                found.environment,
                found.episode,
                found.step,
                found.key,
            )

    def _renewed(self, unfaithful: Sequence[int], step: Step) -> Step:
        """Begin new episodes where a replay reached another state."""
        if not unfaithful:
            return step
        errors: list[Failure | None] = list(step.errors)
        for index in unfaithful:
            errors[index] = NOT_REPLAYED
            log.warning(
                "%s, environment %d: its episode could not be restored, because its seed and "
                "actions led to another observation. A new episode begins.",
                self.id,
                index,
            )
            self._pool.begin(index, None)
        for index in unfaithful:
            played = self._pool.receive(index, replayed=True)
            assert isinstance(played, Played)
            self._pool.episodes[index].first_seen = hash_of(self._pool.observation, index)
            for name, array in self._pool.observation.items():
                step.observation[name][index] = array[index]
            step.reward[index] = 0.0
            step.is_first[index] = True
            step.is_last[index] = step.is_terminal[index] = step.crashed[index] = False
        return step._replace(errors=tuple(errors))

    def _remember(self, step: Step) -> Step:
        for index, episode in enumerate(self._pool.episodes):
            episode.over = bool(step.is_last[index])
            episode.crash = step.errors[index] if step.crashed[index] else None
        self._shown = {name: array.copy() for name, array in step.observation.items()}
        return step
