"""Named arms that choose the action by value, and their controls.

Settings of the choice may follow the name: `values:latents=16:max_kl=0.1`.
"""

from functools import partial
from typing import Any

from thinkslow import registry
from thinkslow.agent.arms.arm import Arm
from thinkslow.agent.thinking import Thinking
from thinkslow.names import Entry


def choosing(choice: str, **settings: Any) -> Thinking:
    """No refinement, but a choice. **Errors:** `ValueError` for a setting that it does not have."""
    kind = registry.check("choice", choice).load()
    return Thinking(choice=kind(**registry.taken(kind, f"choice {choice}", **settings).arguments))


def in_doubt(score: str, **settings: Any) -> Arm:
    """`values` in a fifth of the decisions."""
    return Arm(choosing("values", **settings), gate=registry.make("gate", score))


_ARMS = (
    (
        "values",
        partial(choosing, "values"),
        "ours: the policy tilted by imagined advantages, 5 steps, 32 latents of the belief",
    ),
    (
        "values-worth-it",
        partial(in_doubt, "voc"),
        "ours: `values` in the fifth of the decisions with the highest value of computation",
    ),
    (
        "values-ascent",
        partial(choosing, "ascent"),
        "ours: the best of 8 imagined sequences, 5 steps of ascent; for continuous actions",
    ),
    (
        "control-tempered",
        partial(choosing, "tempered"),
        "control: the policy sharpened by its own probabilities, to the KL of `values`",
    ),
    (
        "control-shuffled",
        partial(choosing, "shuffled"),
        "control: the advantages of `values`, assigned to other actions, to the same KL",
    ),
    (
        "control-critic",
        partial(choosing, "values", horizon=1),
        "control: `values` with one imagined step: the critic alone",
    ),
    (
        "control-reward",
        partial(choosing, "values", critic=False, horizon=12),
        "control: `values` from the rewards of 12 imagined steps, without the critic",
    ),
    (
        "control-one-latent",
        partial(choosing, "values", latents=1),
        "control: `values` with one sample of the belief",
    ),
    (
        "control-argmax",
        partial(choosing, "values", temperature=1e-4, max_kl=1e9),
        "control: the action with the largest imagined advantage, whatever the policy",
    ),
    (
        "control-greedy",
        partial(choosing, "likeliest"),
        "control: the policy's most likely action",
    ),
    (
        "control-values-gate",
        partial(in_doubt, "random"),
        "control: `values` in a random fifth of the decisions",
    ),
)

ARMS = {name: Entry(make, about) for name, make, about in _ARMS}
"""Arms by name."""
