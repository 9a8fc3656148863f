"""When to think: an agent that thinks only where a score is high.

A closed gate should cost nothing. Under `vmap` a conditional becomes a selection and saves no
work, so there are two compiled programs. The first decides for the whole batch without refinement
and computes the scores. The second decides again, with refinement, only for the environments above
the threshold, gathered into a batch whose size is the next power of two. Below the threshold, a
decision equals that of the agent without steps, bit for bit. Above it, a decision equals that of
the thinking agent, except for the rounding of another batch size.
"""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Bool, Int, Key

from thinkslow.agent.abstract import About, AbstractAgent
from thinkslow.agent.agent import Agent, bare
from thinkslow.agent.decision import Decided, Thought, decide, decide_batch
from thinkslow.agent.gates.scores import BaseDecision, GateScore
from thinkslow.agent.inputs import Ages, Carry, Flags, Inputs, Observations, prepared
from thinkslow.agent.thinking import Thinking
from thinkslow.needs import unmet
from thinkslow.objectives.members import Members
from thinkslow.settings import fits, floating, plain
from thinkslow.trees import Parts, Tree, compiled, once, one_number, parts
from thinkslow.worldmodel import WorldModel


class Gated(AbstractAgent):
    """An agent that thinks where `score` is above `threshold`.

    A threshold may be changed (`opening_above`) without compiling again.

    Args:
        agent: the agent that thinks; its settings must refine, or have a `choice`.
        score: the score of a decision.
        threshold: the agent thinks above it; None: not calibrated yet, to open for `share`.
        share: the share of the decisions in which the gate should open.

    **Errors:** `ValueError` for an agent that does not think, an agent with `lag` or `particles`
    (its carry would have to be updated while the gate is closed), a score whose needs the agent
    lacks, a NaN threshold, or neither a threshold nor a share; `TypeError` for an agent with a gate
    or a deadline.
    """

    agent: Agent
    model: WorldModel
    about: About
    score: GateScore
    threshold: float | None
    share: float | None

    def __init__(
        self,
        agent: AbstractAgent,
        score: GateScore,
        threshold: float | None = None,
        *,
        share: float | None = None,
    ):
        agent = bare(agent)
        settings = agent.settings
        if not (settings.steps or settings.choice) or settings.lag or settings.particles > 1:
            raise ValueError(
                "A gate opens for thinking: `steps` must be 1 or more or a `choice` given, "
                f"`lag` 0 and `particles` 1; got {settings.steps}, {settings.choice}, "
                f"{settings.lag} and {settings.particles}."
            )
        if not isinstance(score, GateScore):
            raise TypeError(f"`score` must be a GateScore, such as Surprise(); got {score!r}.")
        if (reason := unmet(agent.model, score.needs, agent.members)) is not None:
            raise ValueError(f"`{score.name}` does not work with this agent: {reason}.")
        if share is not None:
            check_share(share)
        if threshold is None and share is None:
            raise ValueError("A gate needs a `threshold`, or the `share` that it should open for.")
        threshold = floating(plain(threshold))
        if not fits(threshold, float | None):
            raise TypeError(f"`threshold` must be a number or None; got {threshold!r}.")
        if isinstance(threshold, float) and math.isnan(threshold):
            raise ValueError("`threshold` must be a number, as no score is above NaN; got nan.")
        self.agent, self.model, self.about = agent, agent.model, agent.about
        self.score, self.threshold, self.share = score, threshold, share

    def opening_above(self, threshold: float) -> "Gated":
        """The same gate with another threshold.

        Args:
            threshold: the agent thinks above it; in units of the score.
        """
        return Gated(self.agent, self.score, threshold, share=self.share)

    @property
    def inner(self) -> Agent:
        return self.agent

    def having(self, settings: Thinking) -> "Gated":
        agent = self.agent.having(settings)
        return Gated(agent, self.score, self.threshold, share=self.share)

    def having_model(self, model: WorldModel, members: Members | None) -> "Gated":
        agent = self.agent.having_model(model, members)
        return Gated(agent, self.score, self.threshold, share=self.share)

    def having_returns(self, spread: float) -> "Gated":
        agent = self.agent.having_returns(spread)
        return Gated(agent, self.score, self.threshold, share=self.share)

    def start(self, batch: int) -> Carry:
        return self.agent.start(batch)

    def act(
        self,
        carry: Carry,
        observation: Observations,
        is_first: Bool[Array | np.ndarray, " batch"],
        *,
        keys: Key[Array, " batch"],
        missing: Flags | None = None,
        age: Ages | None = None,
    ) -> Decided:
        """One decision for a batch, like `AbstractAgent.act`; the iterates of refinement are not
        kept.

        One compiled call if no score is above the threshold, otherwise two. A NaN score does not
        open the gate. The thinking program is compiled once for each power of two up to the batch,
        when it is first needed or by `warm`.

        Args:
            carry: from `start`, or from the previous decision.
            observation: arrays by name; leading axis: the batch.
            is_first: which environments begin an episode; their past is forgotten.
            keys: one for each environment.
            missing: which observations are missing, as in `Agent.act`.
            age: how many decisions old each observation is, as in `Agent.act`.

        **Errors:** `ValueError` for a gate that is not calibrated.
        """
        if self.threshold is None:
            raise ValueError(
                f"This gate should open for {self.share:.0%} of the decisions and has no threshold "
                "yet. Calibrate it: thinkslow.calibrated(agent, environment); or give a "
                "`threshold`."
            )
        given = Inputs(carry, observation, is_first, keys)
        given = prepared(self.agent, given, missing=missing, age=age)
        first = _look(*self._looking, given)
        doubtful = np.flatnonzero(np.asarray(first[2].doubt) > self.threshold)
        return self._again(given, first, doubtful) if len(doubtful) else first

    def warm(
        self,
        carry: Carry,
        observation: Observations,
        is_first: Bool[Array | np.ndarray, " batch"],
        *,
        keys: Key[Array, " batch"],
    ) -> None:
        given = prepared(self.agent, Inputs(carry, observation, is_first, keys))
        first = _look(*self._looking, given)
        if self.threshold == np.inf:  # as in calibration: it never opens
            return
        for size in {_padded(count) for count in range(1, len(keys) + 1)}:
            jax.block_until_ready(self._again(given, first, np.arange(min(size, len(keys)))))

    @once
    def _looking(self) -> Parts:
        plain = dataclasses.replace(self.agent.settings, steps=0, choice=None)
        agent = eqx.tree_at(lambda a: (a.settings, a.about), self.agent, (plain, None))
        return parts((agent, self.score))

    def _again(self, given: Inputs, first: Decided, doubtful: np.ndarray) -> Decided:
        # Places beyond the batch read its last entry and write nowhere.
        chosen = np.full(_padded(len(doubtful)), len(given.is_first))
        chosen[: len(doubtful)] = doubtful
        return _think_again(*self.agent.parts, given, first, chosen)


def _padded(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def check_share(share: float) -> None:
    """**Errors:** `ValueError` for a share outside (0, 1]."""
    if not 0 < share <= 1:
        raise ValueError(f"`share` must be above 0 and at most 1; got {share}.")


def threshold_of(scores: npt.ArrayLike, share: float) -> float:
    """The threshold that a `share` of the recorded scores exceeds; NaN scores are left out.

    Equal scores are all above it or all below it, whichever is nearer to the share.

    **Errors:** `ValueError` for a share outside (0, 1], or no scores.

    >>> threshold_of([1.0, 2.0, 3.0, 4.0, 5.0], 0.4)
    3.0
    >>> threshold_of([0.0, 0.0, 0.0, 1.0, 1.0], 0.3)
    0.0
    """
    values = np.asarray(scores, float).ravel()
    values = values[~np.isnan(values)]
    check_share(share)
    if not len(values):
        raise ValueError("`scores` must hold at least one number to calibrate by; got none.")
    if share == 1:
        return float("-inf")
    at = np.quantile(values, 1 - share, method="inverted_cdf")
    below, equal = values[values < at], np.sum(values == at)
    if equal > 1 and np.sum(values > at) + equal / 2 < share * len(values):
        at = np.max(below, initial=-np.inf)
    return float(at)


@compiled
def _look(looking: tuple[Agent, GateScore], given: Inputs) -> Decided:
    """Decide without thinking, and score."""
    agent, score = looking
    model = agent.model

    def one(given: Inputs) -> Decided:
        carry, action, thought = decide(agent, given)
        decision = BaseDecision(
            model=model,
            policy=lambda s, k: agent.policy(model, s, k),
            thought=thought,
            observation=given.observation,
            members=agent.members,
        )
        found = score(decision, key=jr.fold_in(given.key, _OF_SCORES))
        found = one_number(f"The gate score {score.name}", found)
        return carry, action, dataclasses.replace(_flagged(thought), doubt=found)

    return jax.vmap(one)(given)


def _flagged(thought: Thought) -> Thought:
    """With and without thinking, the records of a batch must have one structure."""
    replaced = jnp.zeros_like(thought.seen) if thought.replaced is None else thought.replaced
    return dataclasses.replace(thought, replaced=replaced)


_OF_SCORES = 0x6A7E
"""Far from the small numbers that splitting a key folds in."""


@compiled
def _think_again(
    agent: Agent, given: Inputs, first: Decided, chosen: Int[Array | np.ndarray, " some"]
) -> Decided:
    """Decide again for the chosen environments, and replace their first decisions."""

    def some(tree: Tree) -> Tree:
        return jax.tree.map(lambda x: x[jnp.minimum(chosen, len(given.key) - 1)], tree)

    carry, action, thought = decide_batch(agent, some(given))
    doubt = some(first[2].doubt)
    thought = dataclasses.replace(_flagged(thought), refined=None, chosen=None, doubt=doubt)
    return jax.tree.map(
        lambda old, new: old.at[chosen].set(new, mode="drop"), first, (carry, action, thought)
    )
