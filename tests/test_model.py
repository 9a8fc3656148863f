import dataclasses
import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg
from helpers import ask, tiny_config, tiny_dreamer, tiny_v1_config

import thinkslow
from thinkslow.distributions import Categorical
from thinkslow.dreamer.config import PRESETS, ModelConfig, TrainConfig, model_preset
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.nets import MLP, BlockLinear, Conv, RMSNorm, truncated_normal
from thinkslow.dreamer.training.learner import start
from thinkslow.dreamer.training.losses import Batch, ReturnRange, losses
from thinkslow.dreamer.vision import join_patches, split_patches
from thinkslow.heads import Squared, SymlogSquared
from thinkslow.saved import folder as checkpoint
from thinkslow.spaces import Space
from thinkslow.storage import store
from thinkslow.weights import named, shaped, with_named
from thinkslow.worldmodel import State, surprise

pytestmark = pytest.mark.usefixtures("strict")

MIXED = {
    "image": Space((16, 16, 3), "uint8"),
    "depth": Space((16, 16, 1), "uint8"),
    "speed": Space((4,), "float32"),
    "height": Space((), "float32"),
    "bytes": Space((5,), "uint8"),
    "room": Space((), "int32", 6),
    "cards": Space((2,), "uint8", 3),
}
ACTIONS = {
    "turn": Space((2,), "float32"),
    "grip": Space((2, 3), "float32"),
    "lever": Space((), "float32"),
    "button": Space((), "int32", 4),
    "keys": Space((3,), "int32", 2),
}


@pytest.fixture(scope="module")
def mixed() -> Dreamer:
    return tiny_dreamer(3, MIXED, ACTIONS)


def observation(seed: int = 0, lead: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """A random value of every space."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, space in MIXED.items():
        if space.classes is not None:
            value = rng.integers(space.classes, size=lead + space.shape)
        elif space.dtype == "uint8":
            value = rng.integers(256, size=lead + space.shape)
        else:
            value = rng.normal(size=lead + space.shape, scale=30.0)
        out[name] = value.astype(space.dtype)
    return out


def action(seed: int = 0, lead: tuple[int, ...] = ()) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    drawn = {
        "turn": rng.uniform(-1, 1, (*lead, 2)),
        "grip": rng.uniform(-1, 1, (*lead, 2, 3)),
        "lever": rng.uniform(-1, 1, lead),
        "button": rng.integers(4, size=lead),
        "keys": rng.integers(2, size=(*lead, 3)),
    }
    return {name: jnp.asarray(np.asarray(x, ACTIONS[name].dtype)) for name, x in drawn.items()}


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


STATE = State(jnp.asarray(normal(32)), jnp.asarray(np.eye(8, dtype=np.float32)[:6]))
ONES = State(jnp.ones(32), STATE.latent)


# Counted in the official code, for 64x64x3 images and 17 actions, without the slow critic.
OFFICIAL = {
    "size1m": 687_875,
    "size12m": 10_498_259,
    "size25m": 23_495_475,
    "size50m": 41_658_259,
    "size100m": 93_480_531,
    "size200m": 165_965_075,
    "size400m": 372_920_979,
}


@pytest.mark.parametrize("preset", OFFICIAL)
def test_every_official_size_has_the_official_number_of_parameters(preset):
    def make() -> Dreamer:
        spaces = {"image": Space((64, 64, 3), "uint8")}, {"action": Space((), "int32", 17)}
        return Dreamer(*spaces, model_preset(preset), key=jr.key(0))

    leaves = jax.tree.leaves(jax.eval_shape(make))
    assert sum(leaf.size for leaf in leaves) == OFFICIAL[preset]


def test_presets_are_the_official_sizes_and_tiny():
    assert set(PRESETS) == {*OFFICIAL, "tiny", "tiny-gaussian"}
    with pytest.raises(ValueError, match=r"'huge'.*size1m"):
        model_preset("huge")


def test_weights_have_the_official_names():
    spaces = {"image": Space((64, 64, 3), "uint8"), "speed": Space((4,), "float32")}
    actions = {"action": Space((), "int32", 17)}
    shape = jax.eval_shape(lambda: Dreamer(spaces, actions, model_preset("size1m"), key=jr.key(0)))

    def pairs(*layers: str) -> set[str]:
        return {f"{layer}/{part}" for layer in layers for part in ("kernel", "bias")}

    def normed(*layers: str) -> set[str]:
        return pairs(*layers) | {f"{layer}norm/scale" for layer in layers}

    def mlp(head: str, layers: int) -> set[str]:
        return pairs(*(f"{head}/mlp/linear{i}" for i in range(layers))) | {
            f"{head}/mlp/norm{i}/scale" for i in range(layers)
        }

    expected = (
        normed(*(f"enc/cnn{i}" for i in range(4)), *(f"enc/mlp{i}" for i in range(3)))
        | normed(*(f"dyn/{n}" for n in ("dynin0", "dynin1", "dynin2", "dynhid0", "obs0")))
        | normed("dyn/prior0", "dyn/prior1")
        | pairs("dyn/dyngru", "dyn/obslogit", "dyn/priorlogit")
        | normed("dec/sp1", "dec/conv0", "dec/conv1", "dec/conv2")
        | {"dec/spnorm/scale"}
        | pairs("dec/sp0", "dec/sp2", "dec/imgout", "dec/vec/speed/pred")
        | mlp("dec", 3)
        | mlp("rew", 1)
        | mlp("con", 1)
        | mlp("pol", 3)
        | mlp("val", 3)
        | pairs("rew/head/logits", "con/head/logit", "pol/head/action/logits", "val/head/logits")
    )
    assert set(named(shape)) == expected


def test_named_and_with_named_are_inverse(mixed):
    arrays = named(mixed)
    other = with_named(tiny_dreamer(4, MIXED, ACTIONS), arrays)
    assert len(arrays) == len(jax.tree.leaves(mixed))  # no name twice
    for name, array in named(other).items():
        np.testing.assert_array_equal(array, arrays[name])
    with pytest.raises(KeyError, match="rew/head/logits/bias"):
        with_named(mixed, {k: v for k, v in arrays.items() if k != "rew/head/logits/bias"})


def test_a_block_linear_map_is_a_block_diagonal_matrix():
    layer = jax.jit(lambda: BlockLinear(6, 9, 3, key=jr.key(0)))()
    full = scipy.linalg.block_diag(*np.asarray(layer.kernel))
    x = normal(6)
    # Sums of two products in another order.
    np.testing.assert_allclose(
        ask(layer, "__call__", x), x @ full + np.asarray(layer.bias), rtol=1e-5, atol=1e-6
    )


def test_a_norm_divides_by_the_root_mean_square_with_epsilon_1e4():
    norm, x = RMSNorm(2), np.array([3.0, 4.0], np.float32)
    for scale, mean_square in ((1.0, 12.5), (1e-3, 1.25e-5)):
        found = ask(norm, "__call__", x * np.float32(scale))
        np.testing.assert_allclose(found, x * scale / np.sqrt(mean_square + 1e-4), rtol=1e-6)


def test_a_convolution_pads_to_the_same_size_and_reads_in_out_kernels():
    layer = jax.jit(lambda: Conv(2, 3, 3, key=jr.key(0)))()
    image = np.zeros((4, 4, 2), np.float32)
    image[1, 2, 1] = 1.0
    found = np.asarray(ask(layer, "__call__", image))
    assert found.shape == (4, 4, 3)
    # A cross-correlation of a point is the kernel turned round.
    turned = np.asarray(layer.kernel)[::-1, ::-1, 1]
    np.testing.assert_allclose(found[0:3, 1:4], turned, rtol=1e-6)


def test_an_mlp_normalises_before_it_activates():
    mlp, x = jax.jit(lambda: MLP(3, 4, 1, key=jr.key(0)))(), normal(3)
    hidden = ask(mlp.layers["norm0"], "__call__", ask(mlp.layers["linear0"], "__call__", x))
    np.testing.assert_allclose(ask(mlp, "__call__", x), jax.nn.silu(hidden), rtol=1e-6)


def test_patches_cover_the_image_and_join_to_it():
    image = normal(16, 24, 3)
    rows = np.asarray(jax.jit(split_patches)(image))
    assert rows.shape == (6, 192)
    np.testing.assert_array_equal(rows[4].reshape(8, 8, 3), image[8:, 8:16])
    joined = jax.jit(join_patches, static_argnums=(1, 2))(rows, 16, 24)
    np.testing.assert_array_equal(joined, image)


@pytest.mark.slow
def test_every_part_of_a_mixed_observation_is_seen_and_decoded(mixed):
    encode = partial(ask, mixed.enc, "__call__")
    tokens = encode(observation())
    assert tokens.shape == (mixed.enc.tokens,)
    for name in MIXED:
        changed = observation() | {name: observation(1)[name]}
        assert not np.array_equal(encode(changed), tokens), f"{name} is not seen"
    heads = ask(mixed, "decode", STATE)
    modes = jax.eval_shape(lambda: {name: head.mode() for name, head in heads.items()})
    assert set(heads) == set(MIXED)
    for name, space in MIXED.items():
        classes = () if space.classes is None else (space.classes,)
        assert modes[name].shape == space.shape + classes, name
    assert {type(heads[n]) for n in ("image", "depth")} == {Squared}
    assert {type(heads[n]) for n in ("speed", "height", "bytes")} == {SymlogSquared}
    assert {type(heads[n]) for n in ("room", "cards")} == {Categorical}


def test_surprise_scores_each_part_in_its_own_units(mixed):
    """Bytes in a vector were read as pixels, and classes stored as bytes too."""
    seen, heads = observation(), ask(mixed, "decode", STATE)

    def symlog(name: str) -> np.ndarray:
        value = np.asarray(seen[name], np.float64)
        return np.sign(value) * np.log1p(np.abs(value))

    expected = 0.0
    for name in ("image", "depth"):
        shown = np.asarray(ask(heads[name], "mode"), np.float64)
        expected += np.sum((shown - np.asarray(seen[name]) / 255.0) ** 2)
    for name in ("speed", "height", "bytes"):
        head = heads[name]
        assert isinstance(head, SymlogSquared)
        expected += np.sum((np.asarray(head.symlog_mean, np.float64) - symlog(name)) ** 2)
    for name in ("room", "cards"):
        head = heads[name]
        assert isinstance(head, Categorical)
        index = np.asarray(seen[name]).astype(int)[..., None]
        expected -= np.take_along_axis(np.asarray(ask(head, "log_probs")), index, -1).sum()
    # A float32 sum of a thousand terms.
    found = jax.jit(surprise)(mixed, STATE, seen)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_order_in_which_spaces_are_given_changes_nothing():
    turned = {name: MIXED[name] for name in reversed(MIXED)}, dict(reversed(ACTIONS.items()))
    first, second = tiny_dreamer(3, MIXED, ACTIONS), tiny_dreamer(3, *turned)
    tokens = (ask(model.enc, "__call__", observation()) for model in (first, second))
    np.testing.assert_array_equal(*tokens)
    np.testing.assert_array_equal(
        ask(first, "encode_action", action()),
        ask(second, "encode_action", dict(reversed(action().items()))),
    )


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_actions_are_encoded_and_split_back_for_any_leading_axes(mixed, lead):
    played = action(5, lead)
    flat = ask(mixed, "encode_action", played)
    assert flat.shape == (*lead, 2 + 2 * 3 + 1 + 4 + 3 * 2)
    back = ask(mixed, "split", flat)
    assert set(back) == set(played)
    for name, value in played.items():
        np.testing.assert_array_equal(back[name], value)
        assert back[name].shape == value.shape


def test_a_sampled_action_is_in_bounds_for_each_kind(mixed):
    sampled = jax.jit(jax.vmap(lambda k: mixed.policy(ONES, k)))(jr.split(jr.key(0), 50))
    parts = jax.device_get(ask(mixed, "parts", sampled))
    assert set(np.unique(parts["button"])) == {0.0, 1.0}
    np.testing.assert_array_equal(parts["keys"].sum(-1), 1.0)
    assert len(np.unique(ask(mixed, "split", sampled)["button"])) > 1
    turn = np.asarray(ask(ask(mixed, "actor", ONES)["turn"], "mode"))
    assert np.all(np.abs(turn) <= 1)
    likeliest = ask(mixed, "parts", ask(mixed, "greedy", ONES, jr.key(1)))
    np.testing.assert_array_equal(likeliest["turn"], turn)


def test_actions_of_one_form_are_drawn_together_as_if_alone(monkeypatch):
    """A hundred buttons took minutes to compile: a generator of random numbers for each."""
    buttons = {f"button/{index}": Space((), "int32", 2) for index in range(5)}
    actions = {**buttons, "gear": Space((), "int32", 3), "turn": Space((2,), "float32")}
    model, draws = tiny_dreamer(3, {"speed": Space((4,), "float32")}, actions), []
    alone = jax.jit(lambda key: model.join(one_by_one(model.actor(ONES), key)))
    expected = [alone(jr.key(seed)) for seed in range(5)]
    noise = Categorical.noise
    monkeypatch.setattr(
        Categorical, "noise", lambda self, *, key: draws.append(self) or noise(self, key=key)
    )
    drawn = jax.jit(partial(model.policy, ONES))
    np.testing.assert_array_equal([drawn(jr.key(seed)) for seed in range(5)], expected)
    assert len(draws) == 2


def one_by_one(heads: dict[str, Any], key: Any) -> list[Any]:
    keys = jr.split(key, len(heads))
    return [head.sample(key=one) for head, one in zip(heads.values(), keys, strict=True)]


@pytest.mark.slow
def test_a_mixed_agent_has_a_loss_for_each_part_of_what_it_sees(mixed):
    lead = (2, 3)
    no = jnp.zeros(lead, bool)
    start = State(jnp.zeros((2, 32)), jnp.zeros((2, 6, 8)))
    actions = ask(mixed, "encode_action", action(1, lead))
    seen = jax.tree.map(jnp.asarray, observation(0, lead))
    batch = Batch(seen, actions, jnp.ones(lead), no, no, no, start)
    config = TrainConfig(imagination=2)
    returns = ReturnRange(jnp.zeros(()), jnp.zeros(()))
    shapes = jax.eval_shape(
        lambda m: losses(m, m.critic, returns, batch, config, key=jr.key(0))[0], mixed
    )
    decoded = {f"reconstruction/{name}" for name in MIXED}
    assert set(shapes) == {*decoded, "dyn", "rep", "rew", "con", "policy", "value", "repval"}
    assert {leaf.shape for leaf in shapes.values()} == {(2, 3), (2, 2)}
    assert shapes["repval"].shape == (2, 2)


def test_reset_forgets_the_past_entirely(dreamer):
    state = State(jnp.full(32, 3.0), STATE.latent)
    action = jnp.array([0.0, 1.0, 0.0])
    predict = partial(ask, dreamer, "predict")
    fresh, prior = predict(dreamer.initial(), jnp.zeros(3), jnp.array(True))
    forgot, same = predict(state, action, jnp.array(True))
    kept, _ = predict(state, action, jnp.array(False))
    np.testing.assert_array_equal(fresh, forgot)
    np.testing.assert_array_equal(prior.logits, same.logits)
    assert not np.array_equal(kept, forgot)


def test_the_first_step_of_an_episode_heals_a_carry_that_is_not_finite(dreamer):
    """It multiplied by 0, and 0 x NaN is NaN: no reset ever mended the agent."""
    broken = State(jnp.full(32, jnp.nan), jnp.full((6, 8), jnp.inf))
    predict = partial(ask, dreamer, "predict")
    healed, _ = predict(broken, jnp.full(3, jnp.nan), jnp.array(True))
    fresh, _ = predict(dreamer.initial(), jnp.zeros(3), jnp.array(True))
    np.testing.assert_array_equal(healed, fresh)


def test_an_action_beyond_one_is_scaled_back_to_one(dreamer):
    predict = partial(ask, dreamer, "predict")
    far, _ = predict(ONES, jnp.array([5.0, -7.0, 0.5]), jnp.array(False))
    near, _ = predict(ONES, jnp.array([1.0, -1.0, 0.5]), jnp.array(False))
    np.testing.assert_array_equal(far, near)


def test_beliefs_keep_the_uniform_floor_of_their_configuration(dreamer):
    """Also where the logits, 300 times larger here, are sure of one class."""
    weights = {name: np.asarray(array) for name, array in named(dreamer).items()}
    for layer in ("dyn/priorlogit/kernel", "dyn/obslogit/kernel"):
        weights[layer] = 300 * weights[layer]
    sure = with_named(dreamer, weights)
    memory, prior = ask(sure, "predict", STATE, jnp.ones(3), jnp.array(False))
    white = {"image": np.full((16, 16, 3), 255, np.uint8)}
    for belief in (prior, ask(sure, "infer", memory, white)):
        probs = np.asarray(ask(belief, "probs"))
        np.testing.assert_allclose(np.min(probs), 0.01 / 8, rtol=1e-5)
        np.testing.assert_allclose(probs.sum(-1), 1.0, rtol=1e-6)


def test_images_as_bytes_and_as_floats_are_the_same(dreamer):
    image = np.random.default_rng(0).integers(256, size=(16, 16, 3)).astype(np.uint8)
    floats = image.astype(np.float32) / 255
    np.testing.assert_allclose(
        ask(dreamer.enc, "__call__", {"image": image}),
        ask(dreamer.enc, "__call__", {"image": floats}),
        rtol=1e-5,
        atol=1e-6,  # the division may be a multiplication
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"deter": 30}, "`deter` must be a multiple of `blocks`; got 30 and 4"),
        ({"vision": "eyes"}, "`vision` must be 'conv' or 'patch'; got 'eyes'"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_impossible_sizes_are_refused_with_rule_and_value(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


SHARES = ("unimix", "actor_unimix", "discount")
NUMBERS = (*SHARES, "free_nats", "rep_scale")


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), 10**400, True, "0.1", None])
@pytest.mark.parametrize("sizes", [tiny_config, tiny_v1_config])
@pytest.mark.usefixtures("untyped")
def test_a_number_that_cannot_be_is_refused_by_its_name(sizes, value):
    """A negative `unimix` of a file was believed, and gave probabilities below zero."""
    more = ("dyn_scale", "min_std", "max_std") if sizes is tiny_v1_config else ()
    for name in (*NUMBERS, *more):
        with pytest.raises(ValueError, match=f"`{name}` must be a finite number"):
            sizes(**{name: value})
    for name in SHARES:
        with pytest.raises(ValueError, match=f"`{name}` must be a finite number"):
            sizes(**{name: 1.5})


@pytest.mark.parametrize(
    ("vision", "message"),
    [("patch", "multiples of 8; got 20x20"), ("conv", "multiple of 16; got 20x20")],
)
def test_an_image_that_cannot_be_halved_or_cut_is_refused(vision, message):
    with pytest.raises(ValueError, match=message):
        tiny_dreamer(0, {"image": Space((20, 20, 3), "uint8")}, vision=vision)


def test_a_configuration_survives_json():
    config = PRESETS["size1m"]
    assert ModelConfig.from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


FACTS: dict[str, Any] = {
    "environment": {"id": None, "size": 16, "repeat": 1},
    "training": {"steps": 0, "seed": 0, "preset": None},
}
"""What every agent says of itself besides its model."""


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_saved_agent_loads_as_it_was(mixed, tmp_path, dtype):
    environment = {"id": "thinkslow/Some-v0", "size": 16, "repeat": 1}
    training = {"steps": 7, "seed": 1, "preset": "tiny"}
    checkpoint.save(
        tmp_path / "agent",
        mixed,
        name="one",
        environment=environment,
        training=training,
        dtype=dtype,
    )
    saved = checkpoint.load(tmp_path / "agent")
    assert (saved.name, saved.environment, saved.manifest["training"]) == (
        "one",
        environment,
        training,
    )
    assert saved.model.config == mixed.config
    assert saved.model.observation_spaces == mixed.observation_spaces
    assert saved.model.action_spaces == mixed.action_spaces
    for name, array in named(saved.model).items():
        assert array.dtype == jnp.float32
        np.testing.assert_array_equal(array, np.asarray(named(mixed)[name]).astype(dtype))


def test_an_agent_without_its_critic_acts_as_before_and_cannot_be_trained(mixed, tmp_path):
    config = dataclasses.replace(mixed.config, value=None)
    spaces = dict(mixed.observation_spaces), dict(mixed.action_spaces)
    shape = jax.eval_shape(lambda: Dreamer(*spaces, config, key=jr.key(0)))
    checkpoint.save(tmp_path / "agent", with_named(shape, named(mixed)), name="one", **FACTS)
    actor = checkpoint.load(tmp_path / "agent").model
    whole = named(mixed)
    assert set(named(actor)) == {name for name in whole if not name.startswith("val/")}
    for name, array in named(actor).items():
        np.testing.assert_array_equal(array, whole[name])
    assert isinstance(actor, Dreamer)
    action, expected = (ask(m, "greedy", ONES, jr.key(0)) for m in (actor, mixed))
    np.testing.assert_array_equal(action, expected)
    with pytest.raises(ValueError, match=r"stored without it\. Load the agent of the run"):
        actor.value(actor.initial())
    with pytest.raises(ValueError, match="stored without it"):
        start(actor, TrainConfig())


def test_an_agent_is_saved_in_the_home_folder(dreamer, tmp_path, monkeypatch):
    """It was written into a folder that is called `~`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    thinkslow.save("~/agent", dreamer, name="one", **FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]
    assert thinkslow.load("~/agent").about.name == "one"


def test_weights_that_do_not_fit_the_manifest_are_named_with_both_shapes(dreamer, tmp_path):
    folder = tmp_path / "agent"
    checkpoint.save(folder, dreamer, name="one", **FACTS)
    weights = {name: np.asarray(array) for name, array in named(dreamer).items()}
    weights["dyn/dynin0/kernel"] = np.zeros((64, 16), np.float32)
    kept = ("name", "architecture", "model", "observations", "actions", *FACTS)
    manifest = store.read(folder)[1]
    store.write(tmp_path / "other", weights, {key: manifest[key] for key in kept})
    with pytest.raises(store.Misfit, match=r"dyn/dynin0/kernel.*\(64, 16\).*\(32, 16\)"):
        checkpoint.load(tmp_path / "other")


def test_an_agent_of_another_architecture_says_so(dreamer, tmp_path):
    store.write(tmp_path / "agent", {"x": np.zeros(1)}, {"architecture": "transformer"})
    with pytest.raises(store.Damaged, match=r"dreamerv3-main.*'transformer'"):
        checkpoint.load(tmp_path / "agent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../../elsewhere"}, "its name must be one that a file can have"),
        ({"name": 3}, "its name must be one that a file can have"),
        ({"environment": {"id": "CartPole-v1"}}, "its environment lacks size, repeat"),
        ({"training": {}}, "its training lacks steps, seed, preset"),
    ],
)
def test_a_manifest_without_what_commands_need_is_damaged(dreamer, tmp_path, change, message):
    """A missing key was a KeyError later; a name with a path wrote pictures outside of --out."""
    folder = tmp_path / "agent"
    checkpoint.save(folder, dreamer, name="agent", **FACTS)
    weights, manifest = store.read(folder)
    store.write(folder, weights, manifest | change)
    with pytest.raises(store.Damaged, match=message):
        checkpoint.load(folder)


def test_the_shapes_of_a_model_leave_no_zeros_in_what_its_builder_compiles():
    """A compiled part of a builder kept the zeros that stand for kernels, for real weights too."""
    kernel = jax.jit(lambda key: truncated_normal(key, (3, 4), 4, 1.0))
    assert shaped(kernel).shape == (3, 4)
    assert np.all(np.asarray(kernel(jr.key(1))) != 0)


@pytest.mark.parametrize(
    "change", [{"model": {"stoch": 2**20, "classes": 2**20}}, {"shape": [10**6] * 3}]
)
def test_a_manifest_that_claims_a_huge_model_allocates_nothing(dreamer, tmp_path, change):
    """Biases were made as wide as the manifest said, which was a `MemoryError`."""
    folder = tmp_path / "agent"
    checkpoint.save(folder, dreamer, name="agent", **FACTS)
    weights, manifest = store.read(folder)
    manifest["model"] |= change.get("model", {})
    if "shape" in change:
        manifest["actions"] = {"action": Space((1,), "float32").to_json() | change}
    store.write(folder, weights, manifest)
    with pytest.raises(store.Misfit, match="do not fit its manifest"):
        checkpoint.load(folder)
