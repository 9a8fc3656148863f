"""An episode played by one arm while others think at each of its decisions.

At every decision, every other arm starts from the carried state and action of the acting arm, sees
the same frame and gets the same random numbers. Its other memory, such as a window of frames or
particles, is its own. Seeds and noise are those of an evaluation: `seed` and `number` give the same
episode as in `evaluate`, except for the rounding of another batch size.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.agent.deadline import Timed
from thinkslow.agent.decision import Thought
from thinkslow.agent.gates import Gated
from thinkslow.agent.inputs import Carry
from thinkslow.envs import Step, VectorEnv
from thinkslow.evaluation.play import Telling, decision_keys, taken_by
from thinkslow.trees import put

Tick = Callable[[str, int], None]
"""Called with the present part and the number of decisions made."""


class Told(NamedTuple):
    """The results of one arm at one decision, on the host, without a batch axis."""

    action: np.ndarray
    """The action vector that it takes or would take."""
    beliefs: Any
    """Prior, encoder's belief and belief after thinking; None for an agent of another kind."""
    states: Any
    """The state without thinking and the state that acts; None for an agent of another kind."""
    moved: float
    thinks: bool
    doubt: float | None
    """The score of the gate."""
    descent: Mapping[str, Any] | None
    """`loss` and `moved` of every iterate of a refinement, the index `chosen`, and `status`."""
    improved: np.ndarray | None
    """Probabilities of the compared actions after a choice by value."""
    compared: np.ndarray | None
    """The vectors of the compared actions."""


@dataclasses.dataclass
class Episode:
    """The played episode, decision by decision."""

    acting: str
    frames: list[dict[str, np.ndarray]]
    """Observations by name; one more than decisions."""
    rewards: list[float]
    thoughts: dict[str, list[Told]]
    """The decisions of each arm."""
    ended: str = "stopped"
    """`over`, `cut` at the limit of decisions, `crashed`, or `stopped` from outside."""
    error: str | None = None
    stop: KeyboardInterrupt | None = None
    """The exception that stopped it."""

    @property
    def length(self) -> int:
        return len(self.rewards)

    @property
    def actions(self) -> np.ndarray:
        """The played action vectors, `[decisions, action]`."""
        return np.stack([one.action for one in self.thoughts[self.acting]])


class Thinker:
    """One arm, which thinks at the decisions of the acting arm.

    Args:
        agent: the arm, calibrated and fitted to the environment.
        observation: the first observation; it shows whether the environment flags missing frames.
    """

    def __init__(self, agent: AbstractAgent, observation: Mapping[str, np.ndarray]):
        self.model = agent.model
        self.threshold = agent.threshold if isinstance(agent, Gated) else None
        self._looking = agent.opening_above(np.inf) if isinstance(agent, Gated) else None
        self._thinking = _recording(agent)
        self._tell = Telling(agent, observation)
        self.carry = agent.start(1)

    def think(self, step: Step, keys: Any, leader: Any = None) -> tuple[Told, np.ndarray]:
        """Decide on the observation of `step`. Also returns the action vectors, with a batch axis
        of 1.

        Args:
            step: of one environment.
            keys: one.
            leader: the carry of the acting arm; None for the acting arm itself.
        """
        carry = self.carry
        if leader is not None:
            carry = dataclasses.replace(carry, state=leader.state, action=leader.action)
        given = (carry, step.observation, step.is_first)
        known = self._tell(step.observation)
        doubt, out = None, None
        if self._looking is not None:
            out = self._looking.act(*given, keys=keys, **known)
            doubt = float(np.asarray(out[2].doubt)[0])
        if out is None or (doubt is not None and doubt > float(self.threshold or 0)):
            out = self._thinking.act(*given, keys=keys, **known)
        self.carry, action, thought = jax.block_until_ready(out)
        return _told(thought, np.asarray(action)[0], doubt), np.asarray(action)


def play(
    arms: Mapping[str, AbstractAgent],
    acting: str,
    envs: VectorEnv,
    *,
    seed: int,
    environment_seed: int,
    max_decisions: int,
    tick: Tick = lambda *_: None,
) -> Episode:
    """Play one episode.

    Args:
        arms: agents by name, calibrated and fitted.
        acting: the arm whose actions are taken.
        envs: of one environment.
        seed: of the noise of latents and actions.
        environment_seed: of the episode.
        max_decisions: number of decisions after which it is cut.
        tick: called at each decision.

    A `KeyboardInterrupt` ends the episode. The result is then complete up to the last decision, and
    has the interrupt as `stop`.

    **Errors:** those of the environment; `ValueError` for arms that cannot follow the acting one.
    """
    tick("starting the environment", 0)
    step = envs.reset([environment_seed])
    thinkers = {name: Thinker(agent, step.observation) for name, agent in arms.items()}
    _check_alike(acting, thinkers)
    order = [acting, *(name for name in arms if name != acting)]
    episode = Episode(acting, [_first(step)], [], {name: [] for name in arms})
    own = put([environment_seed], np.uint32)
    try:
        while episode.length < max_decisions:
            number = episode.length
            keys = decision_keys(seed, own, number)
            leader, found, played = thinkers[acting].carry, {}, np.empty(0)
            for name in order:
                tick(f"{name}, compiling once" if number == 0 else "playing", number)
                follows = None if name == acting else leader
                found[name], vector = thinkers[name].think(step, keys, follows)
                played = vector if name == acting else played
            step = envs.step(
                taken_by(thinkers[acting].model.split, played), playing=np.ones(1, bool)
            )
            for name, told in found.items():
                episode.thoughts[name].append(told)
            episode.rewards.append(float(step.reward[0]))
            episode.frames.append(_first(step))
            if step.is_last[0]:
                episode.ended = "crashed" if step.crashed[0] else "over"
                failure = step.errors[0] if step.crashed[0] else None
                episode.error = failure.line if failure else None
                break
        else:
            episode.ended = "cut"
    except KeyboardInterrupt as stop:
        episode.ended, episode.stop = "stopped", stop
    return _whole(episode)


def _whole(episode: Episode) -> Episode:
    """The episode without an incomplete last decision, so that all lists have one length."""
    count = min(len(episode.frames) - 1, len(episode.rewards), *map(len, episode.thoughts.values()))
    del episode.frames[count + 1 :], episode.rewards[count:]
    for told in episode.thoughts.values():
        del told[count:]
    return episode


def _check_alike(acting: str, thinkers: Mapping[str, Thinker]) -> None:
    """**Errors:** `ValueError` for an arm with another kind of memory than the acting arm."""
    leader = thinkers[acting].carry
    for name, thinker in thinkers.items():
        carries = leader, thinker.carry
        if name != acting and not (
            all(isinstance(one, Carry) for one in carries) and _shapes(carries[0], carries[1])
        ):
            raise ValueError(
                f"{name} cannot think on the frames of {acting}: its memory is of another kind. "
                "Watch it alone."
            )


def _shapes(first: Any, second: Any) -> bool:
    """Whether two carries hold states and actions of the same shapes and types."""
    kinds = [
        jax.tree.map(lambda x: (x.shape, str(x.dtype)), (one.state, one.action))
        for one in (first, second)
    ]
    return kinds[0] == kinds[1]


def _recording(agent: AbstractAgent) -> AbstractAgent:
    """The thinking agent behind an open gate, which also evaluates its objective at the refined
    belief.
    """
    inner = agent.inner
    if inner is None or not inner.settings.steps:
        return inner if isinstance(agent, Gated) and inner is not None else agent
    inner = inner.having(dataclasses.replace(inner.settings, record=True))
    return Timed(inner, agent.deadline_ms) if isinstance(agent, Timed) else inner


def _first(step: Step) -> dict[str, np.ndarray]:
    return {name: np.array(part[0]) for name, part in step.observation.items()}


def _told(thought: Any, action: np.ndarray, doubt: float | None) -> Told:
    known = isinstance(thought, Thought)
    beliefs = (thought.prior, thought.before, thought.after) if known else None
    states = (thought.base, thought.state) if known else None
    refined, chosen = getattr(thought, "refined", None), getattr(thought, "chosen", None)
    numbers = jax.device_get(
        (
            beliefs,
            states,
            thought.moved,
            thought.thinks,
            refined and _descent(refined),
            chosen and (chosen.improved, chosen.actions),
        )
    )
    beliefs, states, moved, thinks, descent, choice = jax.tree.map(lambda x: x[0], numbers)
    if descent is not None:
        made = int(descent["used"]) + 1
        descent = {
            "loss": descent["loss"][:made],
            "moved": descent["moved"][:made],
            "chosen": int(descent["chosen"]),
            "status": int(descent["status"]),
        }
    improved, compared = choice or (None, None)
    return Told(
        action,
        beliefs,
        states,
        float(moved),
        bool(thinks),
        doubt,
        descent,
        None if improved is None else np.exp(improved),
        compared,
    )


def _descent(refined: Any) -> dict[str, Any]:
    return {name: getattr(refined, name) for name in ("loss", "moved", "chosen", "status", "used")}
