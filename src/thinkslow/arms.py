"""Named ways to think: what `evaluate --arms` knows. Frozen; a change gets a new name.

Three kinds: the paper's objectives at its rollout lengths, ours, and the controls that a gain
must beat. Every arm that refines moves the belief by up to 4 nats, a value from an experiment
with other agents and seeds than those reported; no arm was tuned on the agents here.
"""

import dataclasses

from thinkslow.agent import Thinking

LENGTHS = (1, 3, 8, 16)
"""Rollout lengths of the paper."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to think, with one line that says what it is."""

    thinking: Thinking
    description: str


LONG = 1e3
"""A step so long that the KL bound, not its length, decides how far it goes: gradients of the
imagined terms differ from those of the evidence by orders of magnitude."""

_SIG = Thinking(terms=(("sig", 1.0),), steps=1, step_size=LONG)
_EVIDENCE = Thinking(terms=(("evidence", 1.0),), steps=5, latent="soft", step_size=LONG)
_ANCHORED = dataclasses.replace(_EVIDENCE, terms=(("sig", 1.0), ("evidence", 1.0)))

ARMS: dict[str, Arm] = {
    "none": Arm(Thinking(), "the base agent: the encoder's belief, sampled"),
    **{
        f"{name}-{length}": Arm(
            dataclasses.replace(_SIG, terms=((name, 1.0),), rollout=length),
            f"paper: {what}, {length} imagined step{'s' * (length > 1)}, one gradient step",
        )
        for name, what in (
            ("sig", "state information gain"),
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
    "anchored": Arm(_ANCHORED, "ours: state information gain held by the present-step ELBO"),
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
