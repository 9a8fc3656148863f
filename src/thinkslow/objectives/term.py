"""Terms of an objective, and their needs.

A term that is an information gain is non-negative; entropies of Gaussians and surprises may have
any sign. The weight, chosen by the caller, carries the sign. Sums are never averaged over a batch
or a horizon, so the size of a gradient does not depend on either.

Subclass `PresentTerm` or `ImaginedTerm` for your own term.
"""

import abc
import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeAlias, dataclass_transform

from jaxtyping import Array, Float, PRNGKeyArray

from thinkslow.distributions import Belief
from thinkslow.needs import Need, has_spread
from thinkslow.objectives.members import Members
from thinkslow.readouts import Readout
from thinkslow.settings import takes_floats
from thinkslow.trees import register
from thinkslow.worldmodel import Moment, Observation, Rollout, State, WorldModel

TermValues: TypeAlias = dict[str, Float[Array, ""]]


class _Frozen:
    """An object whose attributes cannot be set or deleted."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


@dataclass_transform(frozen_default=True)
@dataclasses.dataclass(frozen=True)
class Term(_Frozen):
    """A term to minimise, in nats.

    Every subclass is a frozen dataclass: its annotated fields are its settings. Changing a float
    field does not compile again.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register(dataclasses.dataclass(frozen=True)(cls))
        by_fields = cls.__hash__

        def by_fields_or_object(self: Any) -> int:
            try:
                return by_fields(self)
            except TypeError:  # an array among the fields
                return id(self)

        cls.__hash__ = by_fields_or_object
        # So that the class may also be decorated; it inherits the same from `_Frozen`.
        del cls.__setattr__, cls.__delattr__

    def __post_init__(self) -> None:
        """Integers in float fields become floats, which may change without compiling."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) is int and takes_floats(field.type):
                object.__setattr__(self, field.name, float(value))

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it needs from a model."""
        return ()

    @property
    def name(self) -> str:
        """Its name in records: the words of the class name, joined by hyphens."""
        return _hyphened(type(self).__name__)


class Present:
    """The inputs of a present term.

    Args:
        model: a `WorldModel` that fulfils the needs of the term.
        moment: memory, prior and posterior of the present, from `perceive`.
        observation: the present observation, by name.
        latent: how the objective takes a latent from a belief.
    """

    def __init__(
        self,
        model: WorldModel,
        moment: Moment,
        observation: Observation,
        latent: Readout,
        start: Belief | None = None,
    ):
        self.model, self.moment, self.observation = model, moment, observation
        self.start = moment.posterior if start is None else start
        """The first belief of the refinement."""
        self.latent = latent


class PresentTerm(Term, abc.ABC):
    """A term that depends on the present moment only."""

    @property
    def draws(self) -> int | None:
        """Number of latents that its value averages over; None: it draws none."""
        return None

    @abc.abstractmethod
    def value(self, belief: Belief, present: Present, *, key: PRNGKeyArray) -> Float[Array, ""]:
        """The term's value in nats, differentiable in the belief.

        Args:
            belief: the belief that is refined.
            present: the model, the moment and the observation.
            key: PRNG key of the term's random draws.
        """


class ImaginedStep:
    """One imagined step. Values that several terms use are computed once.

    Args:
        model: the model, for one example.
        before: the previous state.
        step: one step of a rollout: the action, the prior after it, the state drawn from it.
        latent: how the objective takes a latent from a belief.
        members: plausible parameters, if there are any.
        image_key: PRNG key of the imagined observation, if it is a sample; None: it is the mode.
    """

    def __init__(
        self,
        model: WorldModel,
        before: State,
        step: Rollout,
        *,
        latent: Readout,
        members: Members | None = None,
        image_key: PRNGKeyArray | None = None,
    ):
        self.model, self.before, self.latent = model, before, latent
        self.action, self.prior, self.state = step.action, step.prior, step.state
        self._members, self._image_key = members, image_key

    @cached_property
    def decoded(self) -> Mapping[str, Any]:
        """The decoder's heads by name."""
        return self.model.decode(self.state)

    @property
    def uncertain(self) -> dict[str, Any]:
        """The heads that have a spread, by name."""
        return {name: head for name, head in self.decoded.items() if has_spread(head)}

    @cached_property
    def imagined(self) -> Observation:
        """The imagined observation: each head's mode, or a sample of those with a spread."""
        return {
            name: head.sample(key=self._image_key)
            if self._image_key is not None and name in self.uncertain
            else head.mode()
            for name, head in self.decoded.items()
        }

    @cached_property
    def posterior(self) -> Belief:
        """The encoder's belief about the imagined observation."""
        return self.model.infer(self.state.memory, self.imagined)

    def members(self, function: Callable[[WorldModel], Any]) -> Any:
        """`function(model)` under each set of plausible parameters, stacked along a first axis.

        Args:
            function: what to compute of a model.
        """
        assert self._members is not None  # the needs of the term include members
        return self._members.each(self.model, function)


class ImaginedTerm(Term, abc.ABC):
    """An imagined term: summed over the steps of a rollout, averaged over rollouts."""

    @property
    def at_present(self) -> bool:
        """Whether the present also counts: it is the first step of the rollout, in the state that
        the belief gives. The action of that step has no meaning, because no action led there.
        """
        return False

    @abc.abstractmethod
    def at_step(self, model: Any, step: ImaginedStep, *, key: PRNGKeyArray) -> Float[Array, ""]:
        """Its value at one imagined step, in nats, differentiable.

        Args:
            model: a `WorldModel` that fulfils the needs of the term.
            step: the imagined step; values that several terms use are computed once.
            key: PRNG key of the term's random draws.
        """

    def diagnostics(self, model: Any, step: ImaginedStep) -> TermValues:
        """Further values to report as `term/name`; they are not minimised.

        Args:
            model: as in `at_step`.
            step: the imagined step.
        """
        return {}


def _hyphened(name: str) -> str:
    """
    >>> _hyphened("ImaginedReward"), _hyphened("SIG")
    ('imagined-reward', 'sig')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
