"""Sources of parameters on a family whose information gain is known.

A table of logits, one row for each context, learnt from n draws of C equally likely classes: what
the next draw tells about the row is (C - 1) / 2n nats, to first order in 1/n.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from thinkslow.distributions import Categorical
from thinkslow.objectives import parameter_information_gain
from thinkslow.objectives.members import Dropout, Laplace, Noise, checkpoints, replaced

COUNTS = (25, 100, 400)
CLASSES = 5
SIZE = 512


class Rows(eqx.Module):
    table: jax.Array
    other: jax.Array


def prior(model: Rows, memory: Any) -> Categorical:
    return Categorical(model.table[memory][None])


def table(model: Any) -> Any:
    return model.table


@eqx.filter_jit
def gain(members: Any, model: Rows, context: Any) -> jax.Array:
    return parameter_information_gain(members.each(model, lambda m: prior(m, context)))


@pytest.fixture(scope="module")
def model() -> Rows:
    return Rows(jnp.zeros((len(COUNTS), CLASSES)), jnp.ones(3))


def test_laplace_knows_what_each_number_of_data_leaves_open(model):
    memories = jnp.repeat(
        jnp.arange(len(COUNTS)), np.array(COUNTS), total_repeat_length=sum(COUNTS)
    )
    members = Laplace(memories, 1e-3, SIZE, table, prior)(model, key=jr.key(0))
    for context, count in enumerate(COUNTS):
        # A diagonal of the information counts all C logits: C, not C - 1, of them are unknown.
        expected = CLASSES / (2 * count)
        # Score draws, 512 members, and the next order in 1/n.
        np.testing.assert_allclose(gain(members, model, jnp.asarray(context)), expected, rtol=0.3)
    assert members.differing.other is None


def test_an_ensemble_of_resampled_fits_is_calibrated(model):
    """Each member is the best fit to a resample of the data: a fitted ensemble in closed form."""
    rng = np.random.default_rng(0)
    draws = [rng.multinomial(n, np.full(CLASSES, 1 / CLASSES), SIZE) for n in COUNTS]
    stacked = jnp.asarray(np.log(np.stack(draws, 1) + 0.5), jnp.float32)
    members = replaced(model, table, stacked)
    for context, count in enumerate(COUNTS):
        expected = (CLASSES - 1) / (2 * count)
        np.testing.assert_allclose(gain(members, model, jnp.asarray(context)), expected, rtol=0.15)


def test_checkpoints_are_whole_models(model):
    other = Rows(model.table + jnp.eye(3, 5), model.other + 1)
    members = checkpoints([model, other])
    assert members.count == 2
    found = members.each(model, lambda m: m.other.sum())
    np.testing.assert_array_equal(found, [3.0, 6.0])
    assert gain(members, model, jnp.asarray(0)) > 0


def test_noise_scales_with_the_weights_and_none_is_no_disagreement(model):
    wide = Rows(3 * jnp.ones((3, 5)), jnp.ones(3))
    spread = Noise(0.1, 400, table)(wide, key=jr.key(0)).differing.table.std(0)
    np.testing.assert_allclose(spread, 0.3, rtol=0.2)
    none = Noise(0.0, 3, table)(wide, key=jr.key(0))
    assert gain(none, wide, jnp.asarray(0)) < 1e-6


def test_dropout_masks_whole_inputs_and_keeps_the_mean(model):
    kernel = Rows(jnp.ones((3, 5)), jnp.ones(3))
    masked = Dropout(0.25, 2000, table)(kernel, key=jr.key(0)).differing.table
    np.testing.assert_array_equal(masked, masked[..., :1].repeat(5, -1))
    assert set(np.unique(masked)) == {np.float32(0), np.float32(1 / 0.75)}
    np.testing.assert_allclose(masked.mean(0), 1.0, atol=0.06)


@pytest.mark.slow
def test_a_source_that_is_told_nothing_disagrees_in_the_layer_that_the_prior_comes_from_last(
    dreamer,
):
    memories = jr.normal(jr.key(0), (5, 32))
    memory = memories[0]
    for source in (Noise(), Dropout(), Laplace(memories)):
        members = source(dreamer, key=jr.key(1))
        assert members.count == 4
        differing = jax.tree.leaves(members.differing)
        shapes = [leaf.shape[1:] for leaf in differing]
        assert shapes == [leaf.shape for leaf in jax.tree.leaves(dreamer.prior_layer)]
        found = eqx.filter_jit(members.each)(dreamer, lambda m: m.prior(memory))
        assert parameter_information_gain(found) > 1e-3


def test_a_model_that_does_not_name_that_layer_is_told_what_to_do(model):
    with pytest.raises(ValueError, match=r"Rows .*`prior_layer`.* give `where`"):
        Noise()(model, key=jr.key(0))
