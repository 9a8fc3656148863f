"""Choosing by value: the policy improves where values say so, as far as it may, and no further."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import Line, nightly, slow, tiny_dreamer, tiny_v1

from thinkslow.agent.agent import Agent, greedy_policy
from thinkslow.agent.arms.arm import arm
from thinkslow.agent.choices import Ascent, Facing, Likeliest, Shuffled, Tempered, Values
from thinkslow.agent.choices.choice import divergence, every_action, perturbed, strength
from thinkslow.agent.choices.values import imagined_return, shrunk
from thinkslow.agent.gates import (
    Gated,
    GateScore,
    Improvement,
    PolicyInformation,
    TwoStage,
    ValueOfComputation,
)
from thinkslow.agent.gates.scores import value_of_computation
from thinkslow.agent.thinking import Thinking
from thinkslow.distributions import Categorical
from thinkslow.heads import BoundedNormal, SymlogSquared
from thinkslow.objectives import Evidence
from thinkslow.readouts import Soft
from thinkslow.spaces import Space
from thinkslow.toy import Rewarded, rewarded, ring
from thinkslow.worldmodel import State

BATCH = 3
FEW = {"latents": 4, "horizon": 2, "scale": 1.0}
PAYS = np.eye(8)[0]


def facing(model: Any, belief: Categorical) -> Facing:
    memory = jnp.log(model.problem.start)
    state = State(memory, belief.mode())
    action = jnp.array([1.0, 0.0])
    return Facing(model, model.policy, False, belief, state, action, None, 1.0)


def near(*places: int) -> Categorical:
    """A belief that is nearly sure to be in one of these places."""
    return Categorical(4.0 * jnp.asarray(sum(np.eye(8)[place] for place in places), jnp.float32))


def decide(agent, seed: int = 1):
    rng = np.random.default_rng(0)
    shown = {"symbol": Space((), "int32", 3)} | dict(agent.observation_spaces)
    seen = {
        name: rng.integers(space.classes or 256, size=(BATCH, *space.shape)).astype(space.dtype)
        for name, space in shown.items()
    }
    first = np.ones(BATCH, bool)
    return agent.act(agent.start(BATCH), seen, first, keys=jr.split(jr.key(seed), BATCH))


def walker(actions: int = 2) -> Rewarded:
    """A small model of a ring that pays, with a policy that leans by its state."""
    rng, problem = np.random.default_rng(0), ring(slip=0.1)
    if actions > 2:  # each leads elsewhere
        moves = jnp.asarray(rng.dirichlet(np.ones(8), (actions, 8)), jnp.float32)
        problem = dataclasses.replace(problem, dynamics=moves)
    return rewarded(problem, PAYS, acts=rng.dirichlet(np.ones(actions), 8))


class Pusher(Line):
    """Pushes a point, and is paid for where it comes to be."""

    @property
    def action_spaces(self):
        return (("push", Space((2,), "float32")),)

    def actor(self, state):
        return {"push": BoundedNormal(0.1 * jnp.tanh(state.latent), jnp.full(2, 0.3))}

    def policy(self, state, key):
        return self.actor(state)["push"].sample(key=key)

    def reward(self, state):
        return SymlogSquared(-jnp.sum((state.memory - 0.5) ** 2))

    def discount(self, state):
        return jnp.float32(0.9)

    def value(self, state):
        return SymlogSquared(jnp.zeros(()))


def pusher() -> Agent:
    return Agent(Pusher(jnp.array(0.3)))


def look(agent: Agent, seed: int = 1):
    seen = {"seen": np.zeros((BATCH, 2), np.float32)}
    first = np.ones(BATCH, bool)
    return agent.act(agent.start(BATCH), seen, first, keys=jr.split(jr.key(seed), BATCH))


def chosen_by(thought: Any) -> Any:
    assert thought.chosen is not None
    return thought.chosen


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("horizon", [slow(1), 5])
def test_imagined_advantages_are_the_exact_ones_of_a_toy(horizon):
    """In the mean over latents a lambda-return is the worth of the action under the belief."""
    model = rewarded(ring(), PAYS)
    belief = near(1, 6)
    values = Values(latents=2000, horizon=horizon, scale=1.0)
    chosen = jax.jit(lambda key: values(facing(model, belief), key=key)[1])(jr.key(0))
    worth = model.worth(belief.probs())
    exact = worth - worth.mean()
    assert np.abs(chosen.advantages - exact).max() < 4 * chosen.errors.max()
    assert chosen.errors.max() < 0.2 * np.abs(exact).max()


def test_one_latent_takes_the_side_of_the_latent_and_many_weigh_both():
    """At 1 the way is back, at 7 forth; which is likelier decides, once both are drawn."""
    model = rewarded(ring(slip=0.05), PAYS)
    belief = Categorical(jnp.log(jnp.asarray(np.eye(8)[1] * 0.7 + np.eye(8)[7] * 0.29 + 1e-4)))
    many = Values(latents=200, horizon=1, scale=1.0)
    one = Values(latents=1, horizon=1, scale=1.0)

    @jax.jit
    def back(key):
        return [v(facing(model, belief), key=key)[1].advantages[0] for v in (one, many)]

    singles, together = jax.vmap(back)(jr.split(jr.key(0), 40))
    assert 0.1 < np.mean(np.asarray(singles) < 0) < 0.6
    assert (np.asarray(together) > 0).all()


def test_a_tilt_goes_as_far_as_its_temperature_or_its_bound_allow():
    log_probs = jax.nn.log_softmax(jnp.array([0.0, 1.0, -1.0, 0.5]))
    way = jnp.array([1.0, -0.5, 2.0, 0.0])
    whole = divergence(log_probs, 2.0 * way)
    for bound in (0.0, 0.01, 0.3, 100.0):
        found = strength(log_probs, way, jnp.float32(bound), jnp.float32(2.0))
        kl = divergence(log_probs, found * way)
        np.testing.assert_allclose(kl, min(bound, whole), atol=1e-5)
        assert kl <= bound + 1e-6
    assert strength(log_probs, way, jnp.float32(0.0), jnp.float32(2.0)) == 0.0


def test_noise_that_agrees_with_the_policy_draws_from_the_tilted_one():
    """Where the tilt decides nothing the action is the policy's; over many draws it is the
    improved policy that acts."""
    log_probs = jax.nn.log_softmax(jnp.array([0.0, 1.0, -1.0]))
    tilt = jnp.array([1.5, -0.5, 0.0])

    def one(key):
        own, noise = jr.split(key)
        taken = jr.categorical(own, log_probs)
        tried = perturbed(log_probs, taken, key=noise)
        return taken, jnp.argmax(tried), jnp.argmax(tried + tilt)

    taken, untilted, tilted = jax.jit(jax.vmap(one))(jr.split(jr.key(0), 20_000))
    np.testing.assert_array_equal(taken, untilted)
    shares = np.bincount(np.asarray(tilted), minlength=3) / len(tilted)
    # Four standard errors of a share of 20,000 draws.
    np.testing.assert_allclose(shares, jax.nn.softmax(log_probs + tilt), atol=0.014)
    assert np.mean(taken == tilted) > 0.5


def test_advantages_below_their_error_count_for_nothing():
    found = shrunk(jnp.array([2.0, -2.0, 0.5, 0.0]), jnp.array([1.0, 1.0, 1.0, 0.0]))
    np.testing.assert_allclose(found, [1.5, -1.5, 0.0, 0.0])


@pytest.mark.parametrize("control", [Tempered, slow(Shuffled)])
def test_a_control_goes_as_far_as_the_values_do(control):
    model = rewarded(
        ring(), PAYS, acts=np.stack([np.linspace(0.2, 0.7, 8), np.linspace(0.8, 0.3, 8)], 1)
    )
    at = facing(model, near(1))
    found = [
        jax.jit(lambda key, v=v: v(at, key=key)[1])(jr.key(0))
        for v in (
            Values(latents=8, scale=1.0, max_kl=0.1),
            control(latents=8, scale=1.0, max_kl=0.1),
        )
    ]
    assert found[0].kl > 0.01
    np.testing.assert_allclose(found[1].kl, found[0].kl, rtol=1e-3)
    equal(found[0].advantages, found[1].advantages)


MODELS = {
    "main": tiny_dreamer,
    "toy": walker,
    "v1": tiny_v1,
    "two actions": lambda: tiny_dreamer(
        actions={"look": Space((), "int32", 2), "move": Space((), "int32", 3)}
    ),
    "continuous": lambda: tiny_dreamer(actions={"push": Space((2,), "float32")}),
    "gaussian": lambda: tiny_dreamer(classes=None),
}


TIERS = dict.fromkeys(("main", "v1", "two actions", "gaussian"), nightly) | {"continuous": slow}


@pytest.mark.parametrize("name", [TIERS.get(name, pytest.param)(name) for name in MODELS])
def test_a_choice_that_may_not_move_is_the_base_agent_and_one_that_may_moves_it(name):
    model = MODELS[name]()
    plain = decide(Agent(model))
    still = decide(Agent(model, Thinking(choice=Values(**FEW, max_kl=0.0))))
    equal(still[0].state, plain[0].state)
    if name == "continuous":  # mean + spread x noise, rounded as each program fuses it
        np.testing.assert_allclose(still[1], plain[1], rtol=1e-6, atol=1e-7)
    else:
        equal(still[:2], plain[:2])
    free = Agent(model, Thinking(choice=Values(**FEW, temperature=1e-3, max_kl=5.0)))
    carry, action, thought = decide(free)
    equal(carry.state, plain[0].state)
    equal(thought.base, plain[2].base)
    assert (np.asarray(chosen_by(thought).kl) > 0).any()
    taken = [
        np.argmin(np.abs(row - at).sum(-1))
        for row, at in zip(np.asarray(chosen_by(thought).actions), np.asarray(action), strict=True)
    ]
    assert np.isfinite(np.asarray(chosen_by(thought).improved)[np.arange(BATCH), taken]).all()


@pytest.mark.slow
def test_of_many_actions_the_likeliest_are_looked_at_and_the_rest_completed():
    """Those that are not looked at share one value, and the policy's own is among the others."""
    model = walker(9)
    agent = Agent(model, Thinking(choice=Values(latents=16, scale=1.0, candidates=4)))
    _, _, thought = decide(agent)
    _, base, _ = decide(Agent(model))
    for row, taken in zip(np.asarray(chosen_by(thought).advantages), base.argmax(-1), strict=True):
        values, counts = np.unique(row, return_counts=True)
        assert counts.max() == 5
        assert counts[np.searchsorted(values, row[taken])] < 5


def test_numbers_may_change_without_compiling_again():
    traces: list = []

    class Counting(Values):
        def tilt(self, compared, tilt, *, key):
            traces.append(1)
            return tilt

    model = walker()
    for number in (0.1, 0.2, 1):
        decide(Agent(model, Thinking(choice=Counting(**FEW, temperature=number, max_kl=number))))
    assert len(traces) == 1
    decide(Agent(model, Thinking(choice=Counting(**{**FEW, "horizon": 3}))))
    assert len(traces) == 2


@pytest.mark.slow
def test_a_choice_goes_with_refinement_and_is_made_under_the_refined_belief():
    exact = walker()
    model = eqx.tree_at(lambda m: m.reader, exact, 0.3 * exact.reader)  # an encoder that errs
    how = Thinking({Evidence(): 1.0}, steps=2, latent=Soft(), max_kl=2.0)
    refined = decide(Agent(model, how))
    both = decide(Agent(model, dataclasses.replace(how, choice=Values(**FEW, max_kl=5.0))))
    equal(both[0].state, refined[0].state)
    equal(both[2].after, refined[2].after)
    alone = decide(Agent(model, Thinking(choice=Values(**FEW, max_kl=5.0))))
    assert (
        np.abs(np.asarray(chosen_by(both[2]).advantages - chosen_by(alone[2]).advantages)).max() > 0
    )


def test_what_the_agent_lacks_is_said():
    without = tiny_dreamer(value=None)
    with pytest.raises(ValueError, match=r"critic"):
        Agent(without, Thinking(choice=Values()))
    Agent(without, Thinking(choice=Values(critic=False)))
    with pytest.raises(ValueError, match=r"`policy`.*Leave `policy` out"):
        Agent(tiny_dreamer(), Thinking(choice=Values()), policy=lambda m, s, k: m.policy(s, k))
    with pytest.raises(ValueError, match=r"range.*calibrated"):
        decide(Agent(walker(), Thinking(choice=Values())))
    decide(Agent(walker(), Thinking(choice=Values(latents=2)), returns=3.0))
    with pytest.raises(ValueError, match="latents"):
        Values(latents=0)
    with pytest.raises(ValueError, match=r"'horizn'. Did you mean horizon"):
        arm("values:horizn=3")
    assert arm("values:latents=4:max_kl=1").thinking.choice == Values(latents=4, max_kl=1.0)


def test_the_likeliest_action_is_that_of_a_greedy_agent(dreamer):
    equal(
        decide(Agent(dreamer, Thinking(choice=Likeliest())))[1],
        decide(Agent(dreamer, policy=greedy_policy))[1],
    )


def test_actions_are_listed_as_the_model_joins_them(dreamer):
    model = MODELS["two actions"]()
    listed = every_action(model.action_spaces, 6)
    assert listed is not None
    found = {tuple(int(v) for v in model.split(row).values()) for row in listed}
    assert found == {(look, move) for look in range(2) for move in range(3)}
    assert every_action(model.action_spaces, 5) is None
    assert every_action((("push", Space((2,), "float32")),), 100) is None


def test_a_return_counts_what_comes_after_the_start():
    model = rewarded(ring(slip=0.0), PAYS, rate=0.5)
    at = facing(model, near(0))
    away = imagined_return(
        at, at.state, jnp.array([0.0, 1.0]), horizon=1, trace=1.0, critic=False, key=jr.key(0)
    )
    assert float(away) < 0.1  # it stood on what pays, and left


def test_computation_is_worth_most_where_the_best_two_are_close_and_uncertain():
    rng = np.random.default_rng(0)
    noise = jnp.asarray(rng.normal(size=(50, 2)), jnp.float32)
    close = value_of_computation(noise)
    sure = value_of_computation(noise + jnp.array([5.0, 0.0]))
    calm = value_of_computation(0.01 * noise)
    assert close > 10 * calm > 10 * sure >= 0


@pytest.mark.slow
def test_a_gate_opens_for_a_choice_and_is_the_base_agent_while_closed():
    model = walker()
    agent = Agent(model, Thinking(choice=Values(**FEW, temperature=1e-3, max_kl=5.0)))
    carry, action, thought = decide(Gated(agent, ValueOfComputation(latents=4), np.inf))
    equal((carry, action), decide(Agent(model))[:2])
    assert (np.asarray(thought.doubt) >= 0).all()
    assert not thought.thinks.any()
    equal(decide(Gated(agent, Improvement(latents=4), -np.inf))[1], decide(agent)[1])


@pytest.mark.slow
def test_the_second_stage_of_a_gate_is_the_value_of_computation_where_the_first_is_high():
    agent = Agent(walker(), Thinking(choice=Values(**FEW)))

    def doubt(score: GateScore) -> np.ndarray:
        return np.asarray(decide(Gated(agent, score, np.inf))[2].doubt)

    first, voc = doubt(PolicyInformation()), doubt(ValueOfComputation())
    median = float(np.median(first))
    staged = doubt(TwoStage(above=median))
    np.testing.assert_allclose(staged, np.where(first > median, voc, -np.inf), rtol=1e-5)
    assert 0 < np.isfinite(staged).sum() < len(staged)
    with pytest.raises(ValueError, match=r"above=.*|thinkslow\.calibrated"):
        doubt(TwoStage())


def test_a_policy_that_looks_at_no_latent_leaves_nothing_to_find_out():
    """The information between latent and action is zero, and positive for one that looks."""

    def told(model: Any) -> np.ndarray:
        agent = Agent(model, Thinking(choice=Values(**FEW)))
        return np.asarray(decide(Gated(agent, PolicyInformation(), np.inf))[2].doubt)

    assert told(walker()).max() > 0.1
    np.testing.assert_allclose(told(rewarded(ring(), PAYS)), 0.0, atol=1e-6)


PLANNING: dict[str, Any] = {"sequences": 4, "latents": 4, "horizon": 2}


def test_ascent_pushes_towards_what_pays_and_of_no_strength_is_the_base_agent():
    agent = pusher()
    plain = look(agent)
    equal(look(agent.having(Thinking(choice=Ascent(strength=0.0, **PLANNING))))[:2], plain[:2])
    carry, action, thought = look(agent.having(Thinking(choice=Ascent(strength=0.3, **PLANNING))))
    equal(carry.state, plain[0].state)
    assert (np.abs(np.asarray(action)) <= 1).all()
    # The reward is largest where the memory is 0.5, which the policy does not seek.
    assert (np.asarray(chosen_by(thought).advantages).max(1) > 0).all()
    assert np.abs(np.asarray(action) - 0.5).mean() < np.abs(np.asarray(plain[1]) - 0.5).mean()
    with pytest.raises(ValueError, match="discrete"):
        Agent(walker(), Thinking(choice=Ascent()))


@pytest.mark.slow
def test_more_steps_of_ascent_come_higher():
    few, many = (
        chosen_by(look(pusher().having(Thinking(choice=Ascent(steps=n, **PLANNING))))[2])
        for n in (0, 8)
    )
    assert (np.asarray(many.advantages).max(1) > np.asarray(few.advantages).max(1)).all()
