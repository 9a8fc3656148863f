"""How to think, as data: what an arm is made of and what compiles a program.

`Thinking` is frozen and described field by field. What of it may change between two decisions
without compiling again are its `Knobs`; the rest is its `structure`.
"""

import dataclasses
from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from thinkslow.objectives import check_terms
from thinkslow.objectives.lookahead import Imagery, check_reinforce
from thinkslow.refinement import Direction, Gradient, Langevin, Mirror, Random
from thinkslow.worldmodel import Draw, Readout, WorldModel

UpdateName: TypeAlias = Literal["gradient", "adam", "mirror", "langevin", "random"]
Knob: TypeAlias = Float[Array, ""] | float

_ADAM = optax.adam(1.0)


@dataclasses.dataclass(frozen=True)
class Thinking:
    """How an agent comes to its belief, refines it, and reads a state from it.

    `lag` and `particles` use more of the real past, `steps` refine. The default does neither.
    """

    terms: tuple[tuple[str, float], ...] = ()
    """Names of `objectives.TERMS` with their weights."""
    steps: int = 0
    """Refinement steps per decision."""
    rollout: int = 3
    """Imagined steps, for terms of the future."""
    rollouts: int = 1
    """Futures to average over."""
    samples: int = 1
    """Latents to average the evidence over."""
    latent: Draw = "sample"
    """How the objective takes a latent from a belief, and so what its gradient is:
    straight-through `sample` or `mode`, the `soft` latent, relaxed `gumbel`, or `reinforce`."""
    imagery: Imagery = "mode"
    """An imagined observation: the decoder's `mode`, or a `sample` where it has a spread."""
    update: UpdateName = "gradient"
    """Plain `gradient`, `adam`, `mirror` (natural gradient), `langevin` (gradient with noise), or
    the `random` control."""
    step_size: float = 1.0
    """Factor of the update's output."""
    nats: float = 4.0
    """KL that all steps together may move the belief. Each step may move `nats / steps**2`,
    which adds up to it along a straight line, where KL grows with the square of the way."""
    temperature: float = 1.0
    """Of `langevin`'s noise."""
    accept: bool = False
    """Take a step only if the objective falls on fresh random numbers."""
    judges: int = 1
    """Draws of fresh random numbers that judge a step: of several, the mean must fall by two
    standard errors."""
    tolerance: float | None = None
    """Stop after a step that lowers the objective by less than this share of it, and once the
    nats are spent; None: make every step."""
    memory: float = 0.0
    """Let refinement move the memory too, by at most this share of its length."""
    select: Literal["last", "best"] = "last"
    """Which iterate to return."""
    readout: Readout = "sample"
    """How the state that acts is read from the belief."""
    candidates: int = 1
    """Read so many samples and keep the one that reconstructs the observation best."""
    carry: bool = True
    """Whether the refined state is carried on; otherwise it only chooses the action."""
    beta: float | None = None
    """Weight of the KL in `evidence`; None: as the model was trained."""
    free_nats: float | None = None
    """Free nats of `evidence`; None: as the model was trained."""
    lag: int = 0
    """Frames before the present that are encoded again, with soft latents between them."""
    particles: int = 1
    """Samples of the state that are carried, weighted by the evidence. Each refines its own
    belief; the action is of one drawn by weight: a mixture of their policies."""

    def __post_init__(self) -> None:
        check_terms(dict(self.terms))
        for name in ("steps", "lag"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be 0 or more; got {getattr(self, name)}.")
        if self.steps and not self.terms:
            raise ValueError("`steps` needs at least one term to descend; got none.")
        for name in ("rollout", "rollouts", "samples", "candidates", "judges", "particles"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be 1 or more; got {getattr(self, name)}.")
        for name in ("step_size", "nats", "temperature", "memory", "tolerance"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"`{name}` must be 0 or more; got {value}.")
        choices = {
            "update": ("gradient", "adam", "mirror", "langevin", "random"),
            "select": ("last", "best"),
            "latent": ("sample", "mode", "soft", "gumbel", "reinforce"),
            "readout": ("sample", "mode", "soft"), "imagery": ("mode", "sample"),
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(allowed)}; got {getattr(self, name)!r}."
                )
        if self.latent == "reinforce":
            check_reinforce(dict(self.terms), self.rollouts, self.samples)
        if self.candidates > 1 and self.readout != "sample":
            raise ValueError(
                f"`candidates` are samples, so `readout` must be 'sample'; got {self.readout!r}."
            )
        if self.particles > 1:
            plain = {
                "readout": "sample", "candidates": 1, "carry": True, "lag": 0, "memory": 0.0,
            }  # fmt: skip
            for name, value in plain.items():
                if getattr(self, name) != value:
                    raise ValueError(
                        f"`particles` are weighted samples that are carried, so `{name}` must be "
                        f"{value!r}; got {getattr(self, name)!r}."
                    )


class Knobs(eqx.Module):
    """What may change between decisions without compiling again."""

    weights: dict[str, Knob]
    step_size: Knob
    nats: Knob
    temperature: Knob
    tolerance: Knob
    memory: Knob
    beta: Knob
    free_nats: Knob


def knobs_of(thinking: Thinking, model: WorldModel) -> Knobs:
    """Arrays, so that changing a value does not compile again.

    **Errors:** `ValueError` if the model does not say how it was trained and thinking needs it.
    """
    trained = {"beta": model.trained_beta, "free_nats": model.trained_free_nats}
    for name, value in trained.items():
        if getattr(thinking, name) is not None:
            trained[name] = getattr(thinking, name)
        elif value is None and "evidence" in dict(thinking.terms):
            raise ValueError(
                f"`evidence` needs `{name}`: this model does not say how it was trained."
            )
    values = {
        "weights": dict(thinking.terms),
        "step_size": thinking.step_size,
        "nats": thinking.nats,
        "temperature": thinking.temperature,
        "tolerance": thinking.tolerance or 0.0,
        "memory": thinking.memory,
        **{name: value or 0.0 for name, value in trained.items()},
    }
    return Knobs(**jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), values))


def structure_of(thinking: Thinking) -> Thinking:
    """What of `thinking` decides the compiled program: values of knobs are blanked."""
    return dataclasses.replace(
        thinking, terms=tuple((name, 0.0) for name, _ in thinking.terms), step_size=0.0, nats=0.0,
        temperature=0.0, tolerance=None if thinking.tolerance is None else 0.0,
        memory=float(thinking.memory > 0), beta=None, free_nats=None,
    )  # fmt: skip


def direction_of(thinking: Thinking, knobs: Knobs) -> Direction:
    match thinking.update:
        case "gradient":
            return Gradient(knobs.step_size)
        case "adam":
            return Gradient(knobs.step_size, _ADAM)
        case "mirror":
            return Mirror(knobs.step_size)
        case "langevin":
            return Langevin(knobs.step_size, knobs.temperature)
        case "random":
            return Random()
