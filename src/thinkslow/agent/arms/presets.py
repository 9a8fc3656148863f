"""Named ways to think: the arms that `evaluate` compares. Frozen; a change gets a new name.

There are three kinds: the paper's objectives at its horizons, our own, and the controls that a gain
must beat. Every arm that refines moves the belief by up to 4 nats. This value comes from an
experiment with other agents and seeds than the reported ones; no arm was tuned on the agents here.

The command line lists names without JAX, so each arm is made when it is used.
"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

from thinkslow import registry
from thinkslow.agent.thinking import Thinking
from thinkslow.names import TABLE, Entry
from thinkslow.plural import plural

if TYPE_CHECKING:
    from thinkslow.agent.abstract import AbstractAgent
    from thinkslow.agent.agent import Agent
    from thinkslow.agent.gates.scores import GateScore
    from thinkslow.objectives.members import Source

HORIZONS = (1, 3, 8, 16)
"""Imagined steps of the paper's rollouts."""

LONG = 1e3
"""A step size so large that the KL bound decides how far a step goes: gradients of the imagined
terms differ from those of the evidence by orders of magnitude."""

RAW = 0.1
"""Step size of the paper's readings with raw steps. It was not tuned."""

DEFAULT = ("none", "sig-3", "evidence", "control-mode", "control-soft", "control-random")
"""The arms that `evaluate` compares by default."""


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


def one_step(term: str, **settings: Any) -> Thinking:
    """One long gradient step down one term."""
    from thinkslow.refinement import Gradient

    given = {"steps": 1, "update": Gradient(LONG), "record": False, **settings}
    return Thinking({registry.make("term", term): 1.0}, **given)


def evidence(**settings: Any) -> Thinking:
    """Five steps down the present-step ELBO on the soft latent."""
    from thinkslow.readouts import Soft

    return one_step("evidence", **{"steps": 5, "latent": Soft(), **settings})


def mirrored() -> Thinking:
    from thinkslow.refinement import Mirror

    return evidence(update=Mirror(LONG), accept=True)


def held(term: str, **settings: Any) -> Thinking:
    """SIG with a second term as a regulariser."""
    base = one_step("sig", steps=5, **settings)
    second = registry.make("term", term)
    return dataclasses.replace(base, terms=(*base.terms, (second, 1.0)))


def soft_held() -> Thinking:
    from thinkslow.readouts import Soft

    return held("evidence", latent=Soft())


def gated(score: str) -> Arm:
    """`evidence` in a fifth of the decisions."""
    return Arm(evidence(), gate=registry.make("gate", score))


def reading(readout: str) -> Thinking:
    """No refinement, another readout."""
    return Thinking(readout=registry.make("readout", readout))


def checked(check: str, **settings: Any) -> Thinking:
    """Every frame is checked before it is used; a frame flagged as missing is predicted."""
    return Thinking(check=registry.make("check", check), missing="predict", **settings)


def raw(variable: str, *, term: str = "sig", **settings: Any) -> Thinking:
    """The paper's literal reading: five raw steps of size `RAW` on the numbers themselves."""
    from thinkslow.refinement import Gradient

    given = {"steps": 5, "update": Gradient(RAW), "max_kl": float("inf"), **settings}
    return one_step(term, variable=variable, **given)


def dropped_out() -> Arm:
    """Parameter information gain over dropout masks put on at test time."""
    return Arm(one_step("pig"), members=registry.make("members", "dropout"))


def random_raw() -> Thinking:
    """A random step of the latent as floats, of length 0.5; the nats are half its square."""
    from thinkslow.refinement import Random

    return raw("latent", update=Random(), max_kl=0.125, steps=1)


def random_step() -> Thinking:
    from thinkslow.refinement import Random

    return one_step("sig", update=Random())


_PAPER = {
    "sig": "state information gain",
    "pig": "parameter information gain over the agent's ensemble",
    "entropy": "prior entropy",
    "elbo": "imagined ELBO",
}

for _name, _make, _about in (
    ("none", Thinking, "the base agent: the encoder's belief, sampled"),
    *(
        (
            f"{term}-{horizon}",
            partial(one_step, term, horizon=horizon),
            f"paper: {what}, {plural(horizon, 'imagined step')}, one gradient step",
        )
        for term, what in _PAPER.items()
        for horizon in HORIZONS
    ),
    *(
        (f"paper-{name}", make, f"one reading of the paper: {about}")
        for name, make, about in (
            ("z", partial(raw, "latent"), "SIG steps the latent as floats, which act unchanged"),
            (
                "z-snap",
                partial(raw, "latent", landing="code"),
                "the same, snapped to the nearest code before it acts",
            ),
            (
                "z-simplex",
                partial(raw, "latent", landing="simplex"),
                "the same, projected to the simplex before it acts",
            ),
            ("state", partial(raw, "state"), "SIG steps memory and latent"),
            ("memory", partial(raw, "memory"), "SIG steps only the memory"),
            ("logits", partial(raw, "belief"), "SIG steps the belief's logits, unbounded"),
            (
                "z-elbo",
                partial(raw, "latent", term="elbo"),
                "the imagined ELBO steps the latent as floats",
            ),
            (
                "z-evidence",
                partial(raw, "latent", term="evidence"),
                "the evidence steps the latent as floats",
            ),
            ("pig-dropout", dropped_out, "parameter information gain under dropout at test time"),
        )
    ),
    ("evidence", evidence, "ours: present-step ELBO on the soft latent, 5 gradient steps"),
    (
        "evidence-mirror",
        mirrored,
        "ours: `evidence` by mirror steps, each accepted only if the objective falls",
    ),
    (
        "sig-evidence",
        soft_held,
        "ours: state information gain, regularised by the present-step ELBO",
    ),
    (
        "anchored",
        partial(held, "anchor"),
        "ours: state information gain, anchored at the encoder's belief",
    ),
    (
        "evidence-in-doubt",
        partial(gated, "surprise"),
        "ours: `evidence` in the most surprising fifth of the decisions",
    ),
    (
        "predict-through",
        partial(Thinking, missing="predict"),
        "ours: the prior replaces missing frames; late frames are rolled forward to the present",
    ),
    (
        "predict-through-16",
        partial(Thinking, missing="predict", futures=16),
        "ours: the same in 16 ways, among which the first frame that returns chooses",
    ),
    (
        "smooth-5",
        partial(Thinking, lag=5, smoothing=3),
        "ours: the latents of the last 5 frames, refined together by later frames",
    ),
    (
        "robust",
        partial(checked, "robust"),
        "ours: frames that no latent explains are repaired, or replaced by the prior",
    ),
    (
        "robust-16",
        partial(checked, "robust", futures=16),
        "ours: the same, with 16 futures instead of one for rejected frames",
    ),
    (
        "robust-reject",
        partial(checked, "robust:rounds=0"),
        "ours: frames that no latent explains are replaced by the prior",
    ),
    (
        "robust-covered",
        partial(checked, "covered"),
        "ours: patches that no latent explains are replaced by the prediction",
    ),
    (
        "ambiguity-3",
        partial(one_step, "ambiguity"),
        "ours: entropy of 3 imagined observations; not for decoders with fixed variance",
    ),
    (
        "control-mode",
        partial(reading, "mode"),
        "control: the most likely latent, no refinement",
    ),
    ("control-soft", partial(reading, "soft"), "control: the soft latent, no refinement"),
    (
        "control-best8",
        partial(reading, "best-of:8"),
        "control: the best of 8 samples by reconstruction",
    ),
    (
        "control-lag-3",
        partial(Thinking, lag=3),
        "control, real evidence: the last 3 frames encoded again, with soft latents",
    ),
    (
        "control-particles-16",
        partial(Thinking, particles=16),
        "control, real evidence: 16 samples carried, weighted by evidence",
    ),
    (
        "control-hold",
        partial(Thinking, missing="hold"),
        "control: a missing frame is replaced by the last frame",
    ),
    (
        "control-stale",
        partial(Thinking, missing="stale"),
        "control: acts on the state of the last frame if a frame is missing or late",
    ),
    *(
        (f"control-{name}", partial(checked, check), f"control: {what}")
        for name, check, what in (
            (
                "masked",
                "masked",
                "exactly black pixels count as covered, as in `robust-covered`",
            ),
            (
                "misplaced",
                "misplaced",
                "as many patches as in `robust-covered` are replaced, at another place",
            ),
            ("wiser", "wiser", "frames with a bad reconstruction without history are rejected"),
            ("reject-random", "random", "as many frames as are suspicious are rejected at random"),
            ("median", "median", "a 3x3 median filter of every image"),
            ("moments", "moments", "each channel gets the mean and deviation of clean frames"),
        )
    ),
    (
        "control-random-z",
        random_raw,
        "control: a random step of the latent as floats, with length 0.5",
    ),
    (
        "control-softened",
        partial(reading, "softened:0.5"),
        "control: the latent moved towards the probabilities by 0.5",
    ),
    ("control-random", random_step, "control: one random step of equal KL"),
    (
        "control-gate",
        partial(gated, "random"),
        "control: `evidence` in a random fifth of the decisions",
    ),
    (
        "control-uncarried",
        partial(evidence, carry=False),
        "control: `evidence` chooses the action, but the refined state is not carried",
    ),
):
    TABLE["arm"][_name] = Entry(_make, _about)  # `register` would load the other presets first
