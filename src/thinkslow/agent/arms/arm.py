"""An arm: how to think, when, and for how long."""

import dataclasses
from typing import TYPE_CHECKING, Any

from thinkslow import registry
from thinkslow.agent.thinking import Thinking

if TYPE_CHECKING:
    from thinkslow.agent.abstract import AbstractAgent
    from thinkslow.agent.agent import Agent
    from thinkslow.agent.gates.scores import GateScore
    from thinkslow.objectives.members import Source

SHARE = 0.2
"""By default a gate opens for a fifth of the decisions."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to think that an evaluation compares: how, when and for how long.

    **Errors:** `ValueError` for settings that exclude each other; `TypeError` for what is not a
    `Thinking`.
    """

    thinking: Thinking
    gate: "GateScore | None" = None
    """Think only where this score is high; by default think at every decision."""
    share: float = SHARE
    """Share of the decisions in which the gate should open; its threshold is calibrated to it."""
    members: "Source | None" = None
    """The source of its plausible parameters; None: the agent's own."""
    deadline_ms: float | None = None
    """Stop refining in time to act this many milliseconds after the observation, for the whole
    batch."""

    def __post_init__(self) -> None:
        if not isinstance(self.thinking, Thinking):
            raise TypeError(
                "An `Arm` is made of a `Thinking`, such as "
                f"`thinkslow.arm('evidence').thinking`; got {self.thinking!r}."
            )
        _check_kinds(self.gate, self.members)
        check_when(
            gated=self.gate is not None,
            share=self.share,
            deadline_ms=self.deadline_ms,
            particles=self.thinking.particles,
        )

    def of(self, agent: "Agent") -> "AbstractAgent":
        """The agent with this way to think.

        Args:
            agent: the agent that should think.

        **Errors:** `ValueError` if the agent lacks something that the arm needs.
        """
        from thinkslow.agent.deadline import Timed
        from thinkslow.agent.gates.gated import Gated

        if self.members is not None:
            agent = agent.having_members(self.members)
        thinking = agent.having(self.thinking)
        if self.deadline_ms is not None:
            return Timed(thinking, self.deadline_ms)
        if self.gate is not None:
            return Gated(thinking, self.gate, share=self.share)
        return thinking

    @property
    def compares_members(self) -> bool:
        """Whether it needs plausible parameters, like the term `pig`."""
        from thinkslow.agent.agent import needs_of
        from thinkslow.needs import MEMBERS

        needs = [need for _, some in needs_of(self.thinking) for need in some]
        return MEMBERS in (*needs, *(self.gate.needs if self.gate else ()))


def check_when(
    *, gated: bool, share: float = SHARE, deadline_ms: float | None = None, particles: int = 1
) -> None:
    """Check when and for how long an arm thinks.

    Args:
        gated: whether it has a gate.
        share: the share of the decisions in which the gate should open.
        deadline_ms: milliseconds for a decision; None: no limit.
        particles: beliefs of each decision.

    **Errors:** `ValueError` for a value out of range, or settings that exclude each other.
    """
    if not 0 < share <= 1:
        raise ValueError(f"`share` must be above 0 and at most 1; got {share}.")
    if not gated and share != SHARE:
        raise ValueError("`share` needs a gate, which is calibrated to it: pass `gate=SCORE` too.")
    if deadline_ms is not None and not deadline_ms >= 0:
        raise ValueError(f"`deadline_ms` must be 0 or more; got {deadline_ms}.")
    if deadline_ms is not None and (gated or particles > 1):
        raise ValueError(
            "`deadline_ms` stops the refinement of every decision of one belief: it goes with "
            "neither a `gate` nor `particles`."
        )


def _check_kinds(gate: Any, members: Any) -> None:
    """**Errors:** `TypeError` for a gate or a source of members of another kind."""
    if gate is not None:
        from thinkslow.agent.gates.scores import GateScore

        if not isinstance(gate, GateScore):
            raise TypeError(f"`gate` must be a GateScore, such as Surprise(); got {gate!r}.")
    if members is not None:
        from thinkslow.objectives.members import Source

        if not isinstance(members, Source):
            raise TypeError(f"`members` must be a Source, such as Noise(0.05); got {members!r}.")


def arm(name: str) -> Arm:
    """An arm by its name.

    Args:
        name: a name that `thinkslow arms` lists, or a registered one.

    **Errors:** `ValueError` for an unknown name, with the nearest; `TypeError` for a registered
    function that returns something else than a `Thinking` or an `Arm`.
    """
    found = registry.make("arm", name)
    return Arm(found) if isinstance(found, Thinking) else found
