"""Every reading of "refine the model state": its gradient, its step, its identity."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import Codes, Fuzzy, codes, equal, nightly, noisy, push, slow, steer

from thinkslow import toy
from thinkslow.agent.agent import Agent
from thinkslow.agent.arms.arm import Arm, arm
from thinkslow.agent.thinking import Thinking
from thinkslow.agent.variables import objective_and_start
from thinkslow.distributions import Categorical, Point
from thinkslow.objectives import ELBO, L2, PIG, SIG, Anchor, Entropy, Evidence, Prior
from thinkslow.objectives.members import Dropout, Laplace, Noise, checkpoints, replaced
from thinkslow.readouts import Gumbel, Reinforce, Soft, Softened
from thinkslow.refinement import Gradient, refine
from thinkslow.refinement.joint import MemoryShift, shifted
from thinkslow.trees import cast
from thinkslow.worldmodel import perceive

pytestmark = pytest.mark.usefixtures("strict")

VARIABLES = ("belief", "latent", "state", "memory")
SIGS = (SIG(), SIG("barber-agakov"), SIG("entropies", now=True))
HELD = (Evidence(0.5, 0.0), Prior(), L2(), Anchor())
RING = toy.noisy(toy.ring(4), 0.5)
SEEN = {"symbol": np.array([1])}
KEYS, FIRST = jr.split(jr.key(0), 1), np.ones(1, bool)


class Walk(toy.Toy):
    """The toy problem, whose prior follows from its memory."""

    def prior(self, memory: jax.Array) -> Categorical:
        return Categorical(memory)


WALK = Walk(RING.problem, RING.reader, RING.acts)


class Place(Fuzzy):
    """Floats seen through a noise that grows with the distance, so that images have gradients."""


def still(model: Any, state: Any, key: Any) -> jax.Array:
    """The same action everywhere, of the state's precision."""
    return jnp.full(2, 0.25, state.latent.dtype)


def coin(model: Any, state: Any, key: Any) -> jax.Array:
    return jnp.array([0.5, 0.5], state.latent.dtype)


def begun(world: Any, settings: Thinking, seen: Any, policy: Any, **given: Any) -> tuple[Any, Any]:
    """The objective of the second observation of an episode, in float64, and where it starts."""
    agent = Agent(world, settings, policy=policy, **given)

    @jax.jit
    def second() -> Any:
        state = cast(world.initial(), jnp.float64)
        action = policy(world, state, None)
        first = perceive(world, state, action, jnp.array(True), seen)
        start = dataclasses.replace(state, memory=first.memory, latent=first.posterior.soft())
        return perceive(world, start, action, jnp.array(False), seen)

    return objective_and_start(agent, seen, second(), jr.key(1))


def slopes(objective: Any, at: Any, *keys: Any) -> Any:
    """Derivatives and central differences of every term, along a direction without symmetry; for
    each of several keys, if they are given. One program is compiled.
    """
    way = jax.tree.map(lambda x: wave(x, 2.0), at)

    @jax.jit
    def along(length: Any, key: Any) -> Any:
        def term(length: Any) -> Any:
            return objective(jax.tree.map(lambda x, d: x + length * d, at, way), key)[1]

        return jax.jvp(term, (length,), (1.0,))

    def of(key: Any) -> tuple[Any, Any]:
        step = 1e-5
        after, before = along(step, key)[0], along(-step, key)[0]
        numeric = {name: float(after[name] - before[name]) / (2 * step) for name in after}
        return jax.tree.map(float, along(0.0, key)[1]), numeric

    return [of(key) for key in keys] if keys else of(jr.key(0))


def wave(x: jax.Array, phase: float) -> jax.Array:
    return jnp.sin(phase + jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)


def agree(found: tuple[Any, Any], names: Any) -> None:
    for name in names:
        analytic, numeric = found[0][name], found[1][name]
        np.testing.assert_allclose(analytic, numeric, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("model", ["toy", "floats"])
def test_the_gradient_of_every_reading_is_that_of_finite_differences(model, variable):
    """In float64, along a direction without symmetry, every term alone. On the toy problem an
    imagined symbol is a class, straight through, so that SIG is differentiated on floats."""
    with jax.enable_x64(True):
        if model == "toy":
            world: Any = cast(WALK, jnp.float64)
            terms, policy, seen = (*HELD, Entropy()), coin, {"symbol": jnp.array([0.2, 0.5, 0.3])}
        else:
            world = Place(jnp.array(0.8))
            terms, policy, seen = (*SIGS, ELBO(), *HELD), still, {"seen": jnp.array([1.0, -1.0])}
        settings = Thinking(
            dict.fromkeys(terms, 1.0), steps=1, horizon=2, latent=Soft(), variable=variable
        )
        objective, begin = begun(world, settings, seen, policy)
        at = jax.tree.map(lambda x: x + 0.1 * wave(x, 1.0), begin)
        if model == "toy" and variable != "belief":
            # A table of probabilities takes no negative latent.
            at = jax.tree.map(lambda x: jnp.abs(x) + 0.2, at)
        found = slopes(objective, at)
        agree(found, [term.name for term in terms])
        moving = [abs(found[0][term.name]) > 1e-6 for term in terms]
        assert sum(moving) >= (len(terms) - 2 if variable != "memory" else 2)


class Headed(Codes):
    """The codes, whose prior follows from the memory."""

    def prior(self, memory: jax.Array) -> Categorical:
        return self._belief(memory @ self.head)


def head(model: Any) -> Any:
    return model.head


def leaning(model: Any, state: Any, key: Any) -> jax.Array:
    return steer(state, key)


SOURCES = {
    "dropout": Dropout(0.25, 3, head),
    "noise": Noise(0.5, 3, head),
    "laplace": Laplace(jnp.sin(jnp.arange(20.0)).reshape(5, 4), 1.0, 3, head),
}


@pytest.mark.parametrize(
    ("source", "variable"),
    [
        ("dropout", "state"),
        *(slow("dropout", variable) for variable in ("belief", "latent", "memory")),
        *(slow(source, "state") for source in ("noise", "laplace", "ensemble", "checkpoints")),
    ],
)
def test_the_gradient_of_parameter_gain_is_that_of_finite_differences(source, variable):
    """For every source of plausible parameters, dropout at test time among them."""
    base = codes()
    model = Headed(base.core, base.head, base.eyes, base.view)
    if source == "ensemble":
        members = replaced(model, head, jnp.stack([0.5 * model.head, jnp.cos(model.head)]))
    elif source == "checkpoints":
        members = checkpoints([model, jax.tree.map(jnp.sin, model)])
    else:
        members = SOURCES[source](model, key=jr.key(2))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # as `codes` needs
        settings = Thinking({PIG(): 1.0}, steps=1, horizon=2, latent=Soft(), variable=variable)
        world, members = cast((model, members), jnp.float64)
        bits = {"bits": jnp.array([1.0, 0.0, 0.0, 1.0, 1.0])}
        objective, begin = begun(world, settings, bits, leaning, members=members)
        at = jax.tree.map(lambda x: x + 0.1 * wave(x, 1.0), begin)
        found = slopes(objective, at)
        agree(found, ["pig"])
        assert abs(found[0]["pig"]) > 1e-6


@pytest.mark.parametrize("key", [0, slow(7)])
def test_the_gradient_under_each_draw_of_the_noise_is_that_of_finite_differences(key):
    """Fresh noise is another key at each step: each gradient is that of its own draw."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # as `codes` needs
        terms = (SIG(), Evidence(0.5, 0.0, samples=2))
        settings = Thinking(
            dict.fromkeys(terms, 1.0), steps=1, horizon=2, latent=Gumbel(), fresh_noise=True
        )
        world, bits = cast(codes(), jnp.float64), {"bits": jnp.array([1.0, 0.0, 0.0, 1.0, 1.0])}
        objective, begin = begun(world, settings, bits, leaning)
        found, other = slopes(objective, begin, jr.key(key), jr.key(key + 1))
        agree(found, [term.name for term in terms])
        assert all(abs(found[0][name] - other[0][name]) > 1e-6 for name in ("sig", "evidence"))


@pytest.mark.parametrize(
    ("part", "variable"),
    [slow("policy", "belief"), slow("policy", "state"), slow("memory", "state")],
)
def test_a_gradient_without_a_part_is_that_of_finite_differences_with_it_held(part, variable):
    """One imagined step, so that what is held, its action or the memory before it, is known."""
    with jax.enable_x64(True):
        seen = {"seen": jnp.array([1.0, -1.0])}
        holding: list[Any] = []

        class Held(Place):
            def predict(self, state: Any, action: jax.Array, is_first: jax.Array):
                if part == "memory" and holding:
                    state = dataclasses.replace(state, memory=holding[0].memory)
                return super().predict(state, action, is_first)

        def acting(model: Any, state: Any, key: Any) -> jax.Array:
            where = holding[0] if part == "policy" and holding else state
            return push(where, jr.key(9)).astype(jnp.float64)

        def objective(**options: Any) -> tuple[Any, Any]:
            settings = Thinking(
                {SIG(): 1.0}, steps=1, horizon=1, latent=Soft(), variable=variable, **options
            )
            return begun(Held(jnp.array(0.8)), settings, seen, acting)

        (cut, at), (whole, _) = objective(**{f"through_{part}": False}), objective()
        states: list[Any] = []

        def noting(model: Any, state: Any, key: Any) -> jax.Array:
            jax.debug.callback(states.append, state)
            return acting(model, state, key)

        settings = Thinking({SIG(): 1.0}, steps=1, horizon=1, latent=Soft(), variable=variable)
        noted, _ = begun(Held(jnp.array(0.8)), settings, seen, noting)
        jax.effects_barrier()
        states.clear()
        noted(at, jr.key(0))
        jax.effects_barrier()
        analytic, through = slopes(cut, at)[0]["sig"], slopes(whole, at)[0]["sig"]
        holding.append(jax.tree.map(jnp.asarray, states[0]))
        numeric = slopes(whole, at)[1]["sig"]
        np.testing.assert_allclose(analytic, numeric, rtol=1e-5, atol=1e-7)
        assert abs(analytic - through) > 1e-4


def decided(thinking: Thinking, model: Any = WALK) -> tuple[Any, Any]:
    agent = Agent(model, thinking)
    carry, _, _ = agent.act(agent.start(1), SEEN, FIRST, keys=KEYS)
    carry, action, thought = agent.act(carry, SEEN, ~FIRST, keys=jr.split(jr.key(5), 1))
    return (carry.state, action), thought


@pytest.mark.parametrize(
    ("variable", "landing"),
    [
        ("belief", "as-is"),
        slow("latent", "code"),
        slow("state", "simplex"),
        slow("memory", "as-is"),
        nightly("latent", "as-is"),
        nightly("state", "as-is"),
    ],
)
def test_no_steps_and_steps_of_no_length_are_the_base_agent_to_the_bit(variable, landing):
    plain = decided(Thinking())[0]
    terms = {SIG(): 1.0, Evidence(0.5, 0.0): 1.0}
    equal(decided(Thinking(terms, variable=variable, landing=landing))[0], plain)
    idle = Thinking(
        terms,
        steps=3,
        horizon=1,
        variable=variable,
        landing=landing,
        update=Gradient(0.0),
        max_kl=float("inf"),
        fresh_noise=True,
        through_policy=False,
        through_memory=False,
    )
    bounded = dataclasses.replace(idle, update=Gradient(1.0), max_kl=0.0)  # of the same program
    for still in (idle, bounded):
        equal(decided(still)[0], plain)


def raw_steps(variable: Any, term: Any, **options: Any) -> Any:
    """The thought of a first observation by plain gradient steps on a soft latent, unbounded."""
    options = {"steps": 1, "update": Gradient(0.1)} | options
    settings = Thinking(
        {term: 1.0}, variable=variable, max_kl=float("inf"), latent=Soft(), **options
    )
    agent = Agent(WALK, settings)
    return agent.act(agent.start(1), SEEN, FIRST, keys=KEYS)[2]


def test_a_raw_step_is_the_gradient_times_its_length():
    """The evidence of the toy problem is linear in the latent: the step is known."""
    thought = raw_steps("latent", Evidence(0.0, 0.0), steps=3)
    gradient = -jnp.log(WALK.problem.emission[:, 1])
    expected = thought.base.latent[0] - 3 * 0.1 * gradient
    np.testing.assert_allclose(thought.state.latent[0], expected, rtol=1e-5)
    # Its nats are half the squared distance.
    np.testing.assert_allclose(thought.moved[0], 0.5 * jnp.sum((0.3 * gradient) ** 2), rtol=1e-4)


@pytest.mark.parametrize("landing", [slow("as-is"), "code", "simplex"])
def test_a_stepped_latent_acts_where_it_lands(landing):
    thought = raw_steps("latent", Evidence(0.0, 0.0), landing=landing, update=Gradient(0.2))
    latent, stepped = np.asarray(thought.state.latent[0]), np.asarray(thought.after.value[0])
    if landing == "as-is":
        np.testing.assert_array_equal(latent, stepped)
    else:
        np.testing.assert_allclose(latent.sum(), 1.0, rtol=1e-6)
        assert (latent >= 0).all()
    if landing == "code":
        assert latent[np.argmax(stepped)] == 1


def test_the_memory_moves_where_it_is_stepped_and_the_belief_stays():
    thought = raw_steps("memory", Evidence(0.5, 0.0), steps=2)
    assert np.abs(thought.state.memory - thought.base.memory).max() > 1e-3
    equal(thought.state.latent, thought.base.latent)
    one, other = MemoryShift(jnp.array([3.0, 0.0])), MemoryShift(jnp.array([0.0, 4.0]))
    assert float(one.kl(other)) == 12.5


descend = eqx.filter_jit(refine)


@pytest.mark.parametrize(("radius", "share"), [(np.inf, 1.0), (0.5, 0.5)])
def test_a_memory_that_was_moved_has_a_gradient(radius, share):
    """Without a bound it was NaN, so that of several steps only the first was made."""
    memory, shift = jnp.array([3.0, 4.0]), jnp.array([0.0, 5.0])
    slope = jax.grad(lambda shift: shifted(memory, shift, radius)[0])(shift)
    np.testing.assert_allclose(slope, [share, 0.0], atol=1e-6)


@pytest.mark.slow
def test_fresh_noise_is_another_draw_at_every_step():
    belief = Categorical(jnp.zeros((2, 3)))
    fixed, fresh = (
        descend(noisy, belief, Gradient(0.0), steps=3, key=jr.key(0), fresh_noise=each).loss
        for each in (False, True)
    )
    assert len(set(np.asarray(fixed).tolist())) == 1
    assert len(set(np.asarray(fresh).tolist())) == 4
    adaptive = descend(
        noisy, belief, Gradient(0.0), steps=3, key=jr.key(0), fresh_noise=True, tolerance=0.0
    )
    assert float(adaptive.loss[0]) == float(fresh[0])


def gradient(settings: Thinking, policy: Any) -> Any:
    model = Place(jnp.array(0.8))
    agent = Agent(model, settings, policy=policy)
    seen = {"seen": jnp.array([1.0, -1.0])}
    state, action = model.initial(), jnp.array([0.3, 0.1])
    moment = perceive(model, state, action, jnp.array(False), seen)
    objective, first = objective_and_start(agent, seen, moment, jr.key(1))
    return jax.jit(jax.grad(lambda x: objective(x, jr.key(0))[0]))(first), moment


def test_without_the_policy_the_gradient_is_that_of_the_actions_held():
    """One imagined step, so that its action is that of the present state."""
    settings = Thinking(
        {SIG(): 1.0}, steps=1, horizon=1, latent=Soft(), variable="latent", through_policy=False
    )

    def acting(model: Any, state: Any, key: Any) -> jax.Array:
        return push(state, jr.key(9))

    found, moment = gradient(settings, acting)
    point = moment.posterior.sample(key=jr.key(1))
    held = push(type(Place(jnp.array(0.8)).initial())(moment.memory, point), jr.key(9))
    through = dataclasses.replace(settings, through_policy=True)
    expected, _ = gradient(through, lambda model, state, key: held)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-5)
    other, _ = gradient(through, acting)
    assert np.abs(other.value - found.value).max() > 1e-4


def test_without_the_memory_nothing_of_the_future_reaches_it():
    settings = Thinking(
        {SIG(): 1.0}, steps=1, horizon=1, latent=Soft(), variable="memory", through_memory=False
    )

    def acting(model: Any, state: Any, key: Any) -> jax.Array:
        return still(model, state, key)

    found, _ = gradient(settings, acting)
    np.testing.assert_array_equal(found.shift, jnp.zeros(2))
    open_, _ = gradient(dataclasses.replace(settings, through_memory=True), acting)
    assert np.abs(open_.shift).max() > 1e-4


def test_a_point_is_as_sure_as_a_code():
    """KL of a one-hot latent from a belief is the surprise of its class."""
    belief = Categorical(jnp.log(jnp.array([[0.7, 0.2, 0.1]])))
    point = Point(jnp.array([[0.0, 1.0, 0.0]]))
    np.testing.assert_allclose(point.kl(belief), -np.log(0.2), rtol=1e-6)
    assert float(point.kl(Point(jnp.zeros((1, 3))))) == 0.5


def test_softening_goes_its_length_and_no_further_than_the_probabilities():
    belief, noise = Categorical(jnp.zeros((1, 2))), jnp.array([[1.0, 0.0]])
    apart = np.sqrt(0.5)
    for length, expected in ((0.1, 0.1), (5.0, apart)):
        z = Softened(length).of(belief, noise)
        went = np.linalg.norm(np.asarray(z) - np.array([[1.0, 0.0]]))
        np.testing.assert_allclose(went, expected, rtol=1e-5)


@pytest.mark.slow
def test_dropout_comes_with_its_arm(dreamer):
    """The agent has no ensemble: the arm brings masks."""
    agent = Agent(dreamer).thinking("paper-pig-dropout")
    assert isinstance(arm("paper-pig-dropout"), Arm)
    assert agent.inner is not None
    assert agent.inner.members is not None
    image = np.random.default_rng(0).integers(256, size=(1, 16, 16, 3)).astype(np.uint8)
    _, _, thought = agent.act(agent.start(1), {"image": image}, FIRST, keys=KEYS)
    assert float(thought.moved[0]) > 0


@pytest.mark.parametrize("name", [nightly("paper-z"), slow("paper-state"), nightly("paper-memory")])
def test_a_reading_runs_on_a_dreamer(dreamer, name):
    agent = Agent(dreamer).thinking(name)
    image = np.random.default_rng(0).integers(256, size=(1, 16, 16, 3)).astype(np.uint8)
    carry, _, thought = agent.act(agent.start(1), {"image": image}, FIRST, keys=KEYS)
    _, _, thought = agent.act(carry, {"image": image}, ~FIRST, keys=KEYS)
    assert np.isfinite(thought.moved).all()
    assert float(thought.moved[0]) > 0


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variable": "z"}, "must be one of belief, latent, state, memory; got 'z'"),
        ({"landing": "code"}, "`variable` must be 'latent' or 'state'; got 'belief'"),
        ({"variable": "latent", "readout": Soft()}, "so `readout` must be None"),
        (
            {"variable": "state", "latent": Reinforce(), "terms": {SIG(): 1.0}, "rollouts": 2},
            "compares several draws",
        ),
        ({"variable": "memory", "particles": 2}, "`particles` must be 1"),
    ],
)
def test_impossible_readings_are_refused_with_rule_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        Thinking(**options)
    with pytest.raises(ValueError, match="must be one of kl, barber-agakov, entropies; got 'mi'"):
        SIG("mi")
