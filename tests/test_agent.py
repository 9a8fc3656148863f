import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from decisions import BATCH, EVIDENCE, losses, notes, play
from helpers import Line, codes, equal, push, slow, steer

from thinkslow.agent.agent import Agent
from thinkslow.agent.inputs import Inputs, prepared
from thinkslow.agent.thinking import Thinking
from thinkslow.distributions import Categorical
from thinkslow.objectives import SIG, Anchor, Evidence
from thinkslow.objectives.lookahead import paired
from thinkslow.readouts import BestOf, Mode, Reinforce, Soft, Softened
from thinkslow.refinement import Gradient, Langevin, Mirror
from thinkslow.trees import Alike
from thinkslow.worldmodel import State, WorldModel, surprise

pytestmark = pytest.mark.usefixtures("strict")


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


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("first", [[1.0, 0.0], [1, 0], jnp.array([1, 0], jnp.bfloat16)])
def test_first_decisions_may_be_told_by_numbers(first, traced):
    """As dreamerv3-torch tells them: NumPy refused its own operator `or`, and in a program of the
    user's JAX did."""
    agent = Agent(codes(), policy=lambda model, state, key: steer(state, key))
    bits, keys = np.ones((2, 5), np.float32), jr.split(jr.key(0), 2)

    def read(first: Any) -> Any:
        return prepared(agent, Inputs(agent.start(2), {"bits": bits}, first, keys)).is_first

    found = jax.jit(read)(jnp.asarray(first)) if traced else read(first)
    assert found.dtype == bool
    assert found.tolist() == [True, False]


@pytest.mark.parametrize("first", [None, [0.5, 1], ["a", "b"], [np.nan, 0]])
def test_first_decisions_that_are_no_truth_are_refused(first):
    agent = Agent(codes(), policy=lambda model, state, key: steer(state, key))
    bits, keys = np.ones((2, 5), np.float32), jr.split(jr.key(0), 2)
    with pytest.raises(TypeError, match="`is_first` must be true or false for each"):
        prepared(agent, Inputs(agent.start(2), {"bits": bits}, first, keys))


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
