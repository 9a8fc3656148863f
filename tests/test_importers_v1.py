"""Agents of profile `v1` in the layouts of three projects: what was written is what is read.

Parity with the projects' own outputs is `golden.py`'s; here are the sizes, spaces and habits
that its cases do not have, and files that are wrong.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
import numpy as np
import pytest
import yaml
from helpers import slow, tiny_v1

from thinkslow.dreamer.v1.config import ConvConfig, V1Config
from thinkslow.dreamer.v1.model import V1Dreamer
from thinkslow.importers.foreign import Foreign, Found
from thinkslow.importers.formats.arrays import Stored
from thinkslow.importers.projects import danijar_v1, sheeprl_v1, torch_v1
from thinkslow.spaces import Space
from thinkslow.storage.checks import match
from thinkslow.storage.store import Damaged, Misfit
from thinkslow.weights import named

Arrays = Mapping[str, np.ndarray]


def image(side: int, channels: int = 3) -> Space:
    return Space((side, side, channels), "uint8")


def vector(size: int) -> Space:
    return Space((size,), "float32")


def convs(*channels: int, first: int = 2) -> tuple[ConvConfig, ...]:
    strides = (first, *(2,) * (len(channels) - 1))
    return tuple(ConvConfig(c, 4, s) for c, s in zip(channels, strides, strict=True))


CASES: dict[str, dict[str, Any]] = {
    "a smallest map of 6": {"observations": {"image": image(24)}},
    "five convolutions": {
        "observations": {"image": image(32)},
        "encoder_convs": convs(2, 3, 4, 5, 6),
        "decoder_convs": convs(5, 4, 3, 2, 3),
    },
    "one channel": {
        "observations": {"image": image(8, 1)},
        "encoder_convs": convs(2),
        "decoder_convs": convs(1),
    },
    "vectors only": {
        "observations": {"a": vector(3), "b": vector(1)},
        "encoder_convs": (),
        "decoder_convs": (),
        "decoder_seed": 0,
    },
    "images and a vector, continuous actions": {
        "observations": {"image": image(16), "a": vector(4)},
        "actions": {"action": Space((2,), "float32")},
    },
    "no decoder": {
        "observations": {"image": image(16)},
        "decoded": (),
        "decoder": (),
        "decoder_convs": (),
        "decoder_seed": 0,
    },
    "no dense layers": {
        "observations": {"image": image(16)},
        "reward": (),
        "continuation": (),
        "policy": (),
        "value": (),
    },
}


def agent(**case: Any) -> V1Dreamer:
    """A random agent whose configuration says outright what a reader finds."""
    defaults: dict[str, Any] = {"decoded": tuple(case["observations"])}
    if "decoder" not in case and all(s.shape[2:] for s in case["observations"].values()):
        defaults["decoder"] = ()
    if not any(len(s.shape) < 3 for s in case["observations"].values()):
        defaults["encoder"] = ()
    return tiny_v1(**defaults | case)


def stored(arrays: Arrays) -> dict[str, Stored]:
    def one(array: np.ndarray) -> Stored:
        return Stored(array.shape, array.dtype, lambda: array)

    return {name: one(np.asarray(array)) for name, array in arrays.items()}


class Plain(yaml.SafeDumper):
    """Without aliases, as these projects write."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def found(
    folder: Path, content: dict[str, Any], options: dict[str, Any] | None, file: str
) -> Found:
    config = None
    if options is not None:
        config = folder / "config.yaml"
        config.write_text(yaml.dump(options, Dumper=Plain))
    return Found("test", folder / file, config, content)


def check_same(foreign: Foreign, model: V1Dreamer, **habits: Any) -> None:
    weights = named(model)
    match(foreign.weights, {n: x.shape for n, x in weights.items()}, what="Read differently")
    for name, array in weights.items():
        np.testing.assert_array_equal(foreign.weights[name], array, err_msg=name)
    assert foreign.model == dataclasses.replace(model.config, **habits)
    assert tuple(foreign.observations.items()) == model.observation_spaces
    assert tuple(foreign.actions.items()) == model.action_spaces


# --- danijar -------------------------------------------------------------------------------------


def as_danijar(model: V1Dreamer, folder: Path, **options: Any) -> Found:
    weights = {f"agent/{name}": np.asarray(array) for name, array in named(model).items()}
    shuffled = {name: weights[name] for name in sorted(weights, key=lambda name: name[::-1])}
    agent = stored(shuffled) | {"agent/wm/model_opt/state": [], "agent/wm/model_opt/step/value": 3}
    keys = {
        "cnn_keys": "|".join(n for n, s in model.observation_spaces if len(s.shape) == 3) or "$^",
        "mlp_keys": "|".join(n for n, s in model.observation_spaces if len(s.shape) < 3) or "$^",
    }
    plain = {
        "rssm": {"classes": model.config.classes, "unimix": 0.01},
        "encoder": keys,
        "decoder": dict(keys),
        "horizon": 333,
        "actor": {"unimix": 0.01, "minstd": 0.1, "maxstd": 1.0},
        "rep_loss": {"free": 1.0},
        "loss_scales": {"dyn": 0.5, "rep": 0.1},
        "seed": 3,
    }
    content = {"step": 7, "agent": agent, "replay": None, "_timestamp": 1.0}
    return found(folder, content, plain | options, "checkpoint.ckpt")


@pytest.mark.parametrize("case", CASES)
def test_an_agent_of_danijar_is_read_whatever_its_sizes(tmp_path, case):
    model = agent(**CASES[case])
    foreign = danijar_v1.read(as_danijar(model, tmp_path))
    check_same(foreign, model)
    assert (foreign.steps, foreign.seed, foreign.logits) == (7, 3, "mixed")
    assert bool(foreign.cannot) == (case == "no decoder")


def test_a_stride_of_three_makes_images_of_96(tmp_path):
    model = agent(
        observations={"image": image(24)},
        encoder_convs=convs(2, 3, first=3),
        decoder_convs=(ConvConfig(4, 4, 2), ConvConfig(3, 5, 3)),
    )
    source = as_danijar(model, tmp_path)
    options = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for part in ("encoder", "decoder"):
        options[part]["resize"] = "stride3"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(options))
    check_same(danijar_v1.read(source), model)


def test_the_order_of_vectors_is_asked_for_where_nothing_tells_it(tmp_path):
    model = agent(**CASES["vectors only"])
    keys = {"cnn_keys": "$^", "mlp_keys": ".*"}
    source = as_danijar(model, tmp_path, encoder=keys, decoder=dict(keys))
    with pytest.raises(Misfit, match=r"4 numbers.*a has 3, b has 1.*Name them all"):
        danijar_v1.read(source)
    told = danijar_v1.read(source, vectors=("a", "b"))
    check_same(told, model)
    assert not told.assumed
    swapped = danijar_v1.read(source, vectors=("b", "a"))
    assert list(swapped.observations) == ["b", "a"]


def test_an_order_that_the_configuration_lists_is_taken_and_said(tmp_path):
    model = agent(**CASES["vectors only"])
    (said,) = danijar_v1.read(as_danijar(model, tmp_path)).assumed
    assert "a, b" in said
    assert "`vectors=" in said


def test_a_vector_that_is_not_decoded_has_what_is_left(tmp_path):
    seen = {"b": vector(3), "a": vector(4)}
    model = agent(
        observations=seen, decoded=("a",), encoder_convs=(), decoder_convs=(), decoder_seed=0
    )
    foreign = danijar_v1.read(as_danijar(model, tmp_path))
    check_same(foreign, model)
    assert "b" in foreign.cannot["decode"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("rssm.initial", "zeros"),
        ("encoder.norm", "none"),
        ("encoder.cnn_blocks", 2),
        ("encoder.resize", "mean"),
        ("critic.dist", "mse"),
        ("decoder.cnn_sigmoid", True),
    ],
)
def test_another_model_is_refused_by_the_name_of_its_option(tmp_path, path, value):
    source = as_danijar(agent(**CASES["a smallest map of 6"]), tmp_path)
    options = yaml.safe_load((tmp_path / "config.yaml").read_text())
    part, _, name = path.partition(".")
    options.setdefault(part, {})[name] = value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises(Damaged, match=rf"`{path}`.*{value!r}"):
        danijar_v1.read(source)


def test_the_classes_are_asked_for_where_there_is_no_configuration(tmp_path):
    model = agent(**CASES["a smallest map of 6"])
    source = as_danijar(model, tmp_path)
    alone = Found(source.format, source.file, None, source.content)
    with pytest.raises(FileNotFoundError, match="`classes=N`"):
        danijar_v1.read(alone)
    check_same(danijar_v1.read(alone, classes=5), model)
    with pytest.raises(Misfit, match=r"20 numbers.*7 classes"):
        danijar_v1.read(alone, classes=7)


# --- PyTorch -------------------------------------------------------------------------------------


def torch_rows(kernel: np.ndarray, model: V1Dreamer) -> np.ndarray:
    """[memory, latent] to PyTorch's [latent, memory], transposed."""
    deter = model.config.deter
    return np.concatenate([kernel[deter:], kernel[:deter]]).T


def layout(model: V1Dreamer, *, swap_gru: bool) -> Callable[[str, str], np.ndarray]:
    """A weight of ours as PyTorch lays it out; `kind` says what it is."""
    weights = {name: np.asarray(array) for name, array in named(model).items()}
    deter = model.config.deter

    def lay(name: str, kind: str) -> np.ndarray:
        array = weights[name]
        match kind:
            case "same":
                return array
            case "linear":
                return array.T
            case "features":
                return torch_rows(array, model)
            case "gru":
                return np.concatenate([array[deter:], array[:deter]]).T if swap_gru else array.T
            case "down":
                return array.transpose(3, 2, 0, 1)
            case "up":
                return array[::-1, ::-1].transpose(3, 2, 0, 1)
            case "posterior" if model.config.encoder_convs:
                channels = model.config.encoder_convs[-1].channels
                vectors = model.config.encoder[-1] if model.config.encoder else 0
                cells = len(array) - deter - vectors
                side = int(np.sqrt(cells // channels))
                grid = array[deter : deter + cells].reshape(side, side, channels, -1)
                flat = grid.transpose(2, 0, 1, 3).reshape(cells, -1)
                return np.concatenate([array[:deter], flat, array[deter + cells :]]).T
            case "posterior":
                return array.T
        raise AssertionError(kind)

    return lay


def layers(model: V1Dreamer, part: str) -> int:
    return sum(n.startswith(f"{part}/h") and n.endswith("kernel") for n in named(model))


def put_normed(put: Callable, new: str, norm: str, name: str, kind: str) -> None:
    put(f"{new}.weight", f"{name}/kernel", kind)
    put(f"{norm}.weight", f"{name}/norm/scale", "same")
    put(f"{norm}.bias", f"{name}/norm/bias", "same")


def put_linear(put: Callable, new: str, name: str, kind: str = "linear") -> None:
    put(f"{new}.weight", f"{name}/kernel", kind)
    put(f"{new}.bias", f"{name}/bias", "same")


def grow(put: Callable, model: V1Dreamer, layers: str, norm: str) -> None:
    """The transposed convolutions of a decoder of torch: each but the last is normed."""
    count = len(model.config.decoder_convs)
    for i in range(count):
        ours = f"wm/dec/cnn/s{i}res"
        put(f"{layers}.{3 * i}.weight", f"{ours}/kernel", "up")
        if i == count - 1:
            put(f"{layers}.{3 * i}.bias", f"{ours}/bias", "same")
            continue
        for name, theirs in (("scale", "weight"), ("bias", "bias")):
            put(f"{layers}.{3 * i + 1}{norm}.{theirs}", f"{ours}/norm/{name}", "same")


def as_torch(model: V1Dreamer, folder: Path, *, compiled: bool) -> Found:
    lay, out = layout(model, swap_gru=True), {}

    def put(new: str, name: str, kind: str) -> None:
        out[new] = lay(name, kind)

    normed, linear = partial(put_normed, put), partial(put_linear, put)

    def dense(new: str, name: str, label: str, first: str) -> int:
        count = layers(model, name)
        for i in range(count):
            normed(
                f"{new}.layers.{label}_linear{i}",
                f"{new}.layers.{label}_norm{i}",
                f"{name}/h{i}",
                "linear" if i else first,
            )
        return count

    def head(new: str, name: str, label: str, outputs: Mapping[str, str]) -> None:
        count = dense(new, name, label, "features")
        for output, layer in outputs.items():
            linear(f"{new}.{layer}", f"{name}/{output}", "linear" if count else "features")

    has = named(model)
    for i in range(len(model.config.encoder_convs)):
        normed(
            f"_wm.encoder._cnn.layers.{3 * i}",
            f"_wm.encoder._cnn.layers.{3 * i + 1}.norm",
            f"wm/enc/cnn/s{i}res",
            "down",
        )
    dense("_wm.encoder._mlp", "wm/enc/mlp", "Encoder", "linear")
    dyn = "_wm.dynamics"
    for ours, theirs, kind in (
        ("img_in", "_img_in", "linear"),
        ("img_out", "_img_out", "linear"),
        ("obs_out", "_obs_out", "posterior"),
    ):
        normed(f"{dyn}.{theirs}_layers.0", f"{dyn}.{theirs}_layers.1", f"wm/rssm/{ours}", kind)
    cell = f"{dyn}._cell.layers.GRU"
    normed(f"{cell}_linear", f"{cell}_norm", "wm/rssm/gru", "gru")
    linear(f"{dyn}._imgs_stat_layer", "wm/rssm/img_stats")
    linear(f"{dyn}._obs_stat_layer", "wm/rssm/obs_stats")
    out[f"{dyn}.W"] = lay("wm/rssm/initial", "same")[None]
    dec = "_wm.heads.decoder"
    if "wm/dec/cnn/in/kernel" in has:
        linear(f"{dec}._cnn._linear_layer", "wm/dec/cnn/in", "features")
        grow(put, model, f"{dec}._cnn.layers", ".norm")
    dense(f"{dec}._mlp", "wm/dec/mlp", "Decoder", "features")
    for name, space in model.observation_spaces:
        if len(space.shape) < 3:
            linear(f"{dec}._mlp.mean_layer.{name}", f"wm/dec/mlp/dist_{name}/out")
    head("_wm.heads.reward", "wm/rew", "Reward", {"dist_out/out": "mean_layer"})
    head("_wm.heads.cont", "wm/cont", "Cont", {"dist_out/out": "mean_layer"})
    outputs = {"dist_out/out": "mean_layer"}
    if "task_behavior/ac/actor/dist_out/std/bias" in has:
        outputs["dist_out/std"] = "std_layer"
    head("_task_behavior.actor", "task_behavior/ac/actor", "Actor", outputs)
    head(
        "_task_behavior.value", "task_behavior/critic/net", "Value", {"dist_out/out": "mean_layer"}
    )
    out["_task_behavior.ema_vals"] = np.array([-1.0, 2.0], np.float32)
    out["_task_behavior._world_model.dynamics.W"] = out[f"{dyn}.W"]
    out["_expl_behavior.actor.mean_layer.bias"] = np.zeros(3, np.float32)
    if compiled:
        out = {
            name.replace("_wm.", "_wm._orig_mod.", 1).replace(
                "_behavior.", "_behavior._orig_mod.", 1
            ): array
            for name, array in out.items()
        }
    content = {"agent_state_dict": stored(out), "optims_state_dict": {}}
    return found(folder, content, None, "latest.pt")


@pytest.mark.parametrize("case", CASES)
def test_an_agent_of_dreamerv3_torch_is_read_whatever_its_sizes(tmp_path, case):
    model = agent(**CASES[case])
    foreign = torch_v1.read(as_torch(model, tmp_path, compiled=case != "one channel"), classes=5)
    check_same(foreign, model, mixed_logits=False, going_on="mean", discount=0.997)
    assert (foreign.action, foreign.logits) == ("mode", "raw")
    assert foreign.extras["task_behavior/ac/retnorm_extr/high/value"] == 2


def test_an_unusual_latent_of_dreamerv3_torch_asks_for_its_classes(tmp_path):
    model = agent(**CASES["a smallest map of 6"])
    with pytest.raises(Misfit, match=r"latent of 20 numbers.*`classes=N`"):
        torch_v1.read(as_torch(model, tmp_path, compiled=True))


def test_the_usual_latent_of_dreamerv3_torch_has_32_classes(tmp_path):
    model = agent(**CASES["vectors only"], stoch=32, classes=32)
    foreign = torch_v1.read(as_torch(model, tmp_path, compiled=True))
    assert isinstance(foreign.model, type(model.config))
    assert (foreign.model.stoch, foreign.model.classes) == (32, 32)


def test_a_layer_too_many_and_one_too_few_are_named(tmp_path):
    source = as_torch(agent(**CASES["a smallest map of 6"]), tmp_path, compiled=False)
    arrays = source.content["agent_state_dict"]
    arrays["_wm.dynamics._img_in_layers.3.weight"] = arrays["_wm.dynamics.W"]
    with pytest.raises(Misfit, match=r"does not have, first _wm\.dynamics\._img_in_layers\.3"):
        torch_v1.read(source, classes=5)
    del (
        arrays["_wm.dynamics._img_in_layers.3.weight"],
        arrays["_wm.dynamics._cell.layers.GRU_norm.bias"],
    )
    with pytest.raises(Misfit, match=r"GRU_norm\.bias is missing"):
        torch_v1.read(source, classes=5)


# --- sheeprl -------------------------------------------------------------------------------------


def as_sheeprl(model: V1Dreamer, folder: Path, heads: tuple[int, ...] = ()) -> Found:
    lay = layout(model, swap_gru=False)
    out: dict[str, dict[str, np.ndarray]] = {
        name: {} for name in ("world_model", "actor", "critic", "target_critic")
    }

    def put(new: str, name: str, kind: str) -> None:
        module, _, rest = new.partition(".")
        out[module][f"_forward_module.{rest}"] = lay(name, kind)

    normed, linear = partial(put_normed, put), partial(put_linear, put)

    def dense(new: str, name: str, first: str) -> int:
        count = layers(model, name)
        for i in range(count):
            normed(f"{new}.{3 * i}", f"{new}.{3 * i + 1}", f"{name}/h{i}", "linear" if i else first)
        return count

    def head(new: str, name: str) -> None:
        count = dense(new, name, "features")
        linear(f"{new}.{3 * count}", f"{name}/dist_out/out", "linear" if count else "features")

    has = named(model)
    enc, rssm, dec = (f"world_model.{p}" for p in ("encoder", "rssm", "observation_model"))
    for i in range(len(model.config.encoder_convs)):
        net = f"{enc}.cnn_encoder.model.0._model"
        normed(f"{net}.{3 * i}", f"{net}.{3 * i + 1}", f"wm/enc/cnn/s{i}res", "down")
    dense(f"{enc}.mlp_encoder.model._model", "wm/enc/mlp", "linear")
    for ours, theirs, kind in (
        ("img_in", "recurrent_model.mlp", "linear"),
        ("img_out", "transition_model", "linear"),
        ("obs_out", "representation_model", "posterior"),
    ):
        net = f"{rssm}.{theirs}._model"
        normed(f"{net}.0", f"{net}.1", f"wm/rssm/{ours}", kind)
    cell = f"{rssm}.recurrent_model.rnn"
    normed(f"{cell}.linear", f"{cell}.layer_norm", "wm/rssm/gru", "gru")
    linear(f"{rssm}.transition_model._model.3", "wm/rssm/img_stats")
    linear(f"{rssm}.representation_model._model.3", "wm/rssm/obs_stats")
    put(f"{rssm}.initial_recurrent_state", "wm/rssm/initial", "same")
    if "wm/dec/cnn/in/kernel" in has:
        net, seed = f"{dec}.cnn_decoder.model", model.config.decoder_seed
        for part, kind in (("weight", "features"), ("bias", "same")):
            array = lay(f"wm/dec/cnn/in/{'kernel' if part == 'weight' else 'bias'}", kind)
            side = int(np.sqrt(len(array) // seed))
            grid = array.reshape(side, side, seed, -1).transpose(2, 0, 1, 3)
            module = out["world_model"]
            module[f"_forward_module.observation_model.cnn_decoder.model.0.{part}"] = grid.reshape(
                array.shape
            )
        grow(put, model, f"{net}.2._model", "")
    dense(f"{dec}.mlp_decoder.model._model", "wm/dec/mlp", "features")
    vectors = [name for name, space in model.observation_spaces if len(space.shape) < 3]
    for i, name in enumerate(vectors):
        linear(f"{dec}.mlp_decoder.heads.{i}", f"wm/dec/mlp/dist_{name}/out")
    head("world_model.reward_model._model", "wm/rew")
    head("world_model.continue_model._model", "wm/cont")
    new, name = "actor", "task_behavior/ac/actor"
    kind = "linear" if dense(f"{new}.model._model", name, "features") else "features"
    parts = [
        (lay(f"{name}/dist_out/{part}/kernel", kind), lay(f"{name}/dist_out/{part}/bias", "same"))
        for part in ("out", "std")
        if f"{name}/dist_out/{part}/bias" in has
    ]
    weight, bias = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    ends = np.cumsum(heads)[:-1] if heads else []
    pieces = zip(np.split(weight, ends), np.split(bias, ends), strict=True)
    for i, (w, b) in enumerate(pieces):
        out["actor"][f"_forward_module.mlp_heads.{i}.weight"] = w
        out["actor"][f"_forward_module.mlp_heads.{i}.bias"] = b
    head("critic._model", "task_behavior/critic/net")
    out["target_critic"] = dict(out["critic"])
    content: dict[str, Any] = {module: stored(arrays) for module, arrays in out.items()}
    content["moments"] = stored({"low": np.float32(-1.0), "high": np.float32(2.0)})  # pyright: ignore
    content["rb"] = []
    images = [name for name, space in model.observation_spaces if len(space.shape) == 3]
    seen = model.config.decoded or ()
    world = {
        "discrete_size": model.config.classes,
        "kl_free_nats": 1.0,
        "kl_dynamic": 0.5,
        "kl_representation": 0.1,
    }
    options = {
        "algo": {
            "world_model": world,
            "unimix": 0.01,
            "gamma": 1 - 1 / 333,
            "actor": {"unimix": 0.01, "min_std": 0.1, "max_std": 1.0},
            "cnn_keys": {"encoder": images, "decoder": [name for name in images if name in seen]},
            "mlp_keys": {"encoder": vectors, "decoder": vectors},
        },
        "env": {"id": "X-v0", "action_repeat": 2},
        "seed": 5,
    }
    return found(folder, content, options, "ckpt_4096_0.ckpt")


@pytest.mark.parametrize("case", CASES)
def test_an_agent_of_sheeprl_is_read_whatever_its_sizes(tmp_path, case):
    model = agent(**CASES[case])
    foreign = sheeprl_v1.read(as_sheeprl(model, tmp_path))
    check_same(foreign, model)
    assert (foreign.steps, foreign.seed, foreign.logits) == (4096, 5, "mixed")
    assert foreign.environment == {"task": "X-v0", "repeat": 2}
    assert foreign.extras["task_behavior/ac/retnorm_extr/high/value"] == 2


def test_twelve_discrete_actions_of_sheeprl_keep_their_order(tmp_path):
    sizes = tuple(range(2, 14))
    actions = {f"action{i}": Space((), "int32", size) for i, size in enumerate(sizes)}
    model = agent(observations={"image": image(16)}, actions=actions)
    foreign = sheeprl_v1.read(as_sheeprl(model, tmp_path, heads=sizes))
    check_same(foreign, model)


def test_two_images_of_sheeprl_share_the_channels(tmp_path):
    seen = {"rgb": image(16, 3), "depth": image(16, 3)}
    model = agent(observations=seen, decoder_convs=convs(4, 6))
    check_same(sheeprl_v1.read(as_sheeprl(model, tmp_path)), model)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("algo.world_model.decoupled_rssm", True),
        ("distribution.type", "tanh_normal"),
        ("algo.actor.layer_norm.kw.eps", 1e-5),
        ("algo.critic.dense_act", "torch.nn.ELU"),
    ],
)
def test_another_model_of_sheeprl_is_refused_by_the_name_of_its_option(tmp_path, path, value):
    source = as_sheeprl(agent(**CASES["a smallest map of 6"]), tmp_path)
    options = at = yaml.safe_load((tmp_path / "config.yaml").read_text())
    *parts, last = path.split(".")
    for part in parts:
        at = at.setdefault(part, {})
    at[last] = value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises((Damaged, Misfit), match=rf"`{path}`.*{value!r}"):
        sheeprl_v1.read(source)


# --- files that are wrong ------------------------------------------------------------------------


SOURCES: dict[str, tuple[Callable[..., Found], Callable[..., Foreign], dict[str, Any]]] = {
    "danijar": (as_danijar, danijar_v1.read, {}),
    "torch": (partial(as_torch, compiled=False), torch_v1.read, {"classes": 5}),
    "sheeprl": (as_sheeprl, sheeprl_v1.read, {}),
}
DAMAGE: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "missing": lambda x: None,
    "transposed": lambda x: x.T,
    "empty": lambda x: x[:0],
    "cut": lambda x: x[..., :-1],
    "of another rank": lambda x: x[None],
}
UNUSED = ("ema_vals", "_world_model", "_expl_behavior", "moments", "target_critic")
"""Parts without which an agent is whole."""


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("damage", [d if d in ("missing", "cut") else slow(d) for d in DAMAGE])
def test_every_damaged_array_is_refused_and_never_loaded(tmp_path, source, damage):
    seen = {"image": image(16), "a": vector(4), "b": vector(2)}
    write, read, options = SOURCES[source]
    whole = write(agent(observations=seen), tmp_path)
    shapes: dict[Any, dict[str, tuple[int, ...]]] = {}

    def read_whole() -> None:
        foreign = read(whole, **options)
        if foreign.model not in shapes:
            shapes[foreign.model] = shapes_of(foreign)
        match(foreign.weights, shapes[foreign.model], what="Does not fit")

    read_whole()
    for module, arrays in whole.content.items():
        for name in list(arrays if isinstance(arrays, dict) else ()):
            kept = arrays[name]
            if not isinstance(kept, Stored) or any(u in f"{module}.{name}" for u in UNUSED):
                continue
            changed = DAMAGE[damage](kept.read())
            # One row is the same transposed: a memory of (1, n) is flattened anyway.
            if changed is not None and (changed.shape == kept.shape or 1 in kept.shape[:1]):
                continue
            del arrays[name]
            if changed is not None:
                arrays[name] = stored({name: changed})[name]
            with pytest.raises((Damaged, Misfit)):
                read_whole()
            arrays[name] = kept


def shapes_of(foreign: Foreign) -> dict[str, tuple[int, ...]]:
    config = foreign.model
    assert isinstance(config, V1Config)
    model = jax.eval_shape(
        lambda: V1Dreamer(foreign.observations, foreign.actions, config, key=jr.key(0))
    )
    return {name: leaf.shape for name, leaf in named(model).items()}
