import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import BITS, Line, codes, push, slow, steer

from thinkslow.agent.agent import Agent
from thinkslow.agent.decision import Thought
from thinkslow.agent.inputs import Carry, Inputs, prepared
from thinkslow.agent.observing import named
from thinkslow.agent.thinking import Thinking
from thinkslow.distributions import Categorical, Gaussian
from thinkslow.objectives import SIG, Anchor, Evidence
from thinkslow.objectives.lookahead import paired
from thinkslow.readouts import BestOf, Mode, Reinforce, Soft, Softened
from thinkslow.refinement import Gradient, Langevin, Mirror
from thinkslow.spaces import Space
from thinkslow.trees import Alike, all_finite
from thinkslow.worldmodel import State, WorldModel, surprise

pytestmark = pytest.mark.usefixtures("strict")

BATCH = 3
EVIDENCE = Thinking({Evidence(): 1.0}, steps=2, latent=Soft(), max_kl=2.0)


@pytest.fixture(scope="module")
def stream() -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Four observations of three environments; one of them begins anew on the way."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(4, BATCH, 16, 16, 3)).astype(np.uint8)
    first = np.zeros((4, BATCH), bool)
    first[0], first[2, 1] = True, True
    return [({"image": image}, flags) for image, flags in zip(images, first, strict=True)]


def losses(thought: Thought) -> np.ndarray:
    """Of every iterate, `[batch, steps + 1]`."""
    assert thought.refined is not None
    return np.asarray(thought.refined.loss)


def play(agent: Agent, stream: list, seed: int = 0) -> list[tuple[Carry, Any, Thought]]:
    carry, out = agent.start(BATCH), []
    for time, (observation, first) in enumerate(stream):
        keys = jr.split(jr.fold_in(jr.key(seed), time), BATCH)
        carry, action, thought = agent.act(carry, observation, first, keys=keys)
        out.append((carry, action, thought))
    return out


def equal(first: Any, second: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.fixture(scope="module")
def base(dreamer, stream):
    return play(Agent(dreamer), stream)


@pytest.fixture(scope="module")
def thought(dreamer, stream):
    return play(Agent(dreamer, EVIDENCE), stream)


def test_the_base_agent_is_predict_infer_sample_act(dreamer, stream, base):
    """Written out for one environment, with the documented three streams of one key."""

    @jax.jit
    def decide(state: State, action: jax.Array, image: jax.Array, first: jax.Array, key: jax.Array):
        latent_key, action_key, _ = jr.split(key, 3)
        memory, _ = dreamer.predict(state, action, first)
        latent = dreamer.infer(memory, {"image": image}).sample(key=latent_key)
        state = State(memory, latent)
        return state, dreamer.policy(state, action_key)

    state, action = dreamer.initial(), jnp.zeros(3)
    for time, (observation, first) in enumerate(stream):
        key = jr.split(jr.fold_in(jr.key(0), time), BATCH)[1]
        image = jnp.asarray(observation["image"][1])
        state, action = decide(state, action, image, jnp.asarray(first[1]), key)
        carry, played, _ = base[time]
        # One example and a batch of three sum in another order; draws are the same.
        np.testing.assert_allclose(carry.state.memory[1], state.memory, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(carry.state.latent[1], state.latent)
        np.testing.assert_array_equal(played[1], action)


@pytest.mark.parametrize("steps_of", ["zero size", slow("zero nats")])
def test_thinking_of_no_size_is_the_base_agent_bit_for_bit(dreamer, stream, base, steps_of):
    idle: Any = {"update": Gradient(0.0)} if steps_of == "zero size" else {"max_kl": 0.0}
    out = play(Agent(dreamer, dataclasses.replace(EVIDENCE, **idle)), stream)
    for (carry, action, thought), (carry0, action0, thought0) in zip(out, base, strict=True):
        equal(carry, carry0)
        equal(action, action0)
        equal(thought.after, thought0.before)
        np.testing.assert_array_equal(thought.moved, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("max_kl", [2.0, 0.0])
def test_a_large_batch_decides_as_its_halves_do(max_kl):
    """A CPU refines twelve environments in blocks of six; without strength it is the base agent."""
    frames = {"bits": jr.bernoulli(jr.key(1), shape=(12, 5)).astype(jnp.float32)}
    first, keys = np.ones(12, bool), jr.split(jr.key(0), 12)

    def policy(model: WorldModel, state: State, key: jax.Array) -> jax.Array:
        return steer(state, key)

    thinking = Thinking({Evidence(0.1, 1.0): 1.0}, steps=2, latent=Soft(), max_kl=max_kl)
    agent = Agent(codes(), thinking, policy=policy)
    carry, action, thought = agent.act(agent.start(12), frames, first, keys=keys)
    if not max_kl:
        base = Agent(codes(), policy=policy)
        equal((carry, action), base.act(base.start(12), frames, first, keys=keys)[:2])
        return
    for half in (slice(0, 6), slice(6, 12)):
        some = {"bits": frames["bits"][half]}
        _, acted, after = agent.act(agent.start(6), some, first[half], keys=keys[half])
        np.testing.assert_allclose(action[half], acted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(losses(thought)[half], losses(after), rtol=1e-5, atol=1e-5)
    assert np.all(np.asarray(thought.moved) > 0.0)


def test_zero_steps_are_the_base_agent_whatever_else_is_asked(dreamer, stream, base):
    lazy = Thinking({SIG(): 3.0}, horizon=7, update=Mirror(), accept=True, select="best")
    assert lazy.steps == 0
    for (carry, action, thought), (carry0, action0, _) in zip(
        play(Agent(dreamer, lazy), stream), base, strict=True
    ):
        equal(carry, carry0)
        equal(action, action0)
        assert thought.refined is None


def test_thinking_lowers_its_objective_within_its_nats(thought):
    for _, _, one in thought:
        assert np.all(losses(one)[:, -1] < losses(one)[:, 0])
        assert np.all(one.moved > 0.1)
        assert np.all(one.moved <= 2.0 * (1 + 1e-5))
        assert one.refined is not None
        # The same KL by two compiled sums.
        np.testing.assert_allclose(one.moved, one.refined.moved[:, -1], rtol=1e-4)


def test_arms_share_the_noise_of_latent_and_action(base, thought):
    """At the first decision both hold the same carry: the base state inside is the same."""
    equal(thought[0][2].base, base[0][2].base)
    equal(thought[0][2].before, base[0][2].before)
    differs = np.any(thought[0][2].state.latent != base[0][2].state.latent, (1, 2))
    unmoved = ~differs  # where the refined belief drew the same latent, the same action came
    np.testing.assert_array_equal(thought[0][1][unmoved], base[0][1][unmoved])
    assert np.any(
        [np.any(t[2].state.latent != b[2].state.latent) for t, b in zip(thought, base, strict=True)]
    )


def test_the_refined_state_is_carried_and_acts(thought):
    for carry, action, one in thought:
        equal(carry.state, one.state)
        equal(carry.action, action)
    assert np.any(thought[-1][2].state.latent != thought[-1][2].base.latent)


def test_an_uncarried_thought_acts_but_leaves_the_base_state(dreamer, stream, thought):
    out = play(Agent(dreamer, dataclasses.replace(EVIDENCE, carry=False)), stream)
    equal(out[0][1], thought[0][1])  # the first action is that of the carrying twin
    equal(out[0][2].state, thought[0][2].state)
    for carry, action, one in out:
        equal(carry.state, one.base)
        equal(carry.action, action)


def test_a_new_episode_forgets_the_thoughts_before_it(dreamer, stream, base, thought):
    """Environment 1 begins anew at time 2: from the same key, the same base state."""
    np.testing.assert_array_equal(thought[2][2].base.memory[1], base[2][2].base.memory[1])
    assert np.any(thought[2][2].base.memory[0] != base[2][2].base.memory[0])


@pytest.mark.parametrize("readout", [Mode(), Soft()], ids=["mode", "soft"])
def test_readouts_take_the_mode_or_the_probabilities(dreamer, stream, readout):
    _, _, thought = play(Agent(dreamer, Thinking(readout=readout)), stream[:1])[0]
    belief = thought.before
    assert isinstance(belief, Categorical)
    if isinstance(readout, Soft):
        np.testing.assert_allclose(thought.state.latent, belief.probs(), rtol=1e-6)
    else:
        np.testing.assert_array_equal(
            np.argmax(thought.state.latent, -1), np.argmax(belief.logits, -1)
        )
        assert set(np.unique(thought.state.latent)) == {0.0, 1.0}


@pytest.mark.slow
def test_of_several_candidates_the_one_that_reconstructs_best_acts(dreamer, stream, base):
    _, _, best = play(Agent(dreamer, Thinking(readout=BestOf(16))), stream[:1])[0]
    _, _, plain = base[0]
    equal(best.base, plain.base)

    @jax.jit
    @jax.vmap
    def error(memory: jax.Array, latent: jax.Array, image: jax.Array) -> jax.Array:
        return surprise(dreamer, State(memory, latent), {"image": image})

    image = jnp.asarray(stream[0][0]["image"])
    memory = plain.state.memory
    found = np.asarray(error(best.state.memory, best.state.latent, image))
    one = np.asarray(error(memory, plain.state.latent, image))
    assert np.all(found <= one)
    assert np.any(found < one)
    # Sixteen fresh samples are not better on average than the best of the agent's sixteen.

    @jax.jit
    @jax.vmap
    def others(key: jax.Array) -> jax.Array:
        sample = jax.vmap(lambda belief, key: belief.sample(key=key))
        return error(memory, sample(plain.before, jr.split(key, BATCH)), image)

    assert np.all(found < np.mean(others(jr.split(jr.key(9), 16)), 0))


def test_acting_leaves_every_parameter_as_it_was(dreamer, thought):
    from helpers import tiny_dreamer

    equal(dreamer, tiny_dreamer())


def test_policies_that_differ_in_a_default_alone_act_apart():
    """Once the program of one was used for the other."""

    def pushing(gain: float) -> Any:
        def policy(model: Any, state: State, key: jax.Array, *, size: float = gain) -> jax.Array:
            return size * push(state, key)

        return policy

    observation, first = {"seen": np.ones((1, 2), np.float32)}, np.ones(1, bool)
    one, two = (
        agent.act(agent.start(1), observation, first, keys=jr.split(jr.key(0), 1))[1]
        for agent in (Agent(Line(jnp.array(0.8)), policy=pushing(gain)) for gain in (1.0, 2.0))
    )
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)
    assert np.any(one != 0)


def test_a_policy_that_calls_itself_is_told_from_another():
    def calling(gain: float) -> Any:
        def policy(model: Any, state: State, key: jax.Array, again: bool = True) -> jax.Array:
            return policy(model, state, key, again=False) if again else gain * push(state, key)

        return policy

    assert Alike(calling(1.0)) == Alike(calling(1.0))
    assert Alike(calling(1.0)) != Alike(calling(2.0))


def test_changing_any_number_does_not_compile_again():
    traces = []

    def policy(model: Any, state: State, key: jax.Array) -> jax.Array:
        traces.append(1)
        return push(state, key)

    whole: dict[str, Any] = {
        "update": Langevin(0.3, 0.1),
        "tolerance": 1e-3,
        "memory_share": 0.1,
        "terms": {Evidence(beta=0.5, free_nats=1.0): 1.0, SIG(): 0.1},
    }
    variants: list[dict[str, Any]] = [
        {},
        {"max_kl": 0.5},
        {"update": Langevin(0.1, 0.2)},
        {"tolerance": 1e-2},
        {"memory_share": 0.2},
        {"terms": {Evidence(beta=0.9, free_nats=0.0): 7.0, SIG(): 0.2}},
    ]
    agent, counts, seen = Agent(Line(jnp.array(0.8)), policy=policy), [], []
    carry, first = agent.start(BATCH), np.ones(BATCH, bool)
    observation = {"seen": np.ones((BATCH, 2), np.float32)}
    traces.clear()
    for change in variants:
        changed = agent.having(dataclasses.replace(EVIDENCE, **whole | change))
        keys = jr.split(jr.key(0), BATCH)
        seen.append(changed.act(carry, observation, first, keys=keys))
        counts.append(len(traces))
    assert counts[0] > 0
    assert set(counts) == {counts[0]}
    for index in (1, 2, 5):  # and the numbers are heard
        assert np.any(seen[index][2].moved != seen[0][2].moved)


@pytest.mark.usefixtures("untyped")  # users pass integers where floats are annotated
def test_integers_of_an_update_or_a_readout_are_numbers_too():
    """Integers are static: another one compiled again."""
    update = Langevin(1, np.float32(0))  # pyright: ignore
    made = Thinking({SIG(): 1.0}, steps=1, update=update, readout=Softened(1))
    assert isinstance(made.update, Langevin)
    assert isinstance(made.readout, Softened)
    numbers = [made.update.step_size, made.update.temperature, made.readout.length]
    assert [type(number) for number in numbers] == [float] * 3
    assert numbers == [1, 0, 1]


@pytest.mark.parametrize("wrong", [{"update": 3}, {"readout": object()}, {"latent": Gradient(0.1)}])
def test_an_object_of_another_kind_is_refused_by_its_name(wrong):
    with pytest.raises(TypeError, match=f"`{next(iter(wrong))}` must be an object of the class"):
        Thinking({SIG(): 1.0}, steps=1, **wrong)


@pytest.mark.parametrize(
    "how",
    [{"lag": 3}, {"particles": 5}, {"futures": 5}, {"delay": 2}],
    ids=lambda how: next(iter(how)),
)
def test_an_episode_begins_without_a_program_for_each_of_its_shapes(how, caplog):
    """A window of the past alone compiled sixteen before the first decision."""
    agent = Agent(codes(), Thinking(**how), policy=lambda model, state, key: steer(state, key))
    keys, bits = jr.split(jr.key(0), 11), np.ones((11, 5), np.float32)
    agent.model.initial()  # what the model itself compiles
    with jax.log_compiles(), caplog.at_level("WARNING"):
        given = Inputs(agent.start(11), {"bits": bits}, np.ones(11, bool), keys)
        assert len(prepared(agent, given).carry.action) == 11
    assert "ompil" not in caplog.text


def test_optimisers_made_alike_share_a_program(dreamer, stream):
    traces = []

    def policy(model: Any, state: State, key: jax.Array) -> jax.Array:
        traces.append(1)
        return model.policy(state, key)

    counts, (observation, first) = [], stream[0]
    carry = Agent(dreamer, policy=policy).start(BATCH)
    for size in (0.1, 0.2):
        update = Gradient(size, optax.sgd(1.0, momentum=0.9))
        agent = Agent(dreamer, dataclasses.replace(EVIDENCE, update=update), policy=policy)
        agent.act(carry, observation, first, keys=jr.split(jr.key(0), BATCH))
        counts.append(len(traces))
    assert counts[0] == counts[1]


def test_the_same_keys_give_the_same_play_and_others_another(dreamer, stream, base):
    equal(play(Agent(dreamer), stream), base)
    other = play(Agent(dreamer), stream, seed=1)
    assert np.any(other[0][2].state.latent != base[0][2].state.latent)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, r"`steps` must be 0 or more; got -1\."),
        ({"steps": 1}, "`steps` needs at least one term to minimise; got none"),
        ({"terms": {SIG(): 1.0}, "horizon": 0}, "`horizon` must be 1 or more; got 0"),
        ({"max_kl": -1.0}, r"`max_kl` must be 0 or more; got -1\.0"),
        ({"max_kl": float("nan")}, "`max_kl` must be 0 or more; got nan"),
        ({"max_kl": np.float32(-1)}, r"`max_kl` must be 0 or more; got -1\.0"),
        ({"max_kl": jnp.float32(np.nan)}, "`max_kl` must be 0 or more; got nan"),
        ({"steps": np.int64(-1)}, r"`steps` must be 0 or more; got -1\."),
        ({"terms": {SIG(): float("nan")}}, "must be finite; got nan"),
        ({"terms": {SIG(): np.float32("inf")}}, "must be finite; got inf"),
        ({"select": "first"}, "`select` must be one of last, best; got 'first'"),
        ({"terms": ((SIG(), 1.0), (SIG(), 2.0))}, "sig more than once"),
        (
            {"terms": {Evidence(samples=4): 1.0}, "latent": Reinforce(), "memory_share": 0.1},
            "`memory_share` must be None; got 0.1",
        ),
    ],
)
def test_impossible_thinking_is_refused_with_rule_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        Thinking(**options)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 2.5}, "`steps` must be an integer; got 2.5"),
        ({"steps": "3"}, "`steps` must be an integer; got '3'"),
        ({"steps": True}, "`steps` must be an integer; got True"),
        ({"accept": "False"}, "`accept` must be True or False; got 'False'"),
        ({"max_kl": "4"}, "`max_kl` must be a number; got '4'"),
        ({"tolerance": "4"}, "`tolerance` must be a number or None; got '4'"),
        ({"terms": {SIG(): "1"}}, "must be a number; got '1'"),
        ({"terms": "sig"}, r"such as {SIG\(\): 1.0}; got 'sig'"),
        ({"terms": [SIG()]}, r"such as {SIG\(.*\): 1.0}; got no weight"),
        ({"terms": SIG()}, r"such as {SIG\(.*\): 1.0}"),
    ],
)
def test_thinking_of_another_type_is_refused_with_what_is_wanted(options, message):
    with pytest.raises(TypeError, match=message):
        Thinking(**options)


@pytest.mark.usefixtures("untyped")
def test_numpy_scalars_are_numbers_and_can_be_written():
    """`max_kl=np.float32(2)` failed only when an evaluation wrote its settings."""
    weights = {SIG(): np.float32(1)}
    made = Thinking(weights, steps=np.int64(2), max_kl=np.float32(2), accept=np.True_)  # pyright: ignore
    found = [made.steps, made.max_kl, made.accept, next(weight for _, weight in paired(made.terms))]
    assert [type(one) for one in found] == [int, float, bool, float]
    assert found == [2, 2.0, True, 1.0]


@pytest.mark.usefixtures("untyped")
def test_floats_may_be_traced():
    def product(x: Any) -> Any:
        made = Thinking({SIG(): x}, steps=1, max_kl=x)
        return made.max_kl * next(weight for _, weight in paired(made.terms))

    assert jax.grad(product)(3.0) == 6.0


@pytest.mark.usefixtures("untyped")
def test_a_name_is_no_term():
    with pytest.raises(TypeError, match=r"such as SIG\(\); got 'sig'"):
        Thinking({"sig": 1.0}, steps=1)


def test_evidence_needs_to_know_how_the_model_was_trained(dreamer):
    from helpers import Line

    line = Line(jnp.array(0.8))
    with pytest.raises(ValueError, match=r"`evidence` .*`trained_beta`"):
        Agent(line, EVIDENCE)
    told = {Evidence(beta=1.0, free_nats=0.0): 1.0}
    assert Agent(line, dataclasses.replace(EVIDENCE, terms=told)).settings.steps == 2


def test_a_model_of_ones_own_thinks_and_acts():
    """Gaussian beliefs, a policy given by hand: nothing in the agent knows DreamerV3."""
    from helpers import Line, push

    def policy(model: Any, state: State, key: jax.Array) -> jax.Array:
        return push(state, key)

    thinking = Thinking({SIG(): 1.0, Anchor(): 0.1}, steps=2, update=Gradient(0.1))
    agent = Agent(Line(jnp.array(0.8)), thinking, policy=policy)
    seen = {"seen": jnp.ones((2, 2))}
    keys = jr.split(jr.key(0), 2)
    carry, action, thought = agent.act(agent.start(2), seen, np.ones(2, bool), keys=keys)
    assert action.shape == (2, 2)
    equal(carry.state, thought.state)
    assert np.all(losses(thought)[:, -1] < losses(thought)[:, 0])


@pytest.mark.parametrize(
    "thinking",
    [
        Thinking(),
        slow(Thinking({Evidence(0.1, 1.0): 1.0}, steps=2, latent=Soft())),
        Thinking(lag=2),
        slow(Thinking(particles=4)),
        Thinking(futures=4),
    ],
)
def test_an_observation_that_is_no_number_leaves_the_prior_and_says_so(thinking):
    """NaN logits once gave class 0, and NaN weights of particles never came back."""
    agent = Agent(codes(), thinking, policy=lambda model, state, key: steer(state, key))
    keys, first = jr.split(jr.key(0), 2), np.ones(2, bool)
    good = np.asarray(BITS["bits"])
    carry = agent.start(2)
    carry, _, thought = agent.act(carry, {"bits": np.stack([good, good])}, first, keys=keys)
    assert thought.seen.all()
    broken = {"bits": np.stack([good, np.full_like(good, np.nan)])}
    carry, action, thought = agent.act(carry, broken, ~first, keys=keys)
    np.testing.assert_array_equal(thought.seen, [True, False])
    if not thinking.lag:  # which has a prior of its own
        equal(*(jax.tree.map(lambda x: x[1], belief) for belief in (thought.after, thought.prior)))
    carry, action, thought = agent.act(carry, {"bits": np.stack([good, good])}, ~first, keys=keys)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((carry.state, action, thought.after)))
    assert thought.seen.all()


@pytest.mark.parametrize("thinking", [EVIDENCE, slow(Thinking(readout=BestOf(4)))])
def test_pixels_out_of_range_are_no_evidence_for_any_latent(dreamer, thinking):
    """They were flagged and not encoded, but refinement and the best of several trusted them."""
    rng = np.random.default_rng(0)
    shown = rng.uniform(0, 255, (BATCH, 16, 16, 3)).astype(np.float32)
    agent, keys = Agent(dreamer, thinking), jr.split(jr.key(0), BATCH)
    _, _, thought = agent.act(agent.start(BATCH), {"image": shown}, np.ones(BATCH, bool), keys=keys)
    assert not thought.seen.any()
    equal(thought.after, thought.prior)
    equal(thought.state, thought.base)


@pytest.mark.parametrize(
    "thinking",
    [
        Thinking({Evidence(0.1, 1.0): 1.0}, steps=2, latent=Soft(), carry=False),
        Thinking(lag=2, carry=False),
    ],
)
def test_what_a_missing_observation_shows_is_not_carried(thinking):
    """With `carry` off, the state of the frame that was flagged as missing was carried."""
    agent = Agent(codes(), thinking, policy=lambda model, state, key: steer(state, key))
    bits = np.asarray(BITS["bits"])
    carries = []
    for shown in (bits, 1 - bits):
        carry, _, _ = agent.act(
            agent.start(1),
            {"bits": shown[None]},
            np.ones(1, bool),
            keys=jr.split(jr.key(0), 1),
            missing=np.ones(1, bool),
        )
        carries.append(carry.state)
    equal(*carries)


@pytest.mark.slow
@pytest.mark.usefixtures("untyped")  # beartype draws from Python's generator
def test_thinking_leaves_environment_and_global_random_numbers_as_they_were(dreamer):
    """The same actions in an environment that rolls dice of its own and of everybody's."""
    import random

    from tiny_envs import Fragile

    def played(thinking: Thinking) -> list[Any]:
        random.seed(7)
        np.random.seed(7)
        env, agent = Fragile(), Agent(dreamer, thinking)
        seen, _ = env.reset(seed=3)
        carry, out = agent.start(BATCH), [seen]
        for time, action in enumerate([0, 3, 0, 3]):
            keys = jr.split(jr.fold_in(jr.key(0), time), BATCH)
            batch = {"image": np.stack([seen] * BATCH)}
            carry, _, thought = agent.act(carry, batch, np.full(BATCH, time == 0), keys=keys)
            assert not thinking.steps or np.min(thought.moved) > 0.1
            seen, reward, *_ = env.step(action)
            out += [seen, reward, random.random(), np.random.random()]
        return out

    equal(played(EVIDENCE), played(Thinking()))


class Notes(WorldModel):
    """An ordinary Equinox model, whose layers keep their activation as a leaf."""

    core: eqx.nn.MLP
    reader: eqx.nn.MLP

    @property
    def observation_spaces(self):
        return (("seen", Space((3,), "float32")),)

    @property
    def action_spaces(self):
        return (("action", Space((), "int32", 2)),)

    def initial(self):
        return State(jnp.zeros(4), jnp.zeros(2))

    def predict(self, state, action, is_first):
        given = jnp.concatenate([state.memory, state.latent, action])
        memory = self.core(jnp.where(is_first, 0.0, given))
        return memory, Gaussian(memory[:2], memory[2:])

    def infer(self, memory, observation):
        out = self.reader(jnp.concatenate([memory, observation["seen"]]))
        return Gaussian(out[:2], out[2:])

    def decode(self, state):
        return {"seen": Gaussian(jnp.tile(state.latent[:1], 3), jnp.zeros(3))}

    def policy(self, state, key):
        return jax.nn.one_hot(jnp.argmax(state.latent), 2)


def notes() -> Notes:
    make = eqx.filter_jit(lambda inputs, key: eqx.nn.MLP(inputs, 4, 8, 1, key=key))
    return Notes(make(8, jr.key(0)), make(7, jr.key(1)))


@pytest.mark.slow
def test_an_ordinary_equinox_model_thinks_and_plays():
    """Function leaves were once no valid JAX type."""
    agent = Agent(notes(), Thinking({Evidence(1.0, 0.0): 1.0}, steps=2, update=Gradient(0.1)))
    player, seen = agent.player(seed=3), np.ones(3, np.float32)
    choice = player(seen, first=True)
    assert isinstance(choice, int)
    assert losses(player.thought)[0, -1] < losses(player.thought)[0, 0]
    keys = jr.fold_in(jr.key(3), 0)[None]
    _, action, _ = agent.act(agent.start(1), {"seen": seen[None]}, np.ones(1, bool), keys=keys)
    assert choice == int(np.argmax(action[0]))
    assert player({"seen": seen}) in (0, 1)


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        ({"other": np.ones((1, 3), np.float32)}, "lacks seen"),
        ({"seen": np.ones((1, 4), np.float32)}, r"`seen` is of shape \(4,\)"),
        ({"seen": np.ones((2, 3), np.float32)}, "`seen` is of 2 environments, `keys` of 1"),
        ({"seen": np.full((1, 3), "x")}, "`seen` must be an array of numbers; got ndarray of <U1"),
        ({"seen": np.array([[1, 2, None]])}, "`seen` must be an array of numbers; .* of object"),
        ({"seen": np.zeros((1, 3), "f4,f4")}, r"`seen` must be an array of numbers; .*'f0'"),
        ({"seen": np.ma.masked_equal([[1, 2, 3]], 2)}, "`seen` .* numbers; got 1 masked value"),
    ],
)
def test_what_the_agent_does_not_see_is_refused_by_name(observation, said):
    agent = Agent(notes())
    with pytest.raises(ValueError, match=said):
        agent.act(agent.start(1), observation, np.ones(1, bool), keys=jr.split(jr.key(0), 1))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keys": jr.key(0)}, r"`keys` must be one for each .*jax\.random\.split"),
        ({"keys": 0}, "`keys` must be one for each .*; got int"),
        ({"keys": jr.split(jr.key(0), 0)}, "`keys` must be one for each of one or more"),
        ({"is_first": True}, "`is_first` is of none, `keys` of 2"),
        (
            {"observation": np.ones((2, 3))},
            r"must be arrays by name \(seen\); got ndarray of float",
        ),
        ({"missing": [True]}, "`missing` of `seen` is of 1 environment, `keys` of 2"),
        ({"carry": None}, r"`carry` must be of `agent\.start\(batch\)`.*; got None"),
        ({"carry": 3}, "`carry` is of 3 environments, `keys` of 2"),
        ({"carry": "other"}, r"must be of this agent.*State with .*\(8,\).*Begin with `agent"),
    ],
)
@pytest.mark.parametrize("settings", [Thinking(), slow(Thinking(particles=2))])
def test_a_decision_that_cannot_begin_says_what_to_give(change, said, settings):
    """The carry of another number of environments ended in JAX's message about vmap."""
    agent = Agent(notes(), settings)
    given = {
        "carry": agent.start(2),
        "observation": {"seen": np.ones((2, 3), np.float32)},
        "is_first": np.ones(2, bool),
        "keys": jr.split(jr.key(0), 2),
    } | change
    if given["carry"] == 3:
        given["carry"] = agent.start(3)
    elif given["carry"] == "other":
        given["carry"] = jax.tree.map(lambda x: jnp.concatenate([x, x], -1), agent.start(2))
    with pytest.raises(ValueError, match=said):
        agent.act(**given)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("batch", [0, -1, 2.5, True, None])
def test_an_agent_starts_in_one_environment_or_more(batch):
    with pytest.raises(ValueError, match=f"must be one or more environments; got {batch}"):
        Agent(notes()).start(batch)


def test_an_observation_of_another_byte_order_is_turned():
    """An image of a file from another machine ended in JAX's message about abstract arrays."""
    agent, keys = Agent(notes()), jr.split(jr.key(0), 1)
    for order in "<>":
        seen = {"seen": np.ones((1, 3), f"{order}f4")}
        _, _, thought = agent.act(agent.start(1), seen, np.ones(1, bool), keys=keys)
        assert thought.seen.all()


def test_any_array_that_numpy_reads_is_an_observation():
    """A tensor's type is not NumPy's, and asking for its kind was an error of its own."""

    class Tensor:
        dtype = "torch.float32"

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            return np.ones((1, 3), np.float32)

    spaces = (("seen", Space((3,), "float32")),)
    np.testing.assert_array_equal(named(spaces, {"seen": Tensor()})["seen"], np.ones((1, 3)))
    short = np.ones((1, 3), jnp.bfloat16)
    assert named(spaces, {"seen": short})["seen"] is short
    with pytest.raises(ValueError, match="got 2 masked values"):
        named(spaces, {"seen": [np.ma.masked_less([1, 2, 3], 3)]})


def test_what_the_agent_does_not_see_may_be_anything():
    """A mission in words beside what it sees ended in JAX's message about abstract arrays."""
    agent, keys = Agent(notes()), jr.split(jr.key(0), 1)
    seen = {"seen": np.ones((1, 3), np.float32)}
    more = {**seen, "mission": np.array(["go"])}
    for observation in (seen, more):
        _, action, _ = agent.act(agent.start(1), observation, np.ones(1, bool), keys=keys)
        assert np.isfinite(action).all()


def test_floats_in_place_of_bytes_are_flagged_and_the_prior_stands_in(dreamer, stream):
    (observation, first), agent = stream[0], Agent(dreamer)
    keys = jr.split(jr.key(0), BATCH)
    wrong = {"image": observation["image"].astype(np.float32)}
    _, _, thought = agent.act(agent.start(BATCH), wrong, first, keys=keys)
    assert not thought.seen.any()
    equal(thought.after, thought.prior)
    right = {"image": wrong["image"] / 255}
    assert agent.act(agent.start(BATCH), right, first, keys=keys)[2].seen.all()


@pytest.mark.parametrize(
    "how", [{}, slow({"lag": 2}), slow({"particles": 3})], ids=["none", "lag", "cloud"]
)
def test_an_image_of_one_colour_is_flagged_and_used(dreamer, stream, how):
    (observation, first), agent = stream[0], Agent(dreamer, Thinking(**how))
    frame = observation["image"].copy()
    frame[0] = 255
    keys = jr.split(jr.key(0), BATCH)
    _, _, thought = agent.act(agent.start(BATCH), {"image": frame}, first, keys=keys)
    np.testing.assert_array_equal(thought.blank, np.arange(BATCH) == 0)
    assert thought.seen.all()


@pytest.mark.parametrize("bad", [np.nan, 1e30, 200.0], ids=["nan", "huge", "bytes as floats"])
@pytest.mark.parametrize(
    "how", [{}, {"lag": 2}, slow({"particles": 3})], ids=["none", "lag", "cloud"]
)
def test_after_bad_frames_the_belief_is_soon_as_good_as_reset(dreamer, stream, how, bad):
    """With a lag, one float frame once left the window misread until a new start."""
    agent, frame = Agent(dreamer, Thinking(**how)), stream[0][0]["image"]
    broken = {"image": np.full(frame.shape, bad, np.float32)}
    carry, begins = agent.start(BATCH), np.ones(BATCH, bool)
    thought = None
    for time in range(8):
        shown = broken if time in (1, 2) else {"image": frame}
        keys = jr.split(jr.fold_in(jr.key(0), time), BATCH)
        carry, action, thought = agent.act(carry, shown, begins & (time == 0), keys=keys)
        np.testing.assert_array_equal(np.sum(action, -1), 1.0)
        assert thought.seen.all() == (shown is not broken)
    assert thought is not None
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((carry, thought.after)))
    if how.get("lag"):
        past: Any = carry.past
        assert past.observations["image"].dtype == np.uint8


def test_a_carry_that_is_not_finite_is_forgotten(dreamer, stream, base):
    (observation, first), agent = stream[0], Agent(dreamer)
    poisoned = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), agent.start(BATCH))
    keys = jr.split(jr.fold_in(jr.key(0), 0), BATCH)
    for begins in (first, ~first):
        carry, action, _ = agent.act(poisoned, observation, begins, keys=keys)
        equal((carry, action), base[0][:2])


@pytest.mark.parametrize(
    "how", [{"lag": 2}, slow({"particles": 3}), slow({"delay": 1})], ids=["lag", "cloud", "delay"]
)
def test_a_past_that_is_not_finite_is_forgotten_too(dreamer, stream, how):
    """The window of a lag kept NaN for as many decisions as it is long."""
    agent, carry = Agent(dreamer, Thinking(**how)), None
    for time, (observation, first) in enumerate(stream[:2]):
        if carry is not None:
            carry = jax.tree.map(
                lambda x: jnp.full_like(x, jnp.nan) if x.dtype == jnp.float32 else x, carry
            )
        keys = jr.split(jr.fold_in(jr.key(0), time), BATCH)
        carry = agent.start(BATCH) if carry is None else carry
        carry, action, _ = agent.act(carry, observation, first & False, keys=keys)
        assert all_finite([x for x in jax.tree.leaves(carry) if x.dtype == jnp.float32])
        np.testing.assert_array_equal(action.sum(-1), 1)
