"""The names that come with the package, by kind; `registry` adds those of others.

Objects are given by their paths, so nothing is imported until one is made.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

KINDS = {
    "term": "a term of the objective",
    "update": "an update rule",
    "readout": "how a latent is taken from a belief",
    "gate": "the score by which a gate opens",
    "choice": "how an action is chosen",
    "check": "how a frame is checked before it is used",
    "members": "a source of plausible parameters",
    "arm": "a complete way to think",
    "importer": "a project whose agents can be read",
    "architecture": "the sizes of a world model, which build it",
}
"""What a kind is."""


_OBJECTIVES = "thinkslow.objectives"
CLASSES: dict[str, tuple[str, ...]] = {
    "term": (f"{_OBJECTIVES}:PresentTerm", f"{_OBJECTIVES}:ImaginedTerm"),
    "update": ("thinkslow.refinement:Update",),
    "readout": ("thinkslow.readouts:Readout",),
    "gate": ("thinkslow.agent.gates:GateScore",),
    "choice": ("thinkslow.agent.choices:Choice",),
    "check": ("thinkslow.agent.checks:Check",),
    "members": (f"{_OBJECTIVES}.members:Source",),
    "arm": ("thinkslow.agent.thinking:Thinking", "thinkslow.agent.arms.arm:Arm"),
    "importer": ("thinkslow.importers.importer:Importer",),
}
"""What the objects of a kind are instances of."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One name of a kind."""

    make: Callable[..., Any] | str
    """The function that makes the object, or its path as `module:attribute`."""
    about: str
    """A description of one line."""

    def load(self) -> Any:
        return at(self.make) if isinstance(self.make, str) else self.make


def at(path: str) -> Any:
    """The object at `module:attribute`."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


_IMAGINED, _PRESENT = "thinkslow.objectives.imagined", "thinkslow.objectives.present"
_UPDATES, _READOUTS = "thinkslow.refinement.updates", "thinkslow.readouts"
_CHECKS = "thinkslow.agent.checks"
_GATES, _MEMBERS = "thinkslow.agent.gates", "thinkslow.objectives.members"
_CHOICES = "thinkslow.agent.choices"

TABLE: dict[str, dict[str, Entry]] = {
    "term": {
        "sig": Entry(
            f"{_IMAGINED}:SIG",
            "state information gain: KL from the prior to the re-encoded imagined observation",
        ),
        "pig": Entry(
            f"{_IMAGINED}:PIG",
            "parameter information gain: how far plausible parameters disagree about the prior",
        ),
        "pig-observed": Entry(
            f"{_IMAGINED}:ObservedPIG",
            "information gain about the imagined observation; needs a decoder with a spread",
        ),
        "elbo": Entry(
            f"{_IMAGINED}:ELBO",
            "imagined evidence bound: sig plus the error of decoding, encoding, decoding",
        ),
        "entropy": Entry(
            f"{_IMAGINED}:Entropy", "entropy of the imagined priors; needs no decoder"
        ),
        "ambiguity": Entry(
            f"{_IMAGINED}:Ambiguity",
            "entropy of the imagined observations; needs a decoder with a spread",
        ),
        "evidence": Entry(
            f"{_PRESENT}:Evidence",
            "the encoder's training loss at the present observation: surprise plus KL to the prior",
        ),
        "anchor": Entry(f"{_PRESENT}:Anchor", "KL from the encoder's belief"),
        "prior": Entry(f"{_PRESENT}:Prior", "KL to the prior"),
        "l2": Entry(
            f"{_PRESENT}:L2", "half the squared distance of the latent from its first value"
        ),
    },
    "update": {
        "gradient": Entry(f"{_UPDATES}:Gradient", "plain gradient descent"),
        "adam": Entry(f"{_UPDATES}:adam", "Adam"),
        "mirror": Entry(f"{_UPDATES}:Mirror", "mirror descent: the natural gradient"),
        "langevin": Entry(f"{_UPDATES}:Langevin", "a gradient step with noise"),
        "random": Entry(f"{_UPDATES}:Random", "a random direction: the control"),
    },
    "readout": {
        "sample": Entry(f"{_READOUTS}:Sample", "one sample, straight-through"),
        "mode": Entry(f"{_READOUTS}:Mode", "the most likely latent, straight-through"),
        "soft": Entry(f"{_READOUTS}:Soft", "the expectation"),
        "gumbel": Entry(f"{_READOUTS}:Gumbel", "a relaxed sample"),
        "reinforce": Entry(f"{_READOUTS}:Reinforce", "samples with the score-function gradient"),
        "softened": Entry(
            f"{_READOUTS}:Softened", "control: a sample moved towards the expectation by a length"
        ),
        "best-of": Entry(f"{_READOUTS}:BestOf", "the best of N samples by reconstruction"),
    },
    "gate": {
        "surprise": Entry(f"{_GATES}:Surprise", "Bayesian surprise, KL(posterior || prior), nats"),
        "entropy": Entry(f"{_GATES}:PosteriorEntropy", "entropy of the posterior, nats"),
        "novelty": Entry(
            f"{_GATES}:Novelty", "nats by which the history predicts worse than no history"
        ),
        "sensitivity": Entry(
            f"{_GATES}:Sensitivity", "how often two latents choose different actions"
        ),
        "disagreement": Entry(
            f"{_GATES}:Disagreement",
            "nats by which plausible parameters differ on the prior; needs an ensemble",
        ),
        "policy-information": Entry(
            f"{_GATES}:PolicyInformation", "information of the latent about the action, nats"
        ),
        "voc": Entry(
            f"{_GATES}:ValueOfComputation",
            "expected gain of finding out which action is better; needs a critic",
        ),
        "voc-staged": Entry(
            f"{_GATES}:TwoStage",
            "voc where policy-information is above its median; never elsewhere",
        ),
        "improvement": Entry(
            f"{_GATES}:Improvement",
            "imagined gain of the best action over the policy's; needs a critic",
        ),
        "random": Entry(f"{_GATES}:Chance", "a uniform random number: the control of every gate"),
    },
    "check": {
        "robust": Entry(
            f"{_CHECKS}:Robust",
            "frames that no latent explains are repaired, or replaced by the prior",
        ),
        "covered": Entry(
            f"{_CHECKS}:Covered",
            "patches that no latent explains are replaced by the prediction",
        ),
        "masked": Entry(
            f"{_CHECKS}:Masked", "control: exactly black pixels are replaced in the same way"
        ),
        "misplaced": Entry(
            f"{_CHECKS}:Misplaced", "control: as many patches as with covered, at another place"
        ),
        "wiser": Entry(
            f"{_CHECKS}:Wiser",
            "control: frames with a bad reconstruction without history are rejected",
        ),
        "random": Entry(
            f"{_CHECKS}:RandomRejection",
            "control: as many frames as are suspicious are rejected at random",
        ),
        "median": Entry(f"{_CHECKS}:Median", "control: a 3x3 median filter of every image"),
        "moments": Entry(
            f"{_CHECKS}:Moments",
            "control: each channel gets the mean and deviation of clean frames",
        ),
    },
    "members": {
        "noise": Entry(f"{_MEMBERS}:Noise", "Gaussian noise on the prior's last layer"),
        "dropout": Entry(f"{_MEMBERS}:Dropout", "dropout masks on the prior's last layer"),
    },
    "choice": {
        "values": Entry(f"{_CHOICES}:Values", "the policy, tilted by imagined advantages"),
        "ascent": Entry(
            f"{_CHOICES}:Ascent",
            "the best of imagined sequences of continuous actions, improved by ascent",
        ),
        "tempered": Entry(f"{_CHOICES}:Tempered", "control: the policy sharpened by the same KL"),
        "shuffled": Entry(
            f"{_CHOICES}:Shuffled", "control: the same advantages, assigned to other actions"
        ),
        "likeliest": Entry(f"{_CHOICES}:Likeliest", "control: the policy's most likely action"),
    },
    "arm": {},
    "architecture": {
        "dreamerv3-main": Entry("thinkslow.dreamer.config:ModelConfig", "DreamerV3 since 2024"),
        "dreamerv3-v1": Entry("thinkslow.dreamer.v1.config:V1Config", "DreamerV3 of 2023"),
    },
    "importer": {  # in the order in which they are tried
        name: Entry(f"thinkslow.importers.projects.{module}:importer", about)
        for name, module, about in (
            ("dreamerv3", "danijar", "danijar/dreamerv3 since December 2024"),
            ("dreamerv3-v1", "danijar_v1", "danijar/dreamerv3 of 2023"),
            ("dreamerv3-torch", "torch_v1", "NM512/dreamerv3-torch"),
            ("r2dreamer", "r2dreamer", "NM512/r2dreamer"),
            ("sheeprl", "sheeprl_v1", "sheeprl dreamer_v3"),
            ("sheeprl-3.5", "sheeprl_main", "sheeprl dreamer_v3_5"),
        )
    },
}
