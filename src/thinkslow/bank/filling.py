"""Fill a bank: play the base agent, and play out every action at some of its moments.

All random numbers follow from the plan's seed, so a bank is the same however often filling was
interrupted. To continue in the middle of a block, its episodes are played again, but not its
play-outs, which are nearly all of the cost.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from thinkslow.agent.agent import Agent
from thinkslow.agent.choices.choice import every_action
from thinkslow.agent.inputs import Carry, Observations
from thinkslow.agent.thinking import Thinking
from thinkslow.bank import stored
from thinkslow.bank.plan import Plan
from thinkslow.bank.stored import ALIVE, CUT, TERMINAL, Bank, Header, Moments
from thinkslow.envs import Step, VectorEnv, arguments
from thinkslow.envs.descriptions import described_environment
from thinkslow.envs.snapshots import Snapshot
from thinkslow.evaluation.records import BASE
from thinkslow.evaluation.seeds import episode_seed
from thinkslow.evaluation.subjects import facts, fitted
from thinkslow.heads import expected
from thinkslow.needs import CRITIC, unmet
from thinkslow.plural import plural
from thinkslow.saved.provenance import provenance
from thinkslow.storage.headers import Occupied, as_read
from thinkslow.storage.lock import writing
from thinkslow.storage.paths import expanded

PURPOSE = 0xBA2C
"""The purpose of these environment seeds: episodes outside training and evaluation."""
MOST_ACTIONS = 20
"""Up to this many discrete actions are all tried; of more, some are drawn from the policy."""
DRAWN = 8
"""Number of drawn actions, if they cannot all be tried."""
LOST = 3
"""After so many blocks in a row, none of whose moments could be kept, filling ends."""

log = logging.getLogger("thinkslow")

Show = Callable[[str, int, int], None]


def fill(
    agent: Agent,
    environment: str | Mapping[str, Any],
    plan: Plan,
    out: str | Path,
    *,
    limits: Mapping[str, Any] | None = None,
    show: Show = lambda *_: None,
) -> Bank:
    """Fill a bank in a folder, or continue an unfinished one.

    Args:
        agent: the base agent; it plays without thinking.
        environment: its id, or a mapping with `id` and optionally `size` and `repeat`.
        plan: the number of moments and the settings of the play-outs.
        out: the folder of the bank. A bank with the same settings is continued until it has
            `moments`; any other bank is refused.
        limits: time limits of the environments, as `VectorEnv` takes them.
        show: called with the present part, the moments stored, and the moments wanted.

    **Cost:** for each moment `actions * futures * horizon` decisions and steps of the environment;
    a few megabytes of memory for each environment, whatever the size of the bank; on disk some
    10 kB a moment for images of 64x64.

    A moment is left out if the environment fails in one of its play-outs, does not come back to it,
    or gives a non-finite reward.

    **Errors:** `Occupied`; `ValueError` for an agent that thinks, and for an environment of which
    no moment is kept; those of the environment.
    """
    with filled(agent, environment, plan, out, limits=limits, show=show) as bank:
        return bank


@contextlib.contextmanager
def filled(
    agent: Agent,
    environment: str | Mapping[str, Any],
    plan: Plan,
    out: str | Path,
    *,
    limits: Mapping[str, Any] | None = None,
    show: Show = lambda *_: None,
) -> Iterator[Bank]:
    """Fill a bank as `fill` does, and hold its folder during the body, which may write there."""
    if agent.settings != Thinking():
        raise ValueError("A bank needs the base agent: pass an agent that does not think.")
    folder, setting = expanded(out), described_environment(environment)
    header = as_read(_header(agent, setting, plan))
    with writing(folder):
        bank = _opened(folder, header, plan.moments)
        if len(bank) < plan.moments:
            with VectorEnv(**arguments(setting), count=plan.batch, **dict(limits or {})) as envs:
                player = fitted(agent, envs, name=str(agent.about.name or "the agent"))
                assert isinstance(player, Agent)
                _Filling(bank, plan, player, envs, show).run()
        else:
            log.info("%s holds %d moments already: none is played.", folder, len(bank))
        yield bank


def _header(agent: Agent, environment: dict[str, Any], plan: Plan) -> Header:
    every = every_action(agent.action_spaces, MOST_ACTIONS)
    given = dataclasses.asdict(plan)
    del given["moments"]
    return Header(
        environment=environment,
        agent=facts(agent.about.name or "agent", {BASE: agent}),
        candidates=DRAWN if every is None else len(every),
        enumerated=every is not None,
        versions=provenance()["versions"],
        **given,
    )


def _opened(folder: Path, header: Header, moments: int) -> Bank:
    if not stored.is_there(folder):
        left = [entry.name for entry in folder.iterdir() if entry.name != "lock.json"]
        if left:
            raise Occupied(f"{folder} holds {left[0]} and no bank. Pass another `out`.")
        return stored.begin(folder, header)
    bank = stored.read(folder)
    if differences := bank.header.differences(header, full=len(bank) >= moments):
        raise Occupied(
            f"{folder} holds another bank: {'; '.join(differences)}. Pass another `out`, or the "
            "settings of this bank."
        )
    return bank


@dataclasses.dataclass(frozen=True)
class _Branch:
    """The moment of each episode from which every action is played out; leading axis: episodes."""

    snapshots: list[Snapshot]
    carry: Carry
    seen: Observations
    first: np.ndarray
    own: Array
    """What the keys of an episode follow from."""
    decision: int


class _Filling:
    """The state of filling a bank."""

    def __init__(self, bank: Bank, plan: Plan, agent: Agent, envs: VectorEnv, show: Show):
        self.bank, self.plan, self.agent, self.envs, self.show = bank, plan, agent, envs, show
        self.every = every_action(agent.action_spaces, MOST_ACTIONS)
        self.has_critic = unmet(agent.model, (CRITIC,)) is None
        self.cause = ""
        """Why a moment of this block was not kept, the last time, and what to do."""

    def run(self) -> None:
        self._tell()
        block = lost = 0
        while len(self.bank) < self.plan.moments:
            before, self.cause = len(self.bank), ""
            rounds = self._block(block)
            if not rounds and len(self.bank) == before and not self.cause:
                raise ValueError(
                    f"Episodes of {self.envs.id} are shorter than `every` ({self.plan.every}): "
                    "none of a whole block reached a moment. Pass a smaller `every`."
                )
            block += 1
            lost = lost + 1 if len(self.bank) == before else 0
            if lost >= LOST and self.cause:
                raise ValueError(
                    f"{self.envs.id} could keep no moment of {plural(lost, 'block')}: {self.cause}"
                )

    def _tell(self) -> None:
        self.show("playing out", min(len(self.bank), self.plan.moments), self.plan.moments)

    def _block(self, number: int) -> int:
        """A block of episodes with the play-outs from their moments; returns its rounds."""
        plan, envs, agent = self.plan, self.envs, self.agent
        model: Any = agent.model  # which also splits an action vector into actions
        episodes = number * plan.batch + np.arange(plan.batch)
        seeds = [episode_seed(plan.seed, int(one), purpose=PURPOSE) for one in episodes]
        own = jnp.array(seeds, jnp.uint32)
        offset = int(np.random.default_rng([PURPOSE, plan.seed, number]).integers(plan.every))
        step, carry = envs.reset(seeds), agent.start(plan.batch)
        playing = np.ones(plan.batch, bool)
        decision = rounds = 0
        while playing.any():
            keys = _keys(plan.seed, own, decision, 0)
            if decision % plan.every == offset:
                name = f"{number:05}-{rounds:04}"
                if name not in self.bank.index:
                    snapshots = envs.snapshot()
                    stand_in = next(one for one in snapshots if one is not None)
                    branch = _Branch(
                        [stand_in if one is None else one for one in snapshots],
                        carry,
                        step.observation,
                        step.is_first.copy(),
                        own,
                        decision,
                    )
                    moments, playing = self._round(branch, playing, keys, episodes)
                    self.bank.add(name, moments)
                    self._tell()
                    if len(self.bank) >= plan.moments:
                        return rounds + 1
                rounds += 1
            carry, action, _ = agent.act(carry, step.observation, step.is_first, keys=keys)
            step = envs.step(model.split(np.asarray(action)), playing=playing)
            self._see_failure(step, playing)
            playing = playing & ~step.is_last
            decision += 1
        return rounds

    def _round(
        self, branch: _Branch, playing: np.ndarray, keys: Array, episodes: np.ndarray
    ) -> tuple[Moments, np.ndarray]:
        """Play out every action from this moment of each episode, and come back to it."""
        plan, seen = self.plan, branch.seen
        actions = self._actions(branch, keys)
        shape = (plan.batch, actions.shape[1], plan.futures)
        rewards = np.zeros((*shape, plan.horizon), np.float32)
        ended, value_end = np.zeros(shape, np.uint8), np.full(shape, np.nan, np.float32)
        for action in range(actions.shape[1]):
            for future in range(plan.futures):
                got = self._future(branch, actions[:, action], playing, future)
                here = (slice(None), action, future)
                rewards[here], ended[here], value_end[here], playing = got
        state = self.agent.act(branch.carry, seen, branch.first, keys=keys)[0].state
        value = self._value(state)
        playing = self._back(branch, playing)
        kept = np.flatnonzero(playing)
        moments = Moments(
            episode=episodes[kept],
            environment_seed=np.array([one.seed for one in branch.snapshots])[kept],
            decision=np.full(len(kept), branch.decision),
            is_first=branch.first[kept],
            observation={
                name: np.asarray(seen[name])[kept] for name, _ in self.agent.observation_spaces
            }
            or {name: np.asarray(array)[kept] for name, array in seen.items()},
            carry=[leaf[kept] for leaf in stored.leaves(branch.carry)],
            actions=actions[kept],
            rewards=rewards[kept],
            ended=ended[kept],
            value=value[kept],
            value_end=value_end[kept],
        )
        return moments, playing

    def _actions(self, branch: _Branch, keys: Array) -> np.ndarray:
        """The actions to try from each moment, `[moments, actions, action]`."""
        if self.every is not None:
            return np.repeat(self.every[None], self.plan.batch, 0)
        drawn = [
            self.agent.act(branch.carry, branch.seen, branch.first, keys=_again(keys, number))[1]
            for number in range(DRAWN)
        ]
        return np.stack([np.asarray(one) for one in drawn], 1)

    def _future(
        self, branch: _Branch, forced: np.ndarray, playing: np.ndarray, future: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One play-out of one action in each environment: rewards, end, final value, and which are
        valid.
        """
        plan, envs, agent = self.plan, self.envs, self.agent
        model: Any = agent.model
        rewards = np.zeros((plan.batch, plan.horizon), np.float32)
        ended = np.full(plan.batch, ALIVE, np.uint8)
        playing = self._back(branch, playing)
        alive = playing.copy()
        carry, seen, first = branch.carry, branch.seen, branch.first
        for time in range(plan.horizon):
            # The same keys for every action, so that play-outs differ only by the action.
            keys = _keys(plan.seed, branch.own, branch.decision + time, 1 + future)
            carry, action, _ = agent.act(carry, seen, first, keys=keys)
            if time == 0:
                action = jnp.asarray(forced, action.dtype)
                carry = dataclasses.replace(carry, action=action)
            step = envs.step(model.split(np.asarray(action)), playing=alive)
            sound = np.isfinite(step.reward)
            self._see_failure(step, alive)
            if not sound[alive].all():
                self.cause = "a reward was non-finite. Mend the rewards of the environment."
            rewards[:, time] = np.where(alive & sound, step.reward, 0.0)
            over = alive & step.is_last
            ended[over] = np.where(step.is_terminal, TERMINAL, CUT)[over]
            playing = playing & ~(alive & (step.crashed | ~sound))
            alive = alive & ~step.is_last
            seen, first = step.observation, step.is_first
            if not alive.any():
                break
        value = np.full(plan.batch, np.nan, np.float32)
        if self.has_critic and alive.any():
            last = branch.decision + plan.horizon
            keys = _keys(plan.seed, branch.own, last, 1 + future)
            value = np.where(
                alive, self._value(agent.act(carry, seen, first, keys=keys)[0].state), np.nan
            )
        return rewards, ended, np.where(ended == TERMINAL, 0.0, value), playing

    def _see_failure(
        self, step: Step, playing: np.ndarray, remedy: str = "Mend the environment."
    ) -> None:
        for index in np.flatnonzero(playing & step.crashed):
            if (failure := step.errors[index]) is not None:
                self.cause = f"{failure.line}. {remedy}"

    def _back(self, branch: _Branch, playing: np.ndarray) -> np.ndarray:
        """Restore the moment of each episode; returns where one is played and that succeeded."""
        step = self.envs.resume(branch.snapshots)
        self._see_failure(
            step,
            playing,
            "A bank plays on from each moment again and again, so episodes must follow from their "
            "seed and actions. Mend the environment's `reset(seed=...)`.",
        )
        return playing & ~step.crashed

    def _value(self, states: Any) -> np.ndarray:
        if not self.has_critic:
            return np.full(self.plan.batch, np.nan, np.float32)
        return np.asarray(_values(self.agent.model, states), np.float32)


@eqx.filter_jit
def _values(model: Any, states: Any) -> Array:
    return jax.vmap(lambda state: expected(model.value(state)))(states)


@jax.jit
def _keys(seed: int | Array, seeds: Array, decision: int | Array, stream: int | Array) -> Array:
    """One key per environment; stream 0 is the base agent's own, the others of its futures."""
    key = jr.fold_in(jr.key(seed), PURPOSE)
    return jax.vmap(lambda s: jr.fold_in(jr.fold_in(jr.fold_in(key, s), decision), stream))(seeds)


@jax.jit
def _again(keys: Array, number: int | Array) -> Array:
    """The keys of one draw. The first draw has the base agent's own keys."""
    return jax.vmap(
        lambda key: jnp.where(number == 0, jr.key_data(key), jr.key_data(jr.fold_in(key, number)))
    )(keys)
