"""Named ways to think: the arms that `evaluate` compares. Frozen; a change gets a new name.

There are three kinds: the paper's objectives at its horizons, our own, and the controls that a gain
must beat. Every arm that refines moves the belief by up to 4 nats. This value comes from an
experiment with other agents and seeds than the reported ones; no arm was tuned on the agents here.

The command line lists names without JAX, so each arm is made when it is used.
"""

import dataclasses
from functools import partial
from typing import Any

from thinkslow import registry
from thinkslow.agent.arms.arm import Arm
from thinkslow.agent.thinking import Thinking
from thinkslow.names import Entry
from thinkslow.plural import plural

HORIZONS = (1, 3, 8, 16)
"""Imagined steps of the paper's rollouts."""

LONG = 1e3
"""A step size so large that the KL bound decides how far a step goes: gradients of the imagined
terms differ from those of the evidence by orders of magnitude."""

RAW = 0.1
"""Step size of the paper's readings with raw steps. It was not tuned."""

DEFAULT = ("none", "sig-3", "evidence", "control-mode", "control-soft", "control-random")
"""The arms that `evaluate` compares by default."""


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

_ARMS = (
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
        "control-wiser-16",
        partial(checked, "wiser", futures=16),
        "control: as `control-wiser`, with 16 futures instead of one for rejected frames",
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
)

ARMS = {name: Entry(make, about) for name, make, about in _ARMS}
"""Arms by name."""
