import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import tiny_dreamer

from thinkslow.dreamer.config import TrainConfig
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.training import learner
from thinkslow.dreamer.training.losses import (
    Batch,
    ReturnRange,
    imagined_losses,
    lambda_return,
    losses,
)
from thinkslow.spaces import Space
from thinkslow.weights import named
from thinkslow.worldmodel import State

# Optax promotes types inside, so `strict` holds where only our own code runs.
B, T = 4, 4
CONFIG = TrainConfig(
    batch_size=B,
    batch_length=T,
    imagination=2,
    imagination_starts=2,
    warmup=1,
    learning_rate=1e-2,
    precision="float32",
)
UPDATE = jax.jit(learner.update, static_argnames="config")


def make_batch(model: Dreamer, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    first = np.zeros((B, T), bool)
    first[0, 2] = True
    last = np.roll(first, -1, 1)
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, (B, *x.shape)), model.initial())
    return Batch(
        {"image": jnp.asarray(rng.integers(256, size=(B, T, 16, 16, 3)).astype(np.uint8))},
        jax.nn.one_hot(rng.integers(3, size=(B, T)), 3),
        jnp.asarray(rng.normal(size=(B, T)), jnp.float32),
        jnp.asarray(first),
        jnp.asarray(last),
        jnp.asarray(last),
        start,
    )


@pytest.fixture(scope="module")
def begun() -> learner.Learner:
    return learner.start(tiny_dreamer(), CONFIG)


@pytest.fixture(scope="module")
def batch(begun) -> Batch:
    return make_batch(begun.model)


@pytest.fixture(scope="module")
def updated(begun, batch) -> learner.Updated:
    return UPDATE(begun, batch, jr.key(0), config=CONFIG)


def test_a_lambda_return_is_that_of_the_sum_written_out():
    rng = np.random.default_rng(0)
    reward, bootstrap = rng.normal(size=(2, 5)), rng.normal(size=(2, 5))
    last = np.array([[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]], float)
    terminal = np.array([[0, 0, 1, 0, 0], [0, 0.3, 0, 0, 0]], float)
    expected = np.zeros((2, 4))
    for row in range(2):
        future = bootstrap[row, -1]
        for t in reversed(range(4)):
            live = 0.9 * (1 - terminal[row, t + 1])
            trace = 0.8 * (1 - last[row, t + 1])
            mixed = (1 - trace) * bootstrap[row, t + 1] + trace * future
            future = expected[row, t] = reward[row, t + 1] + live * mixed
    found = lambda_return(
        *(jnp.asarray(x, jnp.float32) for x in (last, terminal, reward, bootstrap)),
        discount=0.9,
        trace=0.8,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found[0, 1] == jnp.float32(reward[0, 2])  # nothing comes after a terminal step


def test_the_return_range_follows_percentiles_and_never_divides_by_less_than_one():
    values = jnp.arange(101.0)
    once = ReturnRange(jnp.zeros(()), jnp.zeros(())).updated(values, TrainConfig())
    np.testing.assert_allclose([once.low, once.high], [0.05, 0.95], rtol=1e-5)
    assert once.scale == 1.0
    assert ReturnRange(jnp.array(-2.0), jnp.array(5.0)).scale == 7.0


def test_three_steps_of_laprop_equal_numpy():
    """Clip, divide by the debiased root mean square, then average with debiased momentum."""
    rng = np.random.default_rng(0)
    config = TrainConfig(learning_rate=0.1, warmup=2, clip=0.3)
    weights = rng.normal(size=(3, 4))
    chain = learner.optimiser(config)
    ours, state = jnp.asarray(weights, jnp.float32), None
    state = chain.init(ours)
    square, momentum = np.zeros((3, 4)), np.zeros((3, 4))
    for step in range(1, 4):
        gradient = rng.normal(size=(3, 4)) * 10 ** (1 - step)
        bound = 0.3 * np.linalg.norm(weights)
        clipped = gradient / max(1, np.linalg.norm(gradient) / bound)
        square = 0.999 * square + 0.001 * clipped**2
        scaled = clipped / (np.sqrt(square / (1 - 0.999**step)) + 1e-20)
        momentum = 0.9 * momentum + 0.1 * scaled
        rate = 0.1 * min(1, (step - 1) / 2)
        weights = weights - rate * momentum / (1 - 0.9**step)
        change, state = chain.update(jnp.asarray(gradient, jnp.float32), state, ours)
        ours = jnp.asarray(optax.apply_updates(ours, change))
        # 1 - 0.999 keeps four digits in float32.
        np.testing.assert_allclose(ours, weights, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e5])
def test_no_array_of_a_gradient_exceeds_its_share_of_the_weights_norm(size):
    weights = {"a": jr.normal(jr.key(0), (4, 3)), "zero": jnp.zeros(3)}
    gradient = jax.tree.map(lambda x: size * jnp.ones_like(x), weights)
    clipped, _ = learner.clip_by_weight_norm(0.3).update(gradient, optax.EmptyState(), weights)
    for name, weight in weights.items():
        bound = 0.3 * max(1e-3, float(jnp.linalg.norm(weight)))
        before = float(jnp.linalg.norm(gradient[name]))
        after = float(jnp.linalg.norm(clipped[name]))  # type: ignore[index]
        assert after == pytest.approx(min(before, bound), rel=1e-5)


@pytest.mark.slow
def test_an_update_counts_moves_weights_and_reports_every_loss(begun, batch, updated):
    # The first learning rate of a warm-up is zero: the second update is the first to move.
    second = UPDATE(updated.learner, batch, jr.key(1), config=CONFIG)
    assert int(second.learner.updates) == 2
    before, after = named(begun.model), named(second.learner.model)
    still = [name for name in before if np.array_equal(before[name], after[name])]
    assert not still, "weights that no loss reaches"
    expected = {
        "con",
        "dyn",
        "reconstruction/image",
        "policy",
        "rep",
        "repval",
        "rew",
        "total",
        "value",
    }
    assert {n.removeprefix("loss/") for n in updated.metrics if n.startswith("loss/")} == expected
    assert all(np.isfinite(value) for value in updated.metrics.values())
    assert bool(updated.finite)


@pytest.mark.slow
def test_an_update_refreshes_the_state_of_every_step(begun, batch, updated):
    assert updated.states.memory.shape == (B, T, 32)
    assert updated.states.latent.shape == (B, T, 6, 8)
    assert updated.states.memory.dtype == jnp.float32
    assert set(np.unique(updated.states.latent)) == {0.0, 1.0}
    # The memory of the first step comes from the given start and action alone.
    expected, _ = jax.jit(jax.vmap(lambda s, a: begun.model.predict(s, a, jnp.array(False))))(
        batch.start, batch.previous_action[:, 0]
    )
    np.testing.assert_allclose(updated.states.memory[:, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["value", "policy", "rew", "repval", "dyn", "total"])
def test_an_observation_that_is_called_like_a_loss_is_learnt_beside_it(name):
    """It took the place of the loss: the critic, or the reconstruction, was not trained."""
    spaces = {"image": Space((16, 16, 3), "uint8"), name: Space((3,), "float32")}
    model = tiny_dreamer(observations=spaces)
    batch = make_batch(model)
    seen = batch.observation | {name: jnp.ones((B, T, 3))}
    batch = Batch(**{**vars(batch), "observation": seen})
    returns = ReturnRange(jnp.zeros(()), jnp.zeros(()))
    parts = jax.eval_shape(
        lambda m: losses(m, m.critic, returns, batch, CONFIG, key=jr.key(0))[0], model
    )
    assert {f"reconstruction/{name}", "reconstruction/image"} < set(parts)
    own = {"dyn", "rep", "rew", "con", "policy", "value", "repval"}
    assert own < set(parts)
    assert len(parts) == len(own) + 2


@pytest.mark.slow
def test_the_slow_critic_takes_over_its_rate_of_the_fast_one(begun, batch):
    fast = CONFIG.slow_rate
    once = UPDATE(begun, batch, jr.key(0), config=CONFIG).learner
    twice = UPDATE(once, batch, jr.key(1), config=CONFIG).learner
    old, new, slow = (named(t) for t in (once.slow_value, twice.model.val, twice.slow_value))
    for name, value in slow.items():
        np.testing.assert_allclose(
            value, (1 - fast) * old[name] + fast * new[name], rtol=1e-5, atol=1e-7
        )
    moved = named(begun.model.val)["head/logits/kernel"]
    assert not np.array_equal(slow["head/logits/kernel"], moved)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_changes_nothing_and_says_so(begun, batch):
    bad = jax.tree.map(lambda x: x, batch)
    bad = Batch(**{**vars(bad), "reward": bad.reward.at[1, 2].set(jnp.nan)})
    out = UPDATE(begun, bad, jr.key(0), config=CONFIG)
    assert not bool(out.finite)
    assert not np.isfinite(out.metrics["loss/total"])
    jax.tree.map(np.testing.assert_array_equal, out.learner, begun)


@pytest.mark.slow
def test_training_on_one_batch_lowers_its_loss(begun, batch):
    one, seen = begun, []
    for step in range(30):
        out = UPDATE(one, batch, jr.key(step), config=CONFIG)
        one = out.learner
        seen.append(float(out.metrics["loss/reconstruction/image"]))
    assert seen[-1] < 0.85 * seen[0]


@pytest.mark.nightly
def test_half_precision_computes_finite_losses_near_those_of_single(begun, batch, updated):
    """The scan of imagination failed: a bfloat16 latent went in, a float32 sample came out."""
    config = dataclasses.replace(CONFIG, precision="bfloat16")
    out = UPDATE(begun, batch, jr.key(0), config=config)
    assert bool(out.finite)
    # Bfloat16 keeps eight bits; a sum of pixels averages that out.
    for name in ("loss/reconstruction/image", "loss/dyn"):
        np.testing.assert_allclose(out.metrics[name], updated.metrics[name], rtol=0.05)
    kinds = {str(x.dtype) for x in jax.tree.leaves(out.learner.model)}
    assert kinds == {"float32"}, "weights stay float32"
    assert out.states.memory.dtype == jnp.float32


@pytest.fixture(scope="module")
def imagined_gradients(begun, batch) -> dict[str, Any]:
    """Of each imagined loss, the gradient by every weight."""
    model = begun.model
    start = State(jr.normal(jr.key(5), (B, T, 32)), jax.nn.one_hot(jnp.zeros((B, T, 6), int), 8))

    def loss(model: Dreamer) -> jax.Array:
        out, *_ = imagined_losses(
            model,
            begun.slow_value,
            begun.returns,
            start,
            batch.is_terminal,
            CONFIG,
            key=jr.key(0),
        )
        return jnp.stack([jnp.sum(out["policy"]), jnp.sum(out["value"])])

    jacobian = jax.jit(jax.jacrev(loss))(model)
    policy, value = (
        named(tree)
        for tree in (
            jax.tree.map(lambda x, i=index: np.asarray(x)[i], jacobian) for index in range(2)
        )
    )
    return {"policy": policy, "value": value}


@pytest.mark.parametrize(("name", "head"), [("policy", "pol/"), ("value", "val/")])
def test_imagined_losses_teach_their_own_head_and_nothing_else(imagined_gradients, name, head):
    reached = {weight for weight, g in imagined_gradients[name].items() if np.any(g != 0)}
    assert reached
    assert all(weight.startswith(head) for weight in reached)


@pytest.mark.usefixtures("strict")
def test_losses_need_no_implicit_promotion(begun, batch):
    parts = jax.eval_shape(
        lambda m: losses(m, m.critic, begun.returns, batch, CONFIG, key=jr.key(0))[0], begun.model
    )
    assert {part.dtype for part in parts.values()} == {jnp.dtype("float32")}
    assert parts["policy"].shape == (B, 2)
    assert parts["repval"].shape == (B, 1)


PARALLEL = """
import sys
sys.path.insert(0, {here!r})
import jax
import numpy as np
import test_learner as t
from thinkslow.dreamer.training import learner
from thinkslow.dreamer.training.programs import shardings
begun = learner.start(t.tiny_dreamer(), t.CONFIG)
batch = jax.device_put(t.make_batch(begun.model), shardings(t.B)[0])
shards = batch.reward.addressable_shards
assert [s.data.shape for s in shards] == [(t.B // 2, t.T)] * 2, shards
np.savez({target!r}, **t.two_updates(begun, batch))
"""


def two_updates(one: learner.Learner, batch: Batch) -> dict[str, Any]:
    """Weights after two updates, and the loss of each."""
    found: dict[str, Any] = {}
    for step in range(2):
        out = UPDATE(one, batch, jr.key(step), config=CONFIG)
        one = out.learner
        found[f"loss{step}"] = np.asarray(out.metrics["loss/total"])
    return found | {name: np.asarray(weight) for name, weight in named(one.model).items()}


@pytest.mark.nightly
def test_two_devices_learn_as_one(begun, batch, tmp_path):
    """The batch is spread over two CPU devices; loss and weights stay those of one."""
    target = tmp_path / "two.npz"
    code = PARALLEL.format(here=str(Path(__file__).parent), target=str(target))
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    one, two = two_updates(begun, batch), np.load(target)
    assert set(one) == set(two.files)
    for name in ("loss0", "loss1"):
        # Sums over the batch in another order.
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4)
    for name, weight in named(begun.model).items():
        # The second update is normalised: each weight moves by about the learning rate, 1e-2,
        # by the sign of its gradient, which rounding may flip where it is nearly nothing.
        difference = np.abs(one[name] - two[name])
        assert np.mean(difference > 1e-4) < 0.01, name
        assert np.any(one[name] != weight), name
