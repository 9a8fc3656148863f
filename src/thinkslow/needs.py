"""Needs: what a term, a readout or a score requires from a model, and whether a model has it.

`unmet` answers this in all places: an agent refuses a term, an evaluation leaves out an arm, and
the contract marks an entry as not applicable. Add your own `Need` if you need another.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax

from thinkslow.distributions import Categorical
from thinkslow.heads import expected
from thinkslow.trees import remembered


@dataclasses.dataclass(frozen=True)
class Need:
    """One requirement of a model or of its ensemble."""

    what: str
    """A name such as `a decoder`."""
    lacking: Callable[[Any, Any], str | None]
    """`lacking(model, members)`: why the need is not met, with the remedy; None if it is met."""


def unmet(model: Any, needs: Iterable[Need], members: Any = None) -> str | None:
    """The reason for the first need that is not met; None if all are met.

    Args:
        model: a `WorldModel`.
        needs: the `needs` of a term, a readout or a score.
        members: the ensemble of plausible parameters that comes with the model, if any.

    **Cost:** abstract evaluation only; nothing is computed.
    """
    for need in needs:
        if (reason := need.lacking(model, members)) is not None:
            return reason
    return None


@remembered
def decoded(model: Any) -> dict[str, Any]:
    """The heads of a model's decoder by name, abstract; empty without a decoder."""
    return jax.eval_shape(lambda: model.decode(model.initial()))


def modes_of(model: Any) -> dict[str, Any]:
    """The modes of the heads of a model's decoder by name, abstract."""
    return jax.eval_shape(
        lambda heads: {name: head.mode() for name, head in heads.items()}, decoded(model)
    )


def has_spread(head: Any) -> bool:
    """Whether a head has a spread: a head with fixed variance has no `entropy`."""
    return hasattr(head, "entropy")


def _decoder(model: Any, members: Any) -> str | None:
    if decoded(model):
        return None
    return "it has no decoder. Use a term that needs none, such as `entropy`"


def _decodes_all(model: Any, members: Any) -> str | None:
    heads = decoded(model)
    if not heads:
        return _decoder(model, members)
    unseen = [name for name, _ in getattr(model, "observation_spaces", ()) if name not in heads]
    if not unseen:
        return None
    return (
        f"it does not decode {', '.join(sorted(unseen))}, which it sees, so that an imagined "
        "observation cannot be encoded again"
    )


def _spread(model: Any, members: Any) -> str | None:
    heads = decoded(model)
    if not heads:
        return _decoder(model, members)
    if any(map(has_spread, heads.values())):
        return None
    kinds = ", ".join(sorted({type(head).__name__ for head in heads.values()}))
    return (
        f"its decoder's variance is fixed ({kinds}), so that the term is constant. Use a "
        "Bernoulli, categorical or learned-variance decoder, or another term"
    )


def _members(model: Any, members: Any) -> str | None:
    if members is not None:
        return None
    return (
        "it has no ensemble of plausible parameters. Fit one: thinkslow ensemble AGENT; or pass "
        "`members` from `thinkslow.objectives.members`"
    )


def _prior(model: Any, members: Any) -> str | None:
    state = jax.eval_shape(model.initial)
    if jax.eval_shape(model.prior, state.memory) is not None:
        return None
    return (
        "its class does not define `prior(memory)`, without which the prior at a moved memory is "
        "not known. Define it, or leave the memory where it is (`memory_share` None)"
    )


def _prior_layer(model: Any, members: Any) -> str | None:
    if getattr(model, "prior_layer", None) is not None:
        return None
    return (
        "its class does not define `prior_layer`, the last layer of its prior head. Define it, or "
        "give `where`"
    )


def _trained(name: str) -> Callable[[Any, Any], str | None]:
    def lacking(model: Any, members: Any) -> str | None:
        if getattr(model, f"trained_{name}") is not None:
            return None
        return (
            f"it does not say how it was trained (`trained_{name}`). Define it, or give `{name}` "
            "to the term"
        )

    return lacking


def _categorical(model: Any, members: Any) -> str | None:
    def prior() -> Any:
        state = model.initial()
        action = model.policy(state, jax.random.key(0))
        return model.predict(state, action, jax.numpy.zeros((), bool))[1]

    try:
        belief = jax.eval_shape(prior)
    except TypeError:  # without its own policy, the length of an action is unknown
        return None
    if isinstance(belief, Categorical):
        return None
    return f"its belief is {type(belief).__name__}, not categorical. Use a gradient step"


def _numbers(model: Any, members: Any) -> str | None:
    heads = decoded(model)
    if not heads:
        return "it has no decoder, without which a frame cannot be compared with what it expects"
    if any(not isinstance(head, Categorical) for head in heads.values()):
        return None
    return f"it decodes neither images nor vectors, only classes ({', '.join(sorted(heads))})"


def _images(model: Any, members: Any) -> str | None:
    modes = modes_of(model)
    if any(len(mode.shape) == 3 for mode in modes.values()):
        return None
    return f"it decodes no image, only {', '.join(sorted(modes)) or 'nothing'}"


def _reward(model: Any, members: Any) -> str | None:
    found = jax.eval_shape(lambda: model.reward(model.initial()))
    if found is None:
        return "it predicts no reward: its class does not define `reward(state)`"
    return _one_number("reward", found)


def _critic(model: Any, members: Any) -> str | None:
    try:
        found = jax.eval_shape(lambda: model.value(model.initial()))
    except (AttributeError, ValueError) as error:
        return f"it has no critic ({error})".rstrip(".")
    if found is None:
        return "it has no critic: `value(state)` gives None"
    return _one_number("value", found)


def _one_number(name: str, head: Any) -> str | None:
    shape = jax.eval_shape(expected, head).shape
    if not shape:
        return None
    return f"`{name}(state)` must predict one number, of shape (); its prediction has {shape}"


def _discount(model: Any, members: Any) -> str | None:
    if jax.eval_shape(lambda: model.discount(model.initial())) is not None:
        return None
    return "it has no discount of later rewards: its class does not define `discount(state)`"


def _actor(model: Any, members: Any) -> str | None:
    if jax.eval_shape(lambda: model.actor(model.initial())) is None:
        return "its class does not define `actor(state)`: the probabilities of its policy"
    if not model.action_spaces:
        return "it does not declare its `action_spaces`"
    return None


def _greedy(model: Any, members: Any) -> str | None:
    try:
        jax.eval_shape(lambda: model.greedy(model.initial(), jax.random.key(0)))
    except (AttributeError, TypeError):
        return "its class defines neither `greedy(state, key)` nor `actor(state)`"
    return None


def _continuous(model: Any, members: Any) -> str | None:
    discrete = [name for name, space in model.action_spaces if space.discrete]
    if not discrete:
        return None
    return f"its action {discrete[0]} is discrete and has no gradient. Use `values`"


DECODER = Need("a decoder", _decoder)
DECODES_ALL = Need("a decoder of all that it sees", _decodes_all)
DECODES_NUMBERS = Need("a decoder of images or vectors", _numbers)
DECODES_IMAGES = Need("a decoder of images", _images)
SPREAD = Need("a decoder whose spread depends on the state", _spread)
MEMBERS = Need("plausible parameters", _members)
PRIOR = Need("a prior that follows from the memory", _prior)
PRIOR_LAYER = Need("a last layer of the prior head", _prior_layer)
TRAINED_BETA = Need("the weight of its KL in training", _trained("beta"))
TRAINED_FREE_NATS = Need("the free nats of its training", _trained("free_nats"))
CATEGORICAL = Need("a categorical belief", _categorical)
REWARD = Need("a predicted reward", _reward)
CRITIC = Need("a critic", _critic)
DISCOUNT = Need("a discount of later rewards", _discount)
ACTOR = Need("a policy of known probabilities", _actor)
GREEDY = Need("a most likely action", _greedy)
CONTINUOUS = Need("continuous actions", _continuous)
