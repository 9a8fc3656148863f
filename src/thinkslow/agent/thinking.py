"""How to think, as settings.

`Thinking` is a pytree. Its floats are arguments of the compiled program and may change between
decisions; everything else is static. This module does not import JAX, because the command line
makes its flags and their help from these fields.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from thinkslow import settings
from thinkslow.settings import Imagery, Select, floating, setting

if TYPE_CHECKING:
    from thinkslow.agent.checks.check import Check
    from thinkslow.agent.choices.choice import Choice
    from thinkslow.objectives import Terms
    from thinkslow.readouts import Readout
    from thinkslow.refinement import Update

Variable = Literal["belief", "latent", "state", "memory"]
Landing = Literal["as-is", "code", "simplex"]
Missing = Literal["predict", "hold", "stale"]


@dataclasses.dataclass(frozen=True)
class Thinking:
    """How an agent forms its belief, refines it, and reads a state from it.

    `lag` and `particles` use more of the real past, `steps` refine the belief, and `choice`
    replaces the policy's action. By default none of these is active.

    **Errors:** `ValueError` or `TypeError` for values out of range or settings that exclude each
    other.
    """

    terms: "Terms" = setting((), kind="term")
    """The objective to minimise: terms with weights, such as sig,0.5*evidence:beta=1."""
    steps: int = setting(0, least=0)
    """Number of refinement steps in a decision."""
    horizon: int = setting(3, least=1)
    """Number of imagined steps, for imagined terms."""
    rollouts: int = setting(1, least=1)
    """Number of imagined futures to average over."""
    latent: "Readout | None" = setting(None, kind="readout")
    """How the objective takes a latent from a belief, which decides its gradient:
    straight-through `sample` (the default) or `mode`, the `soft` latent, relaxed `gumbel`, or
    `reinforce`."""
    imagery: Imagery = setting("mode")
    """The imagined observation: the decoder's `mode`, or a `sample` if the decoder has a
    spread."""
    update: "Update | None" = setting(None, kind="update")
    """The update rule: plain `gradient` with step size 1 (the default), `adam`, `mirror` (natural
    gradient), `langevin` (gradient with noise), or the `random` control."""
    max_kl: float = setting(4.0, least=0)
    """The largest KL, in nats, by which all steps together may move the belief. For most updates,
    one step may move it by `max_kl / steps**2`."""
    accept: bool = setting(False)
    """Take a step only if the objective falls on fresh random numbers."""
    judges: int = setting(1, least=1)
    """Number of fresh random draws that judge a step, with `accept`. With several draws, the mean
    must fall by two standard errors."""
    tolerance: float | None = setting(None, least=0)
    """Stop after a step that lowers the objective by less than this share, and when `max_kl` is
    spent. By default all steps are made."""
    fresh_noise: bool = setting(False)
    """Draw new noise for the objective at each step. By default all steps of a decision share one
    draw."""
    through_policy: bool = setting(True)
    """Whether the gradient flows through the actions of imagined futures."""
    through_memory: bool = setting(True)
    """Whether the gradient flows from one imagined memory to the next, or only through latents."""
    variable: Variable = setting("belief")
    """The variable that the steps change: the logits of the `belief`; the `latent`, a sample as
    floats; the `state`, memory and latent; or the `memory` alone. For floats, half the squared
    distance replaces the KL; use `max_kl` inf for raw steps."""
    landing: Landing = setting("as-is")
    """How a stepped latent acts: `as-is`, as the nearest `code`, or projected to the `simplex` of
    each factor."""
    memory_share: float | None = setting(None, least=0)
    """Let refinement also move the memory, by at most this share of its norm. By default the
    memory is fixed."""
    select: Select = setting("last")
    """The iterate to return: the last, or the one with the lowest loss."""
    record: bool = setting(True)
    """Whether to evaluate the objective at the refined belief too, for `Thought.refined`. Without
    it the last loss is NaN, and a decision with one step costs about a third less."""
    readout: "Readout | None" = setting(None, kind="readout")
    """How the latent that acts is read from the belief: `sample` (the default), `mode`, `soft`,
    or `best-of:N` samples by reconstruction."""
    carry: bool = setting(True)
    """Whether the refined state is carried to the next decision. Without it, the refined state
    only chooses the action."""
    choice: "Choice | None" = setting(None, kind="choice")
    """How the action is chosen: by the policy (the default), or by imagined `values`."""
    lag: int = setting(0, least=0)
    """Number of past frames to encode again, with soft latents between them."""
    smoothing: int = setting(0, least=0)
    """Number of steps that refine the latents of the last `lag` frames together, the present one
    included. Each latent is judged by the frames that followed it."""
    smoothing_nats: float = setting(1.0, least=0)
    """The largest KL, in nats, by which smoothing may move the belief of each frame."""
    particles: int = setting(1, least=1)
    """Number of samples of the state to carry, weighted by the evidence. Each refines its own
    belief. One of them, drawn by weight, acts."""
    missing: Missing | None = setting(None)
    """What to do if an observation is flagged as missing: `predict`, so that the prior replaces
    the posterior; `hold` the last observation; or stay in the `stale` state. By default an
    evaluation passes no flags, and `act` predicts for the flags that it gets."""
    futures: int = setting(1, least=1)
    """Number of ways in which missing frames are predicted. Only one of them acts; the first frame
    that returns chooses among them."""
    delay: int = setting(0, least=0)
    """How many decisions old an observation may be. The agent carries the state at the time of
    the observation and rolls it forward through the actions since then."""
    check: "Check | None" = setting(None, kind="check")
    """How a frame is checked before it is used: `robust`, or one of its controls. By default
    every frame is used."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", _weighted(self.terms))
        settings.check(self)
        self._check_kinds()
        if self.steps and not self.terms:
            raise ValueError("`steps` needs at least one term to minimise; got none.")
        if self.terms:
            # Whoever made the terms has imported JAX already.
            from thinkslow.objectives.lookahead import check_counts, paired
            from thinkslow.readouts import Sample

            latent = self.latent or Sample()
            terms = paired(self.terms)
            check_counts(terms, self.horizon, self.rollouts, latent, self.imagery)
            if self.memory_share is not None and latent.least_draws > 1:
                raise ValueError(
                    f"{type(latent).__name__} is unbiased only if the memory is fixed, so "
                    f"`memory_share` must be None; got {self.memory_share}."
                )
        if self.particles > 1:
            self._check_particles()
        self._check_stream()
        self._check_variable()

    def _check_kinds(self) -> None:
        """**Errors:** `TypeError` for an object of another kind."""
        names: list[str] = ["latent", "update", "readout", "choice", "check"]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if not given:
            return
        # Whoever made the objects has imported JAX already.
        from thinkslow.agent.checks.check import Check
        from thinkslow.agent.choices.choice import Choice
        from thinkslow.readouts import Readout
        from thinkslow.refinement import Update

        kinds = dict(zip(names, (Readout, Update, Readout, Choice, Check), strict=True))
        for name, value in given.items():
            if not isinstance(value, kinds[name]):
                kind = kinds[name].__name__
                raise TypeError(f"`{name}` must be an object of the class {kind}; got {value!r}.")

    def _check_variable(self) -> None:
        """**Errors:** `ValueError` for settings that exclude a latent stepped as floats."""
        if self.variable in ("latent", "state"):
            why = f"{self.variable!r} is a latent and not a belief"
            self._alone("variable", why, {"readout": None, "particles": 1})
            if self.latent is not None and self.latent.least_draws > 1:
                raise ValueError(
                    f"`variable` {self.variable!r} is one value, and {type(self.latent).__name__} "
                    "compares several draws. Use another `latent`."
                )
        elif self.landing != "as-is":
            raise ValueError(
                f"`landing` needs a latent stepped as floats: `variable` must be 'latent' or "
                f"'state'; got {self.variable!r}."
            )
        if self.variable == "memory" and self.particles > 1:
            raise ValueError("`variable` 'memory' needs one memory: `particles` must be 1.")

    def _check_stream(self) -> None:
        """**Errors:** `ValueError` for settings that a delay or a check excludes."""
        if self.smoothing and not self.lag:
            raise ValueError(
                f"`smoothing` refines the window of `lag` frames, so `lag` must be 1 or more; got "
                f"{self.lag}."
            )
        apart = {"lag": 0, "particles": 1}
        if self.delay:
            self._alone("delay", "carries the state of an older moment", {**apart, "choice": None})
        if self.check is not None:
            why = "may reject the frame, and refinement would trust it"
            self._alone("check", why, {"steps": 0, **apart})
        if self.futures > 1:
            self._alone("futures", "are chosen by one frame", apart)
            if self.missing in ("hold", "stale"):
                raise ValueError(
                    f"`futures` are predicted where frames are missing, so `missing` must be "
                    f"'predict' or None; got {self.missing!r}."
                )
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
        if self.readout is None:
            return
        from thinkslow.readouts import Sample

        if not isinstance(self.readout, Sample):
            raise ValueError(
                f"`particles` are weighted samples, so `readout` must be Sample(); got "
                f"{self.readout!r}."
            )


def _weighted(terms: Any) -> tuple:
    """Terms with their weights as pairs.

    **Errors:** `TypeError` for anything else than terms with weights, `ValueError` for a weight
    that is non-finite.
    """
    pairs = terms.items() if hasattr(terms, "items") else terms
    if isinstance(pairs, str):
        raise TypeError(
            f"`terms` must be terms with weights, such as {{SIG(): 1.0}}; got {terms!r}."
        )
    if not hasattr(pairs, "__iter__"):
        raise TypeError(f"`terms` must be terms with weights, such as {{{terms!r}: 1.0}}.")
    out = []
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(
                f"`terms` must be terms with weights, such as {{{pair!r}: 1.0}}; got no weight."
            )
        term, weight = pair[0], floating(settings.plain(pair[1]))
        if not settings.fits(weight, float):
            raise TypeError(f"The weight of {term!r} must be a number; got {weight!r}.")
        if isinstance(weight, float) and not math.isfinite(weight):
            raise ValueError(f"The weight of {term!r} must be finite; got {weight}.")
        out.append((term, weight))
    return tuple(out)
