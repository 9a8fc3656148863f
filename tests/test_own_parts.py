"""A part of your own that returns something else than it should is named, with both forms; numbers
that nothing could act on are replaced and flagged.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_model import SEEN, Valued, made

import thinkslow
from thinkslow.agent.choices import Choice
from thinkslow.objectives.members import Source, replaced
from thinkslow.readouts import Mode, Readout


class Halfway(thinkslow.PresentTerm):
    def value(self, belief, present, *, key):
        return belief.entropy()


def own(base: type, method: str, returns: Any, **others: Any) -> Any:
    """An object of a class of one's own, whose method returns what a function of its arguments
    does.
    """
    return type(f"Own{base.__name__}", (base,), {method: returns, **others})()


def term(returns: Any) -> thinkslow.Thinking:
    one = own(thinkslow.PresentTerm, "value", lambda self, belief, present, *, key: returns(belief))
    return thinkslow.Thinking({one: 1.0}, steps=1)


def update(returns: Any) -> thinkslow.Thinking:
    def propose(self, belief, gradient, state, *, key):
        return returns(gradient, state)

    one = own(thinkslow.Update, "propose", propose, init=lambda self, belief: jnp.zeros(2))
    return thinkslow.Thinking({Halfway(): 1.0}, steps=2, update=one)


def readout(returns: Any) -> thinkslow.Thinking:
    def of(self, belief, noise):
        return returns(belief.logits)

    def best(self, belief, error, *, key, other_key):  # unannotated: users run without beartype
        return of(self, belief, None)

    one = own(Readout, "of", of, best=best)
    return thinkslow.Thinking(readout=one)


def choice(returns: Any) -> thinkslow.Thinking:
    one = own(Choice, "__call__", lambda self, facing, *, key: returns(facing.action))
    return thinkslow.Thinking(choice=one)


def played(thinking: thinkslow.Thinking) -> Any:
    """The action and the thought of a first decision."""
    player = thinkslow.Agent(made(Valued), thinking).player(seed=0)
    return player(SEEN, first=True), player.thought


def whole(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(int), tree)


@pytest.mark.parametrize(
    ("make", "returns", "said"),
    [
        (term, lambda belief: None, "floating number; got None"),
        (term, lambda belief: belief.logits[0], r"got float of shape \(3,\). Sum"),
        (term, lambda belief: jnp.int32(1), r"got int32 of shape \(\)\."),
        (update, lambda gradient, state: gradient, "two things.*got Categorical"),
        (update, lambda gradient, state: (gradient.logits, state), "must be Categorical"),
        (update, lambda gradient, state: (whole(gradient), state), "got Categorical with int32"),
        (update, lambda gradient, state: (gradient, None), r"shape \(2,\); got None"),
        (update, lambda gradient, state: (gradient, jnp.zeros(3)), r"\(2,\); got .*\(3,\)"),
        (readout, lambda logits: logits[0], r"shape \(1, 3\); got float of shape \(3,\)"),
        (readout, lambda logits: logits.astype(int), "OwnReadout returns.*got int32"),
        (readout, lambda logits: None, "got None"),
        (choice, lambda action: action, "two things.*got float"),
        (choice, lambda action: (action[:1], None), r"shape \(2,\); got float of shape \(1,\)"),
        (choice, lambda action: (jnp.int32(1), None), "got int32"),
    ],
)
def test_what_a_part_returns_is_compared_with_what_it_should(make, returns, said):
    with pytest.raises(TypeError, match=said):
        played(make(returns))


@pytest.mark.parametrize("score", [lambda t: None, lambda t: t.prior.logits, lambda t: t.seen])
def test_a_gate_score_is_one_number(score):
    def scored(self, decision, *, key):
        return score(decision.thought)

    agent = thinkslow.Agent(made(Valued), thinkslow.Thinking({Halfway(): 1.0}, steps=1))
    gate = thinkslow.Gated(agent, own(thinkslow.GateScore, "__call__", scored), threshold=0.0)
    with pytest.raises(TypeError, match="gate score owngatescore must be one floating number"):
        gate.player(seed=0)(SEEN, first=True)


@pytest.mark.parametrize(
    "thinking",
    [
        readout(lambda logits: logits * jnp.nan),
        choice(lambda action: (action * jnp.inf, None)),
        choice(lambda action: (jnp.full_like(action, 0.3), None)),  # no action of two
    ],
)
def test_numbers_that_nothing_could_act_on_are_replaced_and_flagged(thinking):
    action, thought = played(thinking)
    base, plain = played(thinkslow.Thinking())
    assert thought.replaced.tolist() == [True]
    assert action == base
    assert plain.replaced is None
    np.testing.assert_array_equal(thought.state.latent, plain.state.latent)


@pytest.mark.parametrize(
    "thinking", [readout(lambda logits: logits), thinkslow.Thinking(readout=Mode())]
)
def test_a_sound_part_is_not_flagged(thinking):
    assert played(thinking)[1].replaced.tolist() == [False]


def test_members_have_one_number_of_members():
    """The rows of a layer that nobody had stacked counted as members."""
    model = made(Valued)
    with pytest.raises(ValueError, match=r"\(M, 15, 5\).*got \(15, 5\)"):
        replaced(model, lambda m: m.cell.weight_hh, model.cell.weight_hh)

    def where(m):
        return m.encoder.layers[0].weight, m.encoder.layers[0].bias

    stacked = [jnp.stack([x] * n) for n, x in zip((2, 3), where(model), strict=True)]
    with pytest.raises(ValueError, match="M; got 2, 3"):
        replaced(model, where, tuple(stacked))


def test_a_source_returns_members():
    source = own(Source, "__call__", lambda self, model, *, key: None)
    with pytest.raises(TypeError, match="OwnSource must return Members; got None"):
        thinkslow.Agent(made(Valued)).having_members(source)


@pytest.mark.parametrize(
    "kind",
    [
        thinkslow.PresentTerm,
        thinkslow.Update,
        Readout,
        thinkslow.GateScore,
        Choice,
        thinkslow.Check,
        Source,
    ],
)
def test_every_kind_says_its_needs_by_a_property(kind):
    """Some had an attribute of the class, others a property: two ways to learn for one thing."""
    assert isinstance(inspect.getattr_static(kind, "needs"), property)
