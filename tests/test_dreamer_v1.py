"""Profile `v1`: every new layer against a formula of its own, and the whole behind the contract."""

import dataclasses
import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import ask, tiny_v1, tiny_v1_config, with_random_weights

from thinkslow import registry
from thinkslow.agent.agent import Agent
from thinkslow.agent.arms.arm import arm
from thinkslow.distributions import Categorical
from thinkslow.dreamer.nets import LayerNorm, StridedConv, TransposedConv
from thinkslow.dreamer.v1.config import PRESETS, ConvConfig, V1Config
from thinkslow.dreamer.v1.model import V1Dreamer
from thinkslow.heads import BoundedNormal, SymlogSquared
from thinkslow.objectives.members import Noise
from thinkslow.saved import folder as checkpoint
from thinkslow.spaces import Space
from thinkslow.weights import named
from thinkslow.worldmodel import State, surprise

pytestmark = pytest.mark.usefixtures("strict")
NO = jnp.zeros((), bool)
YES = jnp.ones((), bool)
MEMORY = jnp.linspace(-1.0, 1.0, 20)
COUNTS = {
    "small": (15_693_443, 1_059_345, 1_181_439),
    "medium": (32_468_675, 2_144_657, 2_297_215),
    "large": (68_286_723, 4_147_985, 4_331_007),
    "xlarge": (181_569_923, 9_464_849, 9_708_799),
}
"""Parameters of world model, actor and critic as the code of 2023 counts them."""


@pytest.mark.parametrize("preset", PRESETS)
def test_parameter_counts_are_those_of_2023(preset):
    spaces = {"image": Space((64, 64, 3), "uint8")}, {"action": Space((), "int32", 17)}
    model = jax.eval_shape(lambda: V1Dreamer(*spaces, PRESETS[preset], key=jr.key(0)))
    parts = (model.wm, model.task_behavior["ac"], model.task_behavior["critic"])
    assert tuple(sum(x.size for x in jax.tree.leaves(part)) for part in parts) == COUNTS[preset]


def test_layer_norm_is_its_formula():
    norm = with_random_weights(jax.eval_shape(lambda: LayerNorm(5)), 1)
    x = np.random.default_rng(0).normal(3.0, 0.02, (2, 5))  # so narrow that epsilon matters
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    scale, bias = np.asarray(norm.scale), np.asarray(norm.bias)
    expected = (x - mean) / np.sqrt(variance + 1e-3) * scale + bias
    found = ask(norm, "__call__", jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("size", "stride"), [(4, 2), (5, 2), (4, 3), (5, 3)])
def test_a_strided_convolution_is_a_loop_over_windows(size, stride):
    rng = np.random.default_rng(size)
    shapes = jax.eval_shape(lambda: StridedConv(2, 3, size, stride, key=jr.key(0)))
    layer = with_random_weights(shapes, 1)
    image, kernel = rng.normal(size=(6, 9, 2)), np.asarray(layer.kernel)
    rows, columns = -(-6 // stride), -(-9 // stride)
    # "Same" padding: as little as makes every stride a window, the odd pixel behind.
    tall, wide = (max((n - 1) * stride + size - m, 0) for n, m in ((rows, 6), (columns, 9)))
    padded = np.pad(image, ((tall // 2, tall - tall // 2), (wide // 2, wide - wide // 2), (0, 0)))
    out = np.zeros((rows, columns, 3))
    for i in range(rows):
        for j in range(columns):
            window = padded[i * stride : i * stride + size, j * stride : j * stride + size]
            out[i, j] = np.einsum("hwi,hwio->o", window, kernel)
    expected = ask(layer.norm, "__call__", jnp.asarray(out, jnp.float32))
    found = ask(layer, "__call__", jnp.asarray(image, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(("size", "stride"), [(4, 2), (5, 3)])
def test_a_transposed_convolution_spreads_each_pixel_by_the_kernel_backwards(size, stride):
    """Output (s·i + a - before) gathers x[i] times the kernel's mirrored tap: the kernel is
    correlated with the image that stride - 1 zeros spread apart."""
    rng = np.random.default_rng(size)
    shapes = jax.eval_shape(lambda: TransposedConv(2, 3, size, stride, last=True, key=jr.key(0)))
    layer = with_random_weights(shapes, 1)
    image, kernel, bias = rng.normal(size=(3, 5, 2)), *map(np.asarray, (layer.kernel, layer.bias))
    total = size + stride - 2  # zeros around the spread image that make it stride times larger
    before = size - 1 if stride > size - 1 else -(-total // 2)
    spread = np.zeros((3 * stride + size, 5 * stride + size, 2))
    spread[before : before + 3 * stride : stride, before : before + 5 * stride : stride] = image
    out = np.zeros((3 * stride, 5 * stride, 3))
    for i in range(3 * stride):
        for j in range(5 * stride):
            window = spread[i : i + size, j : j + size]
            out[i, j] = np.einsum("hwi,hwoi->o", window, kernel) + bias
    found = ask(layer, "__call__", jnp.asarray(image, jnp.float32))
    np.testing.assert_allclose(found, out, atol=1e-5)


def test_the_memory_is_a_plain_gru(v1):
    rng = np.random.default_rng(2)
    deter, action = rng.normal(size=20), np.array([0.5, -3.0, 1.0])
    stoch = np.eye(5)[[0, 3, 3, 1]]
    weights = {name: np.asarray(x, np.float64) for name, x in named(v1.wm.rssm).items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-3)
        return x * weights[f"{name}/norm/scale"] + weights[f"{name}/norm/bias"]

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    # An action beyond [-1, 1] is scaled back to it.
    x = np.concatenate([stoch.ravel(), [0.5, -1.0, 1.0]]) @ weights["img_in/kernel"]
    x = norm(x, "img_in")
    x = np.concatenate([deter, x * sigmoid(x)]) @ weights["gru/kernel"]
    reset, candidate, update = np.split(norm(x, "gru"), 3)
    update = sigmoid(update - 1)
    expected = update * np.tanh(sigmoid(reset) * candidate) + (1 - update) * deter
    state = State(jnp.asarray(deter, jnp.float32), jnp.asarray(stoch, jnp.float32))
    found, _ = ask(v1, "predict", state, jnp.asarray(action, jnp.float32), NO)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_first_step_forgets_the_past_and_begins_at_the_learned_state(v1):
    predict = partial(ask, v1, "predict")
    start = ask(v1, "initial")
    np.testing.assert_allclose(start.memory, np.tanh(v1.wm.rssm.initial), atol=1e-6)
    prior = ask(v1.wm.rssm, "prior", start.memory)
    np.testing.assert_array_equal(start.latent, ask(prior, "mode"))
    wrong = State(jnp.ones(20), jnp.ones((4, 5)))
    forgot, _ = predict(wrong, jnp.ones(3), YES)
    fresh, _ = predict(start, jnp.zeros(3), NO)
    np.testing.assert_array_equal(forgot, fresh)
    assert not np.allclose(predict(wrong, jnp.zeros(3), NO)[0], fresh)


@pytest.mark.parametrize("mixed", [True, False])
def test_a_belief_says_whether_it_holds_the_mix(mixed):
    model = tiny_v1(mixed_logits=mixed)
    belief = ask(model.wm.rssm, "prior", MEMORY)
    assert isinstance(belief, Categorical)
    assert belief.mixed == mixed
    assert belief.mix == 0.01
    raw = ask(tiny_v1(unimix=0.0, mixed_logits=False).wm.rssm, "prior", MEMORY)
    probs, softmax = (np.asarray(ask(one, "probs")) for one in (belief, raw))
    np.testing.assert_allclose(probs, 0.99 * softmax + 0.01 / 5, atol=1e-6)
    held = np.log(probs) if mixed else raw.logits
    np.testing.assert_allclose(belief.logits, held, atol=1e-5)


def test_imagination_goes_on_by_mode_or_by_mean():
    state = State(MEMORY, jnp.zeros((4, 5)))
    by_mode, by_mean = (tiny_v1(going_on=how, discount=0.9) for how in ("mode", "mean"))
    prob = float(ask(ask(by_mean, "continuation", state), "prob"))
    assert float(ask(by_mean, "discount", state)) == pytest.approx(0.9 * prob)
    assert float(ask(by_mode, "discount", state)) == pytest.approx(0.9 * (prob > 0.5))


def test_discrete_actions_are_mixed_and_continuous_ones_bounded():
    state = State(9 * MEMORY, jnp.zeros((4, 5)))
    (head,) = ask(tiny_v1(actor_unimix=0.3), "actor", state).values()
    assert isinstance(head, Categorical)
    assert np.min(ask(head, "probs")) >= 0.1 - 1e-6
    space = {"action": Space((3,), "float32")}
    (head,) = ask(tiny_v1(actions=space, min_std=0.2, max_std=0.4), "actor", state).values()
    assert isinstance(head, BoundedNormal)
    assert np.max(np.abs(head.mean)) <= 1
    assert 0.2 <= np.min(head.scale) <= np.max(head.scale) <= 0.4


def test_several_discrete_actions_keep_the_order_in_which_they_are_given():
    spaces = {"b": Space((), "int32", 2), "a": Space((), "int32", 4)}
    model = tiny_v1(actions=spaces)
    vector = ask(model, "encode_action", {"a": jnp.array(3), "b": jnp.array(0)})
    np.testing.assert_array_equal(vector, [1, 0, 0, 0, 0, 1])
    assert {name: int(x) for name, x in ask(model, "split", vector).items()} == {"b": 0, "a": 3}
    state = State(jnp.ones(20), jnp.zeros((4, 5)))
    features = ask(model, "features", state)
    raw = ask(model.task_behavior["ac"]["actor"], "__call__", features)["out"]
    head = ask(model, "actor", state)["a"]
    assert isinstance(head, Categorical)
    np.testing.assert_array_equal(head.logits, np.asarray(raw)[2:])
    assert ask(model, "policy", state, jr.key(0)).shape == (6,)


def test_actions_of_both_kinds_are_refused(untyped):
    with pytest.raises(ValueError, match="all discrete or all continuous"):
        tiny_v1(actions={"a": Space((), "int32", 2), "b": Space((2,), "float32")})


def test_vectors_are_joined_in_the_order_in_which_they_are_given():
    seen = {"z": Space((2,), "float32"), "a": Space((1,), "float32")}
    model = tiny_v1(observations=seen, encoder_convs=(), decoder_convs=())
    observation = {"a": jnp.array([7.0]), "z": jnp.array([1.0, -2.0])}

    @jax.jit
    def encoded(x: jax.Array) -> jax.Array:
        for index in range(2):
            x = jax.nn.silu(model.wm.enc.mlp[f"h{index}"](x))
        return x

    expected = encoded(np.asarray([1, -1, 1] * np.log1p([1.0, 2.0, 7.0]), np.float32))
    np.testing.assert_allclose(ask(model.wm.enc, "__call__", observation), expected, atol=1e-6)
    assert set(jax.eval_shape(lambda: model.decode(model.initial()))) == {"z", "a"}


@pytest.mark.parametrize(
    ("side", "strides"), [(64, (2, 2, 2, 2)), (96, (3, 2, 2, 2)), (128, (2,) * 5)]
)
def test_images_of_every_size_are_seen_and_made(side, strides):
    depths = [2 * 2**index for index in range(len(strides))]
    down = tuple(ConvConfig(d, 4, s) for d, s in zip(depths, strides, strict=True))
    up = tuple(
        ConvConfig(d, 4, s) for d, s in zip([*depths[-2::-1], 3], strides[::-1], strict=True)
    )
    config = tiny_v1_config(encoder_convs=down, decoder_convs=up, decoder_seed=depths[-1])
    spaces = {"image": Space((side, side, 3), "uint8")}
    model = jax.eval_shape(
        lambda: V1Dreamer(spaces, {"action": Space((), "int32", 3)}, config, key=jr.key(0))
    )
    image = jax.ShapeDtypeStruct((side, side, 3), jnp.uint8)
    tokens = jax.eval_shape(lambda m, x: m.wm.enc({"image": x}), model, image)
    assert tokens.shape == (model.wm.enc.tokens,) == (4 * 4 * depths[-1],)
    made = jax.eval_shape(lambda m: m.decode(m.initial())["image"].mode(), model)
    assert made.shape == (side, side, 3)


def test_an_image_that_the_decoder_cannot_make_is_refused(untyped):
    with pytest.raises(ValueError, match="18x18x3 must be a multiple of 4"):
        tiny_v1(observations={"image": Space((18, 18, 3), "uint8")})


def test_an_agent_without_a_decoder_decodes_nothing():
    model = tiny_v1(decoded=())
    assert jax.eval_shape(lambda: model.decode(model.initial())) == {}
    assert not [name for name in named(model) if name.startswith("wm/dec")]


def test_what_is_seen_but_not_decoded_is_no_surprise():
    seen = {"image": Space((16, 16, 3), "uint8"), "speed": Space((2,), "float32")}
    model = tiny_v1(observations=seen, decoded=("speed",))
    observation = {"image": jnp.zeros((16, 16, 3), jnp.uint8), "speed": jnp.array([1.0, 2.0])}
    state = ask(model, "initial")
    head = ask(model, "decode", state)["speed"]
    assert isinstance(head, SymlogSquared)
    error = np.asarray(head.symlog_mean) - np.log1p([1.0, 2.0])
    found = jax.jit(surprise)(model, state, observation)
    np.testing.assert_allclose(found, np.sum(error**2), rtol=1e-5)


def test_a_saved_agent_comes_back_to_the_bit(tmp_path):
    model = tiny_v1(
        observations={
            "z": Space((2,), "float32"),
            "image": Space((16, 16, 3), "uint8"),
            "a": Space((1,), "float32"),
        },
        actions={"b": Space((), "int32", 2), "a": Space((), "int32", 4)},
        mixed_logits=False,
        decoded=("a", "image"),
    )
    environment = {"id": "x", "size": 16, "repeat": 1}
    training = {"steps": 1, "seed": 0, "preset": "test"}
    checkpoint.save(tmp_path / "a", model, name="x", environment=environment, training=training)
    saved = checkpoint.load(tmp_path / "a")
    assert saved.manifest["architecture"] == "dreamerv3-v1"
    assert saved.model.config == model.config
    assert saved.model.observation_spaces == model.observation_spaces
    assert saved.model.action_spaces == model.action_spaces
    assert jax.tree.structure(saved.model) == jax.tree.structure(model)
    for ours, theirs in zip(jax.tree.leaves(model), jax.tree.leaves(saved.model), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_configuration_survives_json():
    config = tiny_v1_config(decoded=("image",), mixed_logits=False)
    assert V1Config.from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


# Every term, update, readout and control; other horizons only scan longer, and what a gate lets
# through is another arm's. `ambiguity` is refused: the decoder's variance is fixed.
KINDS = [
    name
    for name in registry.entries("arm")
    if not name.endswith(("-1", "-8")) and name not in ("ambiguity-3", "values-ascent")
    for one in [arm(name)]
    if one.thinking.horizon != 16
    and one.gate is None
    and one.thinking.check is None  # which must know clean frames first
]


QUICK = ("evidence",)
SLOW = ("none", "control-soft", "sig-3", "values", "control-particles-16")
"""With a soft latent, imagination, a choice and particles; the nightly tier has all arms."""


def tier(name: str) -> Any:
    return pytest.mark.slow if name in SLOW else () if name in QUICK else pytest.mark.nightly


@pytest.mark.parametrize("name", [pytest.param(name, marks=tier(name)) for name in KINDS])
def test_every_arm_thinks_with_an_agent_of_2023(v1, name):
    thinking = arm(name).thinking
    agent = Agent(v1, thinking, members=Noise(0.5, 2)(v1, key=jr.key(1)), returns=1.0)
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    keys = jr.split(jr.key(0), 1)
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        _, action, thought = agent.act(
            agent.start(1), {"image": image}, np.array([True]), keys=keys
        )
    assert action.shape == (1, 3)
    assert jnp.all(jnp.isfinite(action))
    if thinking.steps:
        assert thought.refined is not None
        assert jnp.all(thought.refined.finite)
        assert float(thought.moved[0]) > 1e-3
        # the paper's readings that step the latent's numbers have no bound in nats
        assert name.startswith("paper") or float(thought.moved[0]) < 4.01
    elif not thought.thinks[0]:
        assert float(thought.moved[0]) == 0


def test_probabilities_of_classes_are_refused_by_name():
    """JAX refused them, in its own words; this profile reads classes as numbers."""
    spaces = {"image": Space((16, 16, 3), "uint8"), "gear": Space((), "int32", 4)}
    agent = Agent(tiny_v1(observations=spaces))
    keys, image = jr.split(jr.key(0), 2), np.zeros((2, 16, 16, 3), np.uint8)
    shown = {"image": image, "gear": np.eye(4)[:2]}
    with pytest.raises(ValueError, match=r"`gear` must be of shape \(\) .* got \(4,\)"):
        agent.act(agent.start(2), shown, np.ones(2, bool), keys=keys)


def test_a_part_without_classes_may_have_its_numbers_in_another_shape():
    """One number of shape (1,) was told that it is no probability."""
    encoder = tiny_v1(observations={"height": Space((1,), "float32")}).wm.enc
    low, flat = (encoder({"height": np.full(shape, 0.5, np.float32)}) for shape in ((), (1,)))
    np.testing.assert_array_equal(low, flat)
