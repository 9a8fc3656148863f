"""Measure gaps: play the base agent, and measure moments of its play one by one.

All random numbers are determined by the plan's seed, so interruptions do not change the results. To
continue in the middle of a block, its episodes are played again; stored moments are not measured
again.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.agent.agent import Agent
from thinkslow.agent.inputs import Carry
from thinkslow.agent.thinking import Thinking
from thinkslow.envs import VectorEnv, arguments
from thinkslow.envs.descriptions import described_environment
from thinkslow.evaluation.calibrate import calibrated_in
from thinkslow.evaluation.play import Played, decision_keys, play
from thinkslow.evaluation.records import BASE
from thinkslow.evaluation.seeds import episode_seed
from thinkslow.evaluation.subjects import (
    Agents,
    by_name,
    facts,
    fitted,
    settings,
)
from thinkslow.gap import bounds, moment, paths, stored
from thinkslow.gap.moment import Effort, Later
from thinkslow.gap.plan import Plan
from thinkslow.gap.stored import BEST, BEST_LATER, Header, Row
from thinkslow.gap.watch import Recorder, Seen
from thinkslow.plural import plural
from thinkslow.saved.provenance import provenance
from thinkslow.storage.headers import Occupied, as_read
from thinkslow.storage.lock import writing
from thinkslow.storage.paths import expanded

PURPOSE = 0x6A9
"""The purpose of these environment seeds: episodes outside training and evaluation."""
DRAWS = 8
"""Number of latents in the mean of a cost, within a sweep."""

log = logging.getLogger("thinkslow")

Show = Callable[[str, int, int], None]


def measure(
    agents: Agents,
    environment: str | Mapping[str, Any],
    plan: Plan,
    out: str | Path,
    *,
    limits: Mapping[str, Any] | None = None,
    command: str = "",
    show: Show = lambda *_: None,
) -> tuple[Header, list[Row]]:
    """Measure the gaps of agents, or continue an unfinished measurement in the folder.

    Args:
        agents: `{arm: agent}`, or `{name: {arm: agent}}` for several; the arm `none` is the
            encoder's belief.
        environment: its id, or a mapping with `id` and optionally `size` and `repeat`.
        plan: the settings of the measurement.
        out: the folder. A measurement with the same settings is continued; any other is refused.
        limits: time limits of the environments, as `VectorEnv` takes them.
        command: the command to store in the records.
        show: called with the present part, the moments measured, and the moments wanted.

    **Cost:** for each moment `(restarts + 2) * sweeps * factors * classes * 8` decodings,
    about as many for the frames that follow, and `samples` for the bound. Memory does not grow
    with the number of episodes.

    **Errors:** `Occupied`; `ValueError` for an agent or an arm whose gaps cannot be measured,
    saying why; those of the environment.
    """
    named = by_name(agents)
    folder, setting = expanded(out), described_environment(environment)
    for name, arms in named.items():
        for arm, agent in arms.items():
            if (reason := refusal(agent, plan.beta, base=arm == BASE)) is not None:
                raise ValueError(f"{name}, {arm}: no gap can be measured: {reason}.")
    header = as_read(_header(named, setting, plan, command))
    with writing(folder):
        before, rows = _opened(folder, header, named)
        if before is not None and before.episodes == header.episodes:
            header = before
        stored.write_header(folder, header)
        failed = ""
        if _missing(named, rows, header.episodes):
            with VectorEnv(**arguments(setting), count=header.count, **dict(limits or {})) as envs:
                failed = _Measuring(folder, header, plan, rows, envs, show).run(named)
        else:
            log.info("%s holds these gaps already: nothing is measured.", folder)
    if not stored.measured(rows):
        if failed:
            raise ValueError(f"{setting['id']} failed before every moment: {failed}. Mend it.")
        raise ValueError(
            f"Episodes of {setting['id']} are shorter than {plural(plan.lag + 1, 'decision')}: "
            "no moment has "
            f"{plural(plan.lag, 'frame')} after it. Pass a smaller `lag`."
        )
    return header, rows


def refusal(agent: AbstractAgent, beta: float | None, *, base: bool = False) -> str | None:
    """Why the gaps of an arm cannot be measured; None if they can.

    Args:
        agent: the arm.
        beta: weight of the KL; None: as the model was trained.
        base: whether it is the agent that plays.
    """
    inner = agent.inner
    if inner is None:
        return "it is not an `Agent`, so its belief is unknown"
    if (reason := moment.refusal(inner.model, beta)) is not None:
        return reason
    one = inner.settings
    if base and one != Thinking():
        return "the arm `none` must not think"
    several = one.particles > 1 or one.futures > 1
    if one.lag or several or one.delay or one.check is not None:
        return "it carries more of the past than the base agent, at whose moments it is measured"
    if one.variable != "belief":
        return f"it steps the {one.variable} as floats, which is no belief"
    if one.memory_share is not None:
        return "it moves the memory, which must be frozen: beliefs are then about another latent"
    belief = jax.eval_shape(lambda: _prior(inner))
    return bounds.refusal(belief)


def _prior(agent: Agent) -> Any:
    carry = jax.tree.map(lambda x: x[0], agent.start(1))
    return agent.model.predict(carry.state, carry.action, jnp.ones((), bool))[1]


def _header(
    named: Mapping[str, Mapping[str, AbstractAgent]],
    setting: dict[str, Any],
    plan: Plan,
    command: str,
) -> Header:
    given = dataclasses.asdict(plan)
    del given["beta"], given["batch"]
    return Header(
        environment=setting,
        agents=[
            {
                **facts(name, arms),
                "beta": _beta(arms[BASE], plan),
                "free_nats": arms[BASE].model.trained_free_nats,
            }
            for name, arms in named.items()
        ],
        arms=[
            settings(name, arm, agent)
            for name, arms in named.items()
            for arm, agent in arms.items()
        ],
        count=min(plan.batch, plan.episodes),
        versions=provenance()["versions"],
        command=command,
        **given,
    )


def _beta(agent: AbstractAgent, plan: Plan) -> float:
    return float(agent.model.trained_beta if plan.beta is None else plan.beta)


def _opened(
    folder: Path, header: Header, named: Mapping[str, Any]
) -> tuple[Header | None, list[Row]]:
    if not stored.is_there(folder):
        left = [entry.name for entry in folder.iterdir() if entry.name != "lock.json"]
        if left:
            raise Occupied(f"{folder} holds {left[0]} and no gaps. Pass another `out`.")
        return None, []
    before, rows = stored.read(folder)
    whole = not _missing(named, rows, header.episodes)
    if differences := before.differences(header, whole=whole):
        raise Occupied(
            f"{folder} holds other gaps: {'; '.join(differences)}. Pass another `out`, or the "
            "settings that it was begun with."
        )
    stored.drop_torn_line(folder)
    return before, rows


def _missing(named: Mapping[str, Any], rows: Sequence[Row], episodes: int) -> bool:
    return not all(
        stored.is_whole(stored.of_episode(rows, name, number))
        for name in named
        for number in range(episodes)
    )


class _Measuring:
    """The state of a measurement."""

    def __init__(
        self, folder: Path, header: Header, plan: Plan, rows: list[Row], envs: VectorEnv, show: Show
    ):
        self.folder, self.header, self.plan, self.rows = folder, header, plan, rows
        self.envs, self.show = envs, show
        self.skipped = 0
        """Number of moments for which episodes were too short."""
        self.failed = ""
        """How the environment failed, the last time that an episode had no moment because of it."""

    def run(self, named: Mapping[str, Mapping[str, AbstractAgent]]) -> str:
        """Measure what is missing; returns `failed`."""
        for place, (name, arms) in enumerate(named.items()):
            ready: dict[str, Agent | AbstractAgent] = {}
            for first in range(0, self.plan.episodes, self.envs.count):
                wanted = [
                    number
                    for number in range(first, min(first + self.envs.count, self.plan.episodes))
                    if not stored.is_whole(stored.of_episode(self.rows, name, number))
                ]
                if not wanted:
                    continue
                if not ready:
                    ready = {arm: self._ready(agent, name) for arm, agent in arms.items()}
                recorder, played = self._played(name, ready[BASE], first)
                for number in wanted:
                    found, one = recorder.moments(number - first), played[number - first]
                    if one.error and not found:  # the same command plays it again
                        self.failed = one.error
                        continue
                    self._episode(place, name, ready, number, one.environment_seed, found)
        return self.failed

    def _ready(self, agent: AbstractAgent, name: str) -> AbstractAgent:
        agent = fitted(agent, self.envs, name=name)
        return calibrated_in(
            agent, self.envs, self.plan.seed, max_decisions=self.plan.max_decisions
        )

    def _tell(self, what: str) -> None:
        total = len(self.header.agents) * self.plan.episodes * self.plan.moments
        self.show(what, len(stored.measured(self.rows)) + self.skipped, total)

    def _played(self, name: str, base: AbstractAgent, first: int) -> tuple[Recorder, list[Played]]:
        plan = self.plan
        seeds = [
            episode_seed(plan.seed, first + index, purpose=PURPOSE)
            for index in range(self.envs.count)
        ]
        recorder = Recorder(base.start(self.envs.count), lag=plan.lag, moments=plan.moments)
        played = play(
            base,
            self.envs,
            seeds,
            plan.seed,
            max_decisions=plan.max_decisions,
            watchers=[recorder],
            tick=lambda decision, over: self._tell(f"{name}: playing, decision {decision:,}"),
        )
        return recorder, played

    def _episode(
        self,
        place: int,
        name: str,
        arms: Mapping[str, AbstractAgent],
        number: int,
        seed: int,
        found: Sequence[Seen],
    ) -> None:
        facts = {"agent": name, "episode": number, "environment_seed": seed, "of": len(found)}
        there = stored.of_episode(self.rows, name, number)
        if not found:
            self._add({**facts, "of": 1, "decision": None})
        path = stored.path_file(self.folder, place, number)
        beta = self.header.agents[place]["beta"]
        for seen in found:
            if any(row["decision"] == seen.decision for row in there):
                continue
            self._tell(f"{name}: measuring, episode {number}")
            looked = look(arms, seen, self.plan, seed, beta)
            drawn = paths.read(path)
            if drawn is None or looked.gap > drawn.gap:
                paths.write(
                    path,
                    looked.ways(),
                    gap=looked.gap,
                    decision=seen.decision,
                    agent=name,
                    episode=number,
                )
            self._add({**facts, "decision": seen.decision, **looked.row})
        self.skipped += self.plan.moments - len(found)
        self._tell(f"{name}: measuring, episode {number}")

    def _add(self, row: Row) -> None:
        stored.append(self.folder, row)
        self.rows.append(row)


@dataclasses.dataclass(frozen=True)
class Looked:
    """The measurements of one moment."""

    row: Row
    gap: float
    """The gap of the encoder's belief to the best belief."""
    ways: Callable[[], paths.Ways]
    """Computed on request, because few moments are drawn."""


def look(
    arms: Mapping[str, AbstractAgent], seen: Seen, plan: Plan, environment_seed: int, beta: float
) -> Looked:
    """Measure one moment.

    Args:
        arms: the arms by name, `none` first.
        seen: the recorded moment.
        plan: the settings of the measurement.
        environment_seed: the environment seed of its episode; with it, arms have the same noise as
        in an evaluation.
        beta: weight of the KL.
    """
    base = arms[BASE].inner
    assert base is not None  # checked by `refusal`
    model: Any = base.model
    seeds = jnp.array([environment_seed], jnp.uint32)
    key = decision_keys(plan.seed, seeds, seen.decision)
    search_key, score_key = jr.split(jr.fold_in(key[0], PURPOSE))
    scene, weight = _scene(model, seen), jnp.float32(beta)
    now, observation = scene.moment, scene.observation
    effort = Effort(plan.sizes, plan.sweeps, plan.restarts, DRAWS)
    found = moment.searched(model, scene, weight, search_key, effort=effort)
    beliefs = {arm: _after(agent, seen, observation, key) for arm, agent in arms.items()}
    ends = {**beliefs, BEST: found.best.belief, BEST_LATER: found.best_later.belief}
    together = jax.tree.map(lambda *xs: jnp.stack(xs), *map(bounds.unmixed, ends.values()))
    scores = moment.scored(model, scene, together, weight, score_key)
    row: Row = {
        "surprise": _finite(now.posterior.kl(now.prior)),
        "beliefs": {
            name: {what: _finite(getattr(scores, what)[at]) for what in stored.NUMBERS}
            for at, name in enumerate(ends)
        },
        "bound": {
            str(size): _finite(value)
            for size, value in zip(plan.sizes, found.bound.values, strict=True)
        },
        "effective": _finite(found.bound.effective),
        "begin": int(found.best.begin),
    }

    def ways() -> paths.Ways:
        out = {"prior": paths.stacked([now.prior])}
        for arm, agent in arms.items():
            inner = agent.inner
            assert inner is not None
            steps = (
                paths.steps_of(inner, now, observation, beliefs[arm], key[0])
                if inner.settings.steps
                else [now.posterior]
            )
            out[arm] = paths.stacked(steps)
        out[BEST] = paths.each(found.best.path)
        out[BEST_LATER] = paths.each(found.best_later.path)
        return out

    gap = float(scores.loss[0] - scores.loss[len(arms)])
    return Looked(row, gap if math.isfinite(gap) else -math.inf, ways)


def _scene(model: Any, seen: Seen) -> moment.Scene:
    """A recorded moment as the model perceives it, with the decisions and frames that follow."""
    names = [name for name, _ in model.observation_spaces] or list(seen.observation)
    observation = {name: jnp.asarray(seen.observation[name]) for name in names}
    later = Later(
        jnp.asarray(np.stack(seen.actions)),
        {name: jnp.asarray(np.stack([one[name] for one in seen.later])) for name in names},
    )
    first = jnp.array(seen.decision == 0)
    state = jax.tree.map(jnp.asarray, seen.state)
    now = moment.perceived(model, state, jnp.asarray(seen.action), first, observation)
    return moment.Scene(now, observation, later)


def _after(agent: AbstractAgent, seen: Seen, observation: Mapping[str, Any], keys: Any) -> Any:
    """The belief of an arm at a moment of the base agent."""
    start = agent.start(1)
    assert isinstance(start, Carry)
    state = jax.tree.map(lambda x: jnp.asarray(x)[None], seen.state)
    carry = dataclasses.replace(start, state=state, action=jnp.asarray(seen.action)[None])
    batch = {name: value[None] for name, value in observation.items()}
    thought = agent.act(carry, batch, np.array([seen.decision == 0]), keys=keys)[2]
    return jax.tree.map(lambda x: x[0], thought.after)


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
