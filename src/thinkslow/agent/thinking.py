"""How to think, as settings.

`Thinking` is a pytree: numbers that may change between two decisions are floats, which a compiled
program takes as arguments; everything else decides the program. This module does not import JAX:
the command line makes its flags of the fields, their documentation included.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from thinkslow.agent.checks import Check
    from thinkslow.agent.choices import Choice
    from thinkslow.objectives import Terms
    from thinkslow.readouts import Readout
    from thinkslow.refinement import Update

Select = Literal["last", "best"]
Imagery = Literal["mode", "sample"]
Variable = Literal["belief", "latent", "state", "memory"]
Landing = Literal["as-is", "code", "simplex"]
Missing = Literal["predict", "hold", "stale"]


def setting(default: Any, *, least: int | None = None, kind: str | None = None) -> Any:
    """One field of `Thinking`.

    Args:
        default: as for every dataclass.
        least: the smallest number that is allowed.
        kind: of which kind of the registry its values are, for the command line.
    """
    return dataclasses.field(default=default, metadata={"least": least, "kind": kind})


@dataclasses.dataclass(frozen=True)
class Thinking:
    """How an agent comes to its belief, refines it, and reads a state from it.

    `lag` and `particles` use more of the real past, `steps` refine, `choice` takes another action
    than the policy's. The default does nothing of it.

    **Errors:** `ValueError` or `TypeError` for what is out of range or cannot go together.
    """

    terms: "Terms" = setting((), kind="term")
    """What to descend: terms with their weights, such as sig,0.5*evidence:beta=1."""
    steps: int = setting(0, least=0)
    """Number of refinement steps in a decision."""
    horizon: int = setting(3, least=1)
    """Number of imagined steps, for terms of the future."""
    rollouts: int = setting(1, least=1)
    """Number of imagined futures to average over."""
    latent: "Readout | None" = setting(None, kind="readout")
    """How the objective takes a latent from a belief, and so what its gradient is:
    straight-through `sample` (the default) or `mode`, the `soft` latent, relaxed `gumbel`, or
    `reinforce`."""
    imagery: Imagery = setting("mode")
    """An imagined observation: the decoder's `mode`, or a `sample` where it has a spread."""
    update: "Update | None" = setting(None, kind="update")
    """Where a step goes: plain `gradient` of step size 1 (the default), `adam`, `mirror` (natural
    gradient), `langevin` (gradient with noise), or the `random` control."""
    max_kl: float = setting(4.0, least=0)
    """The most that all steps together may move the belief, in nats of KL. One step may move it
    by `max_kl / steps**2`, for most updates."""
    accept: bool = setting(False)
    """Take a step only if the objective falls on fresh random numbers."""
    judges: int = setting(1, least=1)
    """Number of draws of fresh random numbers that judge a step, with `accept`. With several, the
    mean must fall by two standard errors."""
    tolerance: float | None = setting(None, least=0)
    """Stop after a step that lowers the objective by less than this share, and when `max_kl` is
    spent. By default every step is made."""
    fresh_noise: bool = setting(False)
    """Draw the objective's noise anew for each step. Unless set, all steps of a decision share
    one draw."""
    through_policy: bool = setting(True)
    """Whether the gradient flows through the actions of imagined futures."""
    through_memory: bool = setting(True)
    """Whether the gradient flows from one imagined memory to the next, or through latents alone."""
    variable: Variable = setting("belief")
    """What is stepped: the `belief`'s logits; the `latent`, a sample of it as floats; the `state`,
    memory and latent; or the `memory` alone. Of floats, KL counts half the squared distance: pass
    a `max_kl` of infinity for raw steps."""
    landing: Landing = setting("as-is")
    """How a latent acts that was stepped as floats: `as-is`, as the nearest `code`, or projected
    to the `simplex` of each factor."""
    memory_share: float | None = setting(None, least=0)
    """Let refinement move the memory too, by at most this share of its norm. By default it does
    not."""
    select: Select = setting("last")
    """Which iterate to return: the last, or the one of least loss."""
    record: bool = setting(True)
    """Whether to evaluate the objective once more, at the refined belief, for `Thought.refined`.
    Without it the last loss is NaN, and a decision of one step costs about a third less."""
    readout: "Readout | None" = setting(None, kind="readout")
    """How the latent that acts is read from the belief: `sample` (the default), `mode`, `soft`,
    or `best-of:N` samples by reconstruction."""
    carry: bool = setting(True)
    """Whether the refined state is carried to the next decision, or only chooses the action."""
    choice: "Choice | None" = setting(None, kind="choice")
    """How the action is chosen, given the belief: by the policy (the default), or by `values`
    imagined under it."""
    lag: int = setting(0, least=0)
    """Number of frames before the present to encode again, with soft latents between them."""
    smoothing: int = setting(0, least=0)
    """With `lag`, steps that refine the latents of the last `lag` frames together, the present
    one included, each judged by the frames that followed it."""
    smoothing_nats: float = setting(1.0, least=0)
    """How far smoothing may move the belief of each frame, nats."""
    particles: int = setting(1, least=1)
    """Number of samples of the state to carry, weighted by the evidence. Each refines its own
    belief, and one of them, drawn by weight, acts."""
    missing: Missing | None = setting(None)
    """What to do about observations that are told to be missing: `predict`, so that the prior
    stands in for the posterior; `hold` the last one that came; or stay in the `stale` state.
    Unless given, an evaluation tells nothing, and `act` predicts where it is told."""
    delay: int = setting(0, least=0)
    """How many decisions old an observation may be. The state of its moment is carried, and the
    action is chosen in the state that the actions since then lead to."""
    check: "Check | None" = setting(None, kind="check")
    """How a frame is checked before it is believed: `robust`, or one of its controls. Unless
    given, every frame is believed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", _weighted(self.terms))
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, check_setting(field, getattr(self, field.name)))
        if self.steps and not self.terms:
            raise ValueError("`steps` needs at least one term to descend; got none.")
        if self.terms:
            # What makes terms has imported JAX already.
            from thinkslow.objectives.lookahead import check_counts, paired
            from thinkslow.readouts import Sample

            latent = self.latent or Sample()
            terms = paired(self.terms)
            check_counts(terms, self.horizon, self.rollouts, latent, self.imagery)
            if self.memory_share is not None and latent.least_draws > 1:
                raise ValueError(
                    f"{type(latent).__name__} is without bias only while the memory is fixed, so "
                    f"`memory_share` must be None; got {self.memory_share}."
                )
        if self.particles > 1:
            self._check_particles()
        self._check_stream()
        self._check_variable()

    def _check_variable(self) -> None:
        """**Errors:** `ValueError` for what does not go with a latent stepped as floats."""
        if self.variable in ("latent", "state"):
            why = f"{self.variable!r} is a latent itself and not a belief to read one from"
            self._alone("variable", why, {"readout": None, "particles": 1})
            if self.latent is not None and self.latent.least_draws > 1:
                raise ValueError(
                    f"`variable` {self.variable!r} is one value, and {type(self.latent).__name__} "
                    "compares several draws. Use another `latent`."
                )
        elif self.landing != "as-is":
            raise ValueError(
                f"`landing` is of a latent stepped as floats: `variable` must be 'latent' or "
                f"'state'; got {self.variable!r}."
            )
        if self.variable == "memory" and self.particles > 1:
            raise ValueError("`variable` 'memory' needs one memory: `particles` must be 1.")

    def _check_stream(self) -> None:
        """**Errors:** `ValueError` for what a delay or a check does not go with."""
        if self.smoothing and not self.lag:
            raise ValueError(
                f"`smoothing` refines the window of `lag` frames, so `lag` must be 1 or more; got "
                f"{self.lag}."
            )
        apart = {"lag": 0, "particles": 1}
        if self.delay:
            self._alone("delay", "carries the state of an older moment", {**apart, "choice": None})
        if self.check is not None:
            why = "judges the frame that refinement would take at its word"
            self._alone("check", why, {"steps": 0, **apart})
        if self.missing == "stale":
            why = "'stale' does not advance the state"
            self._alone("missing", why, {**apart, "choice": None})

    def _alone(self, name: str, why: str, others: Mapping[str, int | None]) -> None:
        for other, value in others.items():
            if getattr(self, other) != value:
                raise ValueError(
                    f"`{name}` {why}, so `{other}` must be {value}; got {getattr(self, other)}."
                )

    def _check_particles(self) -> None:
        for name, value in {"carry": True, "lag": 0, "memory_share": None}.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"`particles` are weighted samples that are carried, so `{name}` must be "
                    f"{value!r}; got {getattr(self, name)!r}."
                )
        if self.readout is not None and type(self.readout).__name__ != "Sample":
            raise ValueError(
                f"`particles` are weighted samples, so `readout` must be Sample(); got "
                f"{self.readout!r}."
            )


def _weighted(terms: Any) -> tuple:
    """Terms with their weights as pairs."""
    pairs = terms.items() if hasattr(terms, "items") else terms
    return tuple((term, _floating(weight)) for term, weight in pairs)


def _floating(value: Any) -> Any:
    """A float for a plain integer: floats may change without compiling again."""
    return float(value) if type(value) is int else value


def check_setting(field: dataclasses.Field, value: Any) -> Any:
    """The value of a field, in range.

    **Errors:** `ValueError`.
    """
    if "float" in str(field.type):
        value = _floating(value)
    least = field.metadata["least"]
    if least is not None and isinstance(value, int | float) and not value >= least:
        raise ValueError(f"`{field.name}` must be {least:g} or more; got {value}.")
    kinds = [one for one in (field.type, *get_args(field.type)) if get_origin(one) is Literal]
    if kinds and not (value is None and kinds[0] is not field.type):
        choices = get_args(kinds[0])
        if value not in choices:
            raise ValueError(f"`{field.name}` must be one of {', '.join(choices)}; got {value!r}.")
    return value
