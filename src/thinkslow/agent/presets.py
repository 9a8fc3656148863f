"""Named ways to think: what `evaluate --arms` knows. Frozen; a change gets a new name.

Three kinds: the paper's objectives at its rollout lengths, ours, and the controls that a gain
must beat. Every arm that refines moves the belief by up to 4 nats, a value from an experiment
with other agents and seeds than those reported; no arm was tuned on the agents here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from thinkslow.agent.gates import SCORES, Score
from thinkslow.agent.thinking import Thinking

LENGTHS = (1, 3, 8, 16)
"""Rollout lengths of the paper."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to think, with one line that says what it is."""

    thinking: Thinking
    description: str
    gate: Score | None = None
    """What of `gates.SCORES` it goes by in when to think; None: it thinks always."""
    share: float = 1.0
    """Of the decisions with a gate, how many should think; the threshold is calibrated to it."""
    deadline_ms: float | None = None
    """Milliseconds after which a decision of the whole batch acts on its best belief so far."""

    def __post_init__(self) -> None:
        if self.gate is not None and self.gate not in SCORES:
            raise ValueError(f"`gate` must be one of {', '.join(SCORES)}; got {self.gate!r}.")
        if not 0 < self.share <= 1:
            raise ValueError(f"`share` must be above 0 and at most 1; got {self.share}.")
        if self.gate is None and self.share != 1:
            raise ValueError("`share` is what a gate is calibrated to: name a `gate` too.")
        if self.deadline_ms is not None and not self.deadline_ms >= 0:
            raise ValueError(f"`deadline_ms` must be 0 or more; got {self.deadline_ms}.")
        if self.deadline_ms is not None and (self.gate or self.thinking.particles > 1):
            raise ValueError(
                "`deadline_ms` stops the refinement of every decision of one belief: it goes with "
                "neither a `gate` nor `particles`."
            )


LONG = 1e3
"""A step so long that the KL bound, not its length, decides how far it goes: gradients of the
imagined terms differ from those of the evidence by orders of magnitude."""

_SIG = Thinking(terms=(("sig", 1.0),), steps=1, step_size=LONG)
_EVIDENCE = Thinking(terms=(("evidence", 1.0),), steps=5, latent="soft", step_size=LONG)
_HELD = dataclasses.replace(_EVIDENCE, terms=(("sig", 1.0), ("evidence", 1.0)))
_ANCHORED = dataclasses.replace(_SIG, terms=(("sig", 1.0), ("anchor", 1.0)), steps=5)

ARMS: dict[str, Arm] = {
    "none": Arm(Thinking(), "the base agent: the encoder's belief, sampled"),
    **{
        f"{name}-{length}": Arm(
            dataclasses.replace(_SIG, terms=((name, 1.0),), rollout=length),
            f"paper: {what}, {length} imagined step{'s' * (length > 1)}, one gradient step",
        )
        for name, what in (
            ("sig", "state information gain"),
            ("pig", "parameter information gain over the agent's ensemble"),
            ("entropy", "prior entropy"),
            ("elbo", "imagined ELBO"),
        )
        for length in LENGTHS
    },
    "evidence": Arm(_EVIDENCE, "ours: present-step ELBO on the soft latent, 5 gradient steps"),
    "evidence-mirror": Arm(
        dataclasses.replace(_EVIDENCE, update="mirror", accept=True),
        "ours: the same by mirror steps, each accepted only if the objective falls",
    ),
    "sig-evidence": Arm(_HELD, "ours: state information gain held by the present-step ELBO"),
    "anchored": Arm(_ANCHORED, "ours: state information gain, anchored at the encoder's belief"),
    "evidence-in-doubt": Arm(
        _EVIDENCE,
        "ours: `evidence` in the fifth of the decisions that surprised most",
        gate="surprise",
        share=0.2,
    ),
    "ambiguity-3": Arm(
        dataclasses.replace(_SIG, terms=(("ambiguity", 1.0),)),
        "ours: entropy of 3 imagined observations; refused for decoders of fixed variance",
    ),
    "control-mode": Arm(Thinking(readout="mode"), "control: the likeliest latent, no refinement"),
    "control-soft": Arm(Thinking(readout="soft"), "control: the soft latent, no refinement"),
    "control-best8": Arm(
        Thinking(candidates=8), "control: the best of 8 samples by reconstruction"
    ),
    "control-lag-3": Arm(
        Thinking(lag=3), "control, real evidence: the last 3 frames encoded again, soft between"
    ),
    "control-particles-16": Arm(
        Thinking(particles=16), "control, real evidence: 16 samples carried, weighted by evidence"
    ),
    "control-random": Arm(
        dataclasses.replace(_SIG, update="random"), "control: one random step of equal KL"
    ),
    "control-gate": Arm(
        _EVIDENCE,
        "control: `evidence` in a random fifth of the decisions",
        gate="random",
        share=0.2,
    ),
    "control-uncarried": Arm(
        dataclasses.replace(_EVIDENCE, carry=False),
        "control: `evidence` chooses the action but is not carried",
    ),
}
"""Every arm by name."""

DEFAULT = ("none", "sig-3", "evidence", "control-mode", "control-soft", "control-random")
"""What `evaluate` compares unless told otherwise."""


def arm(name: str) -> Arm:
    """**Errors:** `ValueError` for an unknown name, listing the known ones."""
    if name not in ARMS:
        raise ValueError(f"An arm must be one of {', '.join(ARMS)}; got {name!r}.")
    return ARMS[name]


def overridden(name: str, changes: Mapping[str, Any]) -> tuple[str, Arm]:
    """An arm of which some settings are changed, under a name that says which.

    Only an arm that refines is changed. The random controls stay random: a random step descends
    nothing, so that nothing selects among its steps. A setting that is as it was adds nothing to
    the name.

    **Errors:** `ValueError` for an unknown arm or an impossible value.

    >>> overridden("sig-3", {"rollout": 8, "steps": 1})[0]
    'sig-3+rollout=8'
    >>> overridden("sig-3", {"terms": (("sig", 1.0), ("anchor", 0.5))})[0]
    'sig-3+terms=sig:1,anchor:0.5'
    """
    found = arm(name)
    if not found.thinking.steps:
        return name, found
    fixed = ("update", "accept", "select") if found.thinking.update == "random" else ()
    if found.gate == "random":
        fixed += ("gate",)
    when = {"gate": found.gate, "share": found.share, "deadline_ms": found.deadline_ms}
    before = dataclasses.asdict(found.thinking) | when
    mine = {
        key: value for key, value in changes.items() if key not in fixed and value != before[key]
    }
    thinking = dataclasses.replace(
        found.thinking, **{key: value for key, value in mine.items() if key not in when}
    )
    label = "".join(f"+{key}={_shown(value)}" for key, value in mine.items())
    gated = {key: value for key, value in mine.items() if key in when}
    return name + label, dataclasses.replace(found, thinking=thinking, **gated)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{term}:{weight:g}" for term, weight in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
